//! Answers over HTTP.

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use serde::Serialize;

use super::json::Malformed;
use crate::engine::answer::{Answer, Reason};

/// Header that carries the reason of an answer that the proxy itself made.
pub const REASON: HeaderName = HeaderName::from_static("modelring-reason");

/// The v2 specification's `error` beside the gateway's `code` and `message`.
#[derive(Serialize)]
struct Body<'a> {
    error: &'a str,
    code: u32,
    message: &'a str,
}

/// The answer's JSON body.
#[must_use]
pub fn body(answer: &Answer) -> Vec<u8> {
    let body = Body { error: &answer.text, code: answer.code, message: &answer.text };
    serde_json::to_vec(&body).unwrap_or_default()
}

/// The answer's headers, but for its content type.
#[must_use]
pub fn headers(answer: &Answer) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if let Some(reason) = answer.reason {
        headers.insert(REASON, HeaderValue::from_static(reason.as_str()));
    }
    if let Some(after) = answer.retry_after {
        let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
    }
    if answer.http == 401 {
        headers.insert(header::WWW_AUTHENTICATE, printable(&answer.text));
    }
    headers
}

/// A malformed request.
pub(super) fn bad(text: impl Into<String>) -> Answer {
    Answer::new(Reason::BR, text)
}

/// Something is wrong with one input.
pub(super) fn bad_input(tensor: &str, what: impl fmt::Display) -> Answer {
    bad(format!("input tensor {tensor:?}: {what}"))
}

/// An answer of the model server that REST cannot show.
pub(super) fn unshowable(text: impl Into<String>) -> Answer {
    Answer { code: 2, ..Answer::new(Reason::IN, text) }
}

/// Text as a header's value: what is not printable becomes a space.
fn printable(text: &str) -> HeaderValue {
    let text: String = text.chars().map(|c| if c == ' ' || c.is_ascii_graphic() { c } else { ' ' }).collect();
    HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

impl From<Malformed> for Answer {
    fn from(malformed: Malformed) -> Self {
        bad(malformed.to_string())
    }
}
