//! The agent and a real S3 server (moto), with a link between them that can be broken.

mod faults;
mod pulls;
mod refusals;
mod tier;
mod tls;

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use modelring_proto::v1::ModelRef;

use crate::{
    faulty_link::FaultyLink,
    fixture::{Ended, Fixture, Started, model},
    s3::S3,
    scripted::{MIB, Script, Scripted},
};

/// An agent that pulls from a bucket.
struct Stage {
    s3: S3,
    link: FaultyLink,
    server: Scripted,
    fixture: Fixture,
    started: Started,
}

// === impl Stage ===

impl Stage {
    /// A bucket `models` with objects, reached by the link, and an agent whose server has room for everything.
    async fn new<'a>(objects: impl IntoIterator<Item = (String, &'a [u8])>) -> Self {
        let s3 = S3::start();
        s3.make_bucket("models");
        s3.put_all("models", objects);
        let link = FaultyLink::to(s3.addr);
        let mut script = Script { load_bytes: 10 * MIB, predict: Ok(10 * MIB), ..Script::default() };
        script.status.model_loading_timeout_ms = 60_000;
        let server = Scripted::start(script);
        let fixture = Fixture::new(&[]);
        fixture.write("storage-config/s3", &s3.entry_by(link.addr, "models"));
        let started = fixture.start(&server.endpoint()).await;
        started.watch().await.snapshot_end().await;
        Self { s3, link, server, fixture, started }
    }

    /// Has a model loaded that takes its time to come, as long as there is progress.
    async fn load_patiently(&self, model: ModelRef) -> Ended {
        let call = self.started.ask(model).await.unwrap();
        tokio::time::timeout(Duration::from_secs(150), Ended::of(call)).await.expect("an answer in time")
    }

    /// The files of a model: path below its folder, and content.
    fn files(&self, name: &str) -> BTreeMap<String, Vec<u8>> {
        let mut files = BTreeMap::new();
        let top = self.fixture.path("model-dir").join(model(name).id);
        collect(&top, &top, &mut files);
        files
    }

    /// Folders of pulls that are not whole.
    fn unfinished(&self) -> usize {
        fs::read_dir(self.fixture.path("model-dir/_modelring/pulls")).unwrap().count()
    }
}

/// A model of the bucket.
fn at(name: &str, path: &str) -> ModelRef {
    ModelRef { path: path.to_owned(), key: r#"{"storage_key":"s3"}"#.to_owned(), ..model(name) }
}

fn collect(top: &Path, dir: &Path, files: &mut BTreeMap<String, Vec<u8>>) {
    for entry in fs::read_dir(dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(top, &path, files);
        } else {
            let name = path.strip_prefix(top).unwrap().to_str().unwrap().to_owned();
            files.insert(name, fs::read(path).unwrap());
        }
    }
}

/// Bytes that differ at every place.
fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32;
    let mut noise = Vec::with_capacity(bytes + 4);
    while noise.len() < bytes {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        noise.extend_from_slice(&state.to_be_bytes());
    }
    noise.truncate(bytes);
    noise
}
