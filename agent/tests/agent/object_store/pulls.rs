//! What comes where.

use modelring_proto::v1::load_event::Event;

use super::*;
use crate::embedded;

fn objects<'a>(all: &[(&str, &'a str)]) -> Vec<(String, &'a [u8])> {
    all.iter().map(|(key, content)| ((*key).to_owned(), content.as_bytes())).collect()
}

fn names(files: &BTreeMap<String, Vec<u8>>) -> Vec<&str> {
    files.keys().map(String::as_str).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_model_comes_from_s3_and_knows_a_seven() {
    let s3 = S3::start();
    s3.make_bucket("models");
    s3.put("models", "onnx/mnist.onnx", embedded::MNIST);
    let server = embedded::runtime("127.0.0.1:0".parse().unwrap(), 64 << 20).await;
    let fixture = Fixture::new(&[]);
    fixture.write("storage-config/s3", &s3.entry("models"));
    let started = embedded::start(&fixture, &server).await;
    let ended = started.ensure(ModelRef { key: at("a", "").key, ..embedded::mnist("a") }).await;
    ended.loaded();
    let told = ended.events.iter().any(|event| match event {
        Event::Progress(progress) => progress.stage == "pulling" && progress.of_bytes == embedded::MNIST.len() as u64,
        _ => false,
    });
    assert!(told, "{ended:?}");
    assert_eq!(embedded::infer(server.addr, "a").await.unwrap(), 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_is_one_object_or_a_folder_and_files_lie_where_modelmesh_put_them() {
    let stage = Stage::new(objects(&[
        ("dir/file1", "1"),
        ("dir/sub/file%202", "22"),
        ("dir/sub/deep/f", "333"),
        ("dir/empty", ""),
        ("dir/marker/", ""),
        ("dir_with_more/other", "no"),
        ("dir.json", "no"),
        ("schemas/dir", "schema"),
    ]))
    .await;
    stage.started.ensure(at("folder", "dir")).await.loaded();
    let files = stage.files("folder");
    assert_eq!(names(&files), ["dir/file1", "dir/sub/deep/f", "dir/sub/file 2"]);
    assert_eq!(files["dir/sub/deep/f"], b"333");
    let book = stage.server.book();
    assert!(book.loads[0].model_path.ends_with("/folder__isvc-0123456789/dir"), "{}", book.loads[0].model_path);
    assert_eq!(book.loads[0].model_key, r#"{"disk_size_bytes":6}"#);

    stage.started.ensure(at("slash", "dir/sub/")).await.loaded();
    assert_eq!(names(&stage.files("slash")), ["sub/deep/f", "sub/file 2"]);

    stage.started.ensure(at("file", "dir/file1")).await.loaded();
    assert_eq!(names(&stage.files("file")), ["file1"]);

    let key = r#"{"storage_key":"s3","schema_path":"schemas/dir"}"#.to_owned();
    stage.started.ensure(ModelRef { key, ..at("schema", "dir") }).await.loaded();
    assert_eq!(stage.files("schema")["_schema.json"], b"schema");

    stage.started.ensure(at("all", "/")).await.loaded();
    assert_eq!(
        names(&stage.files("all")),
        [
            "_model/dir.json",
            "_model/dir/file1",
            "_model/dir/sub/deep/f",
            "_model/dir/sub/file 2",
            "_model/dir_with_more/other",
            "_model/schemas/dir"
        ]
    );
    assert_eq!(stage.unfinished(), 0);
    assert!(stage.link.asked().iter().all(|asked| asked.path.starts_with("/models")), "the bucket is in the path");

    let entry = stage.s3.entry_by(stage.link.addr, "elsewhere");
    stage.fixture.write("storage-config/s3", &entry);
    let key = r#"{"storage_key":"s3","storage_params":{"bucket":"models"}}"#.to_owned();
    stage.started.ensure(ModelRef { key, ..at("parameter", "dir/file1") }).await.loaded();
    assert_eq!(names(&stage.files("parameter")), ["file1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_and_a_half_thousand_objects_under_one_prefix_come_whole() {
    let contents: Vec<String> = (0..2500).map(|n| format!("content of {n}")).collect();
    let objects =
        contents.iter().enumerate().map(|(n, content)| (format!("many/{:02}/{n}", n % 20), content.as_bytes()));
    let stage = Stage::new(objects).await;
    stage.load_patiently(at("many", "many")).await.loaded();
    let files = stage.files("many");
    assert_eq!(files.len(), 2500);
    for (n, content) in contents.iter().enumerate() {
        assert_eq!(files[&format!("many/{:02}/{n}", n % 20)], content.as_bytes());
    }
    let lists = stage.link.asked().iter().filter(|asked| asked.path.contains("list-type=2")).count();
    assert!(lists <= 8, "{lists} lists of a thousand keys, two looks");
    let ranges = stage.link.ranges();
    assert_eq!(ranges.len(), 2500);
    assert!(ranges.windows(2).all(|pair| pair[0].0 != pair[1].0), "each object is fetched once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_big_object_comes_in_ranges_each_fetched_once() {
    let bytes = if std::env::var_os("MODELRING_SOAK").is_some() { 300 << 20 } else { 100 << 20 };
    let content = noise(bytes + 7);
    let stage = Stage::new([("big.bin".to_owned(), &content[..])]).await;
    stage.load_patiently(at("big", "big.bin")).await.loaded();
    assert!(stage.files("big")["big.bin"] == content, "the content is that of the object");
    let ranges = stage.link.ranges();
    assert!(ranges.len() > 4, "{ranges:?}");
    let mut at = 0;
    for (_, range) in &ranges {
        assert_eq!(range.start, at, "each byte once: {ranges:?}");
        at = range.end;
    }
    assert_eq!(at, content.len() as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_public_bucket_is_read_without_keys() {
    let stage = Stage::new(objects(&[("m/a", "1")])).await;
    let open = format!(
        r#"{{"type":"s3","access_key_id":"","secret_access_key":"","endpoint_url":"http://{}","region":"","default_bucket":"models"}}"#,
        stage.link.addr
    );
    stage.fixture.write("storage-config/s3", &open);
    stage.s3.take_unsigned_requests();
    let ended = stage.started.ensure(at("private", "m")).await;
    assert!(ended.failed().1.contains("without credentials"), "{ended:?}");
    stage.s3.make_public("models", "m/a");
    stage.started.ensure(at("public", "m")).await.loaded();
    assert_eq!(names(&stage.files("public")), ["m/a"]);
}
