use super::*;
use crate::storage::{entry::Entry, key::ModelKey};

fn place(id: &str) -> Place {
    let secret = if id.is_empty() { "" } else { "hunter2" };
    let key = format!(
        r#"{{"storage_params":{{"type":"s3","access_key_id":"{id}","secret_access_key":"{secret}","endpoint_url":"http://minio:9000","region":"r"}}}}"#
    );
    Place::of(&Entry::choose(None, &ModelKey::parse(&key).unwrap()).unwrap()).unwrap()
}

#[test]
fn passing_and_permanent_answers_are_told_apart() {
    for (status, code, expected, again, passes) in [
        (404, "NoSuchBucket", Code::NotFound, false, false),
        (404, "NoSuchKey", Code::NotFound, false, true),
        (404, "", Code::NotFound, false, false),
        (403, "AccessDenied", Code::PermissionDenied, false, false),
        (403, "InvalidAccessKeyId", Code::Unauthenticated, false, false),
        (403, "SignatureDoesNotMatch", Code::Unauthenticated, false, false),
        (403, "RequestTimeTooSkewed", Code::Unavailable, false, true),
        (401, "", Code::Unauthenticated, false, false),
        (301, "PermanentRedirect", Code::FailedPrecondition, false, false),
        (400, "AuthorizationHeaderMalformed", Code::FailedPrecondition, false, false),
        (400, "InvalidBucketName", Code::InvalidArgument, false, false),
        (400, "RequestTimeout", Code::Unavailable, true, true),
        (412, "PreconditionFailed", Code::Aborted, false, true),
        (429, "", Code::Unavailable, true, true),
        (500, "InternalError", Code::Unavailable, true, true),
        (501, "NotImplemented", Code::InvalidArgument, false, false),
        (502, "", Code::Unavailable, true, true),
        (503, "SlowDown", Code::Unavailable, true, true),
    ] {
        let trouble = answered(status, code, "text of the store", &place("id"), "models");
        let found = (trouble.error.code, trouble.again, trouble.error.passing);
        assert_eq!(found, (expected as u32, again, passes), "{status} {code}: {}", trouble.error.text);
        assert!(trouble.error.text.contains("minio:9000") || status == 412, "{}", trouble.error.text);
        assert!(!trouble.error.text.contains("hunter2"));
    }
}

#[test]
fn without_keys_a_denial_says_that_the_bucket_is_not_public() {
    let trouble = answered(403, "AccessDenied", "", &place(""), "models");
    assert!(trouble.error.text.contains("the bucket is not public"), "{}", trouble.error.text);
}

#[test]
fn what_a_store_says_is_cut_and_cannot_write_to_a_terminal() {
    let trouble = answered(400, "Odd", &format!("\x1b[2J{}", "x".repeat(5000)), &place("id"), "models");
    assert!(trouble.error.text.len() < 500 && !trouble.error.text.contains('\x1b'), "{}", trouble.error.text);
}
