//! What an answer of an S3 store means: whether it lasts, and what to do about it.

use std::error::Error;

use aws_sdk_s3::{
    config::http::HttpResponse,
    error::{ProvideErrorMetadata, SdkError},
};
use tonic::Code;

use super::Place;
use crate::{
    failure::{passing, permanent},
    storage::objects::Trouble,
};

/// Longest text that is taken from a store, characters.
const LONGEST: usize = 300;

/// A failed request.
pub(super) fn trouble<E>(error: &SdkError<E, HttpResponse>, place: &Place, bucket: &str) -> Trouble
where
    E: ProvideErrorMetadata + Error + 'static,
{
    let host = &place.host;
    match error {
        SdkError::ServiceError(answer) => {
            let meta = answer.err().meta();
            let status = answer.raw().status().as_u16();
            answered(status, meta.code().unwrap_or_default(), meta.message().unwrap_or_default(), place, bucket)
        }
        SdkError::TimeoutError(_) => late(host),
        SdkError::DispatchFailure(failure) if failure.is_timeout() => late(host),
        SdkError::DispatchFailure(failure) => {
            let cause = failure.as_connector_error().map_or_else(String::new, |error| innermost(error));
            if cause.contains("invalid peer certificate") {
                let text = format!("{host} is not trusted: {cause}; set 'certificate' to the CA that signed it");
                return Trouble::lasting(permanent(Code::FailedPrecondition, text));
            }
            Trouble::momentary(passing(Code::Unavailable, format!("cannot reach {host}: {cause}")))
        }
        SdkError::ResponseError(answer) => {
            let text = format!("{host} gave an answer that cannot be read: {}", innermost(error));
            match answer.raw().status().as_u16() {
                200..=299 | 429 | 500.. => Trouble::momentary(passing(Code::Unavailable, text)),
                status => answered(status, "", "", place, bucket),
            }
        }
        _ => {
            let text = format!(
                "the request to {host} cannot be made: {}; check endpoint, region and bucket",
                innermost(error)
            );
            Trouble::lasting(permanent(Code::InvalidArgument, text))
        }
    }
}

fn late(host: &str) -> Trouble {
    Trouble::momentary(passing(Code::DeadlineExceeded, format!("{host} did not answer in time")))
}

/// What a status and a code of S3 mean. Codes: "Error responses", Amazon S3 API Reference.
fn answered(status: u16, code: &str, message: &str, place: &Place, bucket: &str) -> Trouble {
    let host = &place.host;
    let said: String = match (code, message) {
        ("", "") => format!("{status}"),
        (code, "") => format!("{status} {code}"),
        (code, message) => format!("{status} {code}: {message}"),
    };
    let said: String = said.trim().chars().take(LONGEST).flat_map(char::escape_debug).collect();
    let lasting = |code, text: String| Trouble::lasting(permanent(code, text));
    match (status, code) {
        (_, "NoSuchBucket") => lasting(
            Code::NotFound,
            format!("there is no bucket '{bucket}' at {host} ({said}); check bucket and endpoint"),
        ),
        // It was listed a moment ago.
        (_, "NoSuchKey") => Trouble::lasting(passing(Code::NotFound, format!("{host} has it no longer ({said})"))),
        (412, _) => {
            let text = "it was changed while it was pulled; the next load takes the new one".to_owned();
            Trouble::lasting(passing(Code::Aborted, text))
        }
        (_, "RequestTimeTooSkewed") => {
            let text = format!("{host} refuses the time of this machine ({said}); set its clock");
            Trouble::lasting(passing(Code::Unavailable, text))
        }
        (_, "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "InvalidToken" | "ExpiredToken") | (401, _) => lasting(
            Code::Unauthenticated,
            format!("{host} does not accept the credentials ({said}); check access_key_id and secret_access_key"),
        ),
        (403, _) if place.access_key_id.is_empty() => lasting(
            Code::PermissionDenied,
            format!(
                "{host} denies access without credentials ({said}); the bucket is not public, set access_key_id and secret_access_key"
            ),
        ),
        (403, _) => lasting(
            Code::PermissionDenied,
            format!("{host} denies access ({said}); the credentials need s3:ListBucket and s3:GetObject for it"),
        ),
        (_, "AuthorizationHeaderMalformed" | "PermanentRedirect" | "IllegalLocationConstraintException")
        | (301 | 307 | 308, _) => lasting(
            Code::FailedPrecondition,
            format!(
                "bucket '{bucket}' is not served by {host} in region '{}' ({said}); check region and endpoint",
                place.region
            ),
        ),
        (_, "SlowDown" | "RequestTimeout" | "InternalError" | "ServiceUnavailable")
        | (408 | 429 | 500 | 502..=599, _) => {
            Trouble::momentary(passing(Code::Unavailable, format!("{host} is not able to answer now ({said})")))
        }
        (404, _) => {
            lasting(Code::NotFound, format!("{host} does not have it ({said}); check bucket, path and endpoint"))
        }
        _ => lasting(Code::InvalidArgument, format!("{host} refuses the request ({said}); check the storage entry")),
    }
}

/// The cause at the root of an error.
pub(super) fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string().chars().take(LONGEST).collect()
}

#[cfg(test)]
#[path = "error/tests.rs"]
mod tests;
