//! What these tests share.

use std::{sync::Arc, time::Duration};

use harness::{
    FaultyLink, Fleet, FleetSetup, Folder, Rest, S3,
    fleet::{Call, Connection, SOON, call, failures, model},
};

/// How long one call may take where nothing but load stands in its way: longer than a load is first thought to take, or the
/// proxy would answer that it takes too long.
pub(crate) const DEADLINE: Duration = Duration::from_secs(45);

/// Whether the long forms run.
pub(crate) fn soak() -> bool {
    std::env::var("MODELRING_SOAK").is_ok_and(|value| value == "1")
}

/// A fleet that serves `models` numbered models, none of them loaded for sure.
pub(crate) async fn fleet(models: usize, setup: FleetSetup) -> (Folder, Fleet) {
    let folder = Folder::with_storage();
    (0..models).for_each(|number| folder.add_numbered(number));
    let fleet = Fleet::start(&folder, setup).await;
    (folder, fleet)
}

/// An S3 server behind a link that notes every request, and a folder of these numbered models, whose files of about
/// `bytes` bytes lie in its bucket.
pub(crate) struct Store {
    pub(crate) s3: S3,
    pub(crate) link: FaultyLink,
    pub(crate) folder: Folder,
}

impl Store {
    pub(crate) fn new(models: impl IntoIterator<Item = usize>, bytes: usize) -> Self {
        let s3 = S3::start();
        s3.make_bucket(BUCKET);
        let link = FaultyLink::to(s3.addr);
        let folder = Folder::empty();
        folder.set_storage(&s3.entry_by(link.addr, BUCKET));
        let objects: Vec<_> = models.into_iter().map(|number| (key(number), padded(number, bytes))).collect();
        s3.put_all(BUCKET, objects.iter().map(|(key, bytes)| (key.clone(), bytes.as_slice())));
        Self { s3, link, folder }
    }

    /// Writes the InferenceService of a numbered model.
    pub(crate) fn add(&self, number: usize) {
        self.folder.add_isvc(&model(number), &key(number));
    }

    /// Puts the object of a numbered model.
    pub(crate) fn put(&self, number: usize) {
        self.s3.put(BUCKET, &key(number), &padded(number, 0));
    }
}

/// Bucket of the models.
pub(crate) const BUCKET: &str = "models";

/// Where a numbered model lies in the bucket.
pub(crate) fn key(number: usize) -> String {
    format!("affine/{}.onnx", model(number))
}

/// A numbered model of about this size: what is behind it is a long description (field 6 of an ONNX model).
fn padded(number: usize, bytes: usize) -> Vec<u8> {
    let mut model = Folder::affine(number as f32 + 1.0);
    if bytes > 0 {
        model.push(6 << 3 | 2);
        let mut length = bytes;
        while length >= 128 {
            model.push((length % 128) as u8 | 128);
            length /= 128;
        }
        model.push(length as u8);
        model.extend(std::iter::repeat_n(b'-', bytes));
    }
    model
}

/// Calls each of these models once over one connection, and all of them must answer.
pub(crate) async fn call_each(connection: &Arc<Connection>, models: impl IntoIterator<Item = usize>) -> Vec<Call> {
    let calls = models.into_iter().map(|number| {
        let connection = connection.clone();
        tokio::spawn(async move { call(&connection, number, DEADLINE).await })
    });
    let calls: Vec<_> = calls.collect();
    let mut ended = Vec::new();
    for call in calls {
        ended.push(call.await.expect("a call does not panic"));
    }
    assert_eq!(failures(&ended), [].into(), "every model answers");
    ended
}

/// Waits until every proxy has a model in its table.
pub(crate) async fn until_known(fleet: &Fleet, number: usize) {
    for proxy in &fleet.proxies {
        let known = async {
            let path = format!("/v2/models/{}/ready", model(number));
            while Rest::send(proxy.rest, "GET", &path, "").await.status != 200 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(SOON, known).await.expect("a new model is known soon");
    }
}
