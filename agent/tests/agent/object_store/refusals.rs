//! What the store does not give, and how it is said and remembered.

use std::time::{Duration, Instant};

use modelring_proto::v1::{load_event::Event, refused::Reason};
use tonic::Code;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_denied_or_missing_is_named_with_the_remedy_and_remembered() {
    let stage = Stage::new([("m/a".to_owned(), &b"1"[..]), ("hostile/%2e%2e/x".to_owned(), b"1")]).await;
    let entry = stage.s3.entry_by(stage.link.addr, "models");
    let (id, secret) = (&stage.s3.access_key_id, &stage.s3.secret_access_key);
    let host = stage.link.addr.to_string();
    for (n, (entry, path, code, parts)) in [
        (
            entry.replace(secret, "wrong"),
            "m",
            Code::Unauthenticated,
            ["bucket 'models'", "SignatureDoesNotMatch", "secret_access_key"],
        ),
        (
            entry.replace(id, "AKIAWRONG"),
            "m",
            Code::Unauthenticated,
            ["bucket 'models'", "InvalidAccessKeyId", "access_key_id"],
        ),
        (
            entry.replace("models", "elsewhere"),
            "m",
            Code::NotFound,
            ["no bucket 'elsewhere'", "NoSuchBucket", "check bucket"],
        ),
        (entry.clone(), "m/b", Code::NotFound, ["no object", "'m/b'", "check the model's path"]),
        (entry.clone(), "hostile", Code::InvalidArgument, ["climbs by '..'", "hostile/../x", "rename the object"]),
    ]
    .into_iter()
    .enumerate()
    {
        stage.fixture.write("storage-config/s3", &entry);
        let name = format!("m{n}");
        let ended = stage.started.ensure(at(&name, path)).await;
        let (found, text) = ended.failed();
        assert_eq!(found, code as u32, "{text}");
        assert!(text.starts_with("Failed to pull model from storage due to error: "), "{text}");
        let denied = path == "m";
        assert_eq!(text.contains("error: unable to list objects in bucket '"), denied, "{text}");
        for part in parts.into_iter().chain([host.as_str()]).filter(|part| *part != host || path != "hostile") {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains(secret) && !text.contains("wrong"), "{text}");
        assert!(stage.files(&name).is_empty());
    }
    assert!(!stage.fixture.path("model-dir").join("x").exists());
    assert_eq!(stage.server.book().loads.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_object_is_refused_from_memory_until_the_secret_changes() {
    let stage = Stage::new([("m/a".to_owned(), &b"1"[..])]).await;
    let (code, text) = {
        let ended = stage.started.ensure(at("m", "m/b")).await;
        let (code, text) = ended.failed();
        (code, text.to_owned())
    };
    assert_eq!(code, Code::NotFound as u32, "{text}");
    let asked = stage.link.asked().len();
    for _ in 0..5 {
        match stage.started.ensure(at("m", "m/b")).await.last() {
            Event::Refused(refused) => {
                assert_eq!(refused.reason(), Reason::Failing);
                assert!(refused.text.contains(&text), "{refused:?}");
                assert!(refused.retry_after_millis > 60_000, "{refused:?}");
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(stage.link.asked().len(), asked, "the store is not asked");

    stage.s3.put("models", "m/b", b"2");
    let entry = stage.s3.entry_by(stage.link.addr, "models");
    stage.fixture.write("storage-config/s3", &entry.replace('}', r#","comment":"changed"}"#));
    let began = Instant::now();
    while !matches!(stage.started.ensure(at("m", "m/b")).await.last(), Event::Loaded(_)) {
        assert!(began.elapsed() < Duration::from_secs(20), "the changed Secret counts");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_lacks_something_is_refused_with_the_known_words() {
    let server = Scripted::start(Script::default());
    let fixture = Fixture::new(&[]);
    let whole = r#"{"type":"s3","access_key_id":"a","secret_access_key":"hunter2","endpoint_url":"http://127.0.0.1:1","region":"r","bucket":"b"}"#;
    fixture.write("storage-config/s3", whole);
    let started = fixture.start(&server.endpoint()).await;
    for (n, (from, to, text)) in [
        (r#""access_key_id":"a","#, "", "missing required string configuration 'access_key_id'"),
        (r#""secret_access_key":"hunter2","#, "", "missing required string configuration 'secret_access_key'"),
        (r#""endpoint_url":"http://127.0.0.1:1","#, "", "missing required string configuration 'endpoint_url'"),
        (r#""region":"r","#, "", "missing required string configuration 'region'"),
        (r#","bucket":"b""#, "", "required configuration 'bucket' missing from command"),
        (
            r#""access_key_id":"a""#,
            r#""access_key_id":"""#,
            "only one of 'access_key_id' and 'secret_access_key' is set",
        ),
        ("http://127.0.0.1:1", "ftp://x", "configuration 'endpoint_url' has scheme 'ftp'"),
        ("http://127.0.0.1:1", "http://user:hunter2@x", "configuration 'endpoint_url' holds credentials"),
        (
            r#""region":"r""#,
            r#""region":"r","certificate":"no PEM""#,
            "configuration 'certificate' holds no certificate in PEM",
        ),
        (r#""region":"r""#, r#""region":"r","certificate":1"#, "configuration 'certificate' is not a string"),
    ]
    .into_iter()
    .enumerate()
    {
        fixture.write("storage-config/s3", &whole.replace(from, to));
        let ended = started.ensure(at(&format!("m{n}"), "m")).await;
        let (code, found) = ended.failed();
        assert_eq!(code, Code::InvalidArgument as u32, "{found}");
        assert!(found.starts_with(&format!("Failed to pull model from storage due to error: {text}")), "{found}");
        assert!(!found.contains("hunter2"), "{found}");
    }
}
