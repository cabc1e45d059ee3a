//! What a failed attempt means: whether the server may have run the call, and what the caller sees if it is the last.

use std::time::Duration;

use h2::Reason as Code;
use http::{HeaderMap, StatusCode};

use super::{
    answer::{Answer, Reason},
    policy::{Cause, Ran},
};

pub(super) const UNKNOWN: u32 = 2;
pub(super) const INTERNAL: u32 = 13;
const RESOURCE_EXHAUSTED: u32 = 8;
pub(super) const UNAVAILABLE: u32 = 14;

/// An attempt that brought nothing to the caller.
pub(super) struct Failure {
    pub ran: Ran,
    pub cause: Cause,
    /// What the caller sees if it is not tried again.
    pub answer: Answer,
    /// The server's own words, to be passed unchanged.
    pub original: Option<Box<Original>>,
}

/// A response that was held back.
pub(super) struct Original {
    pub headers: HeaderMap,
    /// `None` if the headers were all.
    pub trailers: Option<HeaderMap>,
}

/// Whether the policy looks at a status before the caller sees it: NOT_FOUND, RESOURCE_EXHAUSTED, UNAVAILABLE, and what
/// some servers say of a missing model, INVALID_ARGUMENT (MLServer) and INTERNAL (TorchServe).
pub(super) fn is_looked_at(code: u32) -> bool {
    matches!(code, 3 | 5 | RESOURCE_EXHAUSTED | INTERNAL | UNAVAILABLE)
}

/// The server answered with a status.
pub(super) fn status(answer: Answer) -> Failure {
    Failure { ran: Ran::Maybe, cause: Cause::Status, answer, original: None }
}

/// No connection.
pub(super) fn connect(text: impl Into<String>) -> Failure {
    Failure { ran: Ran::No, cause: Cause::Connect, answer: Answer::new(Reason::UC, text), original: None }
}

/// The server takes no call now, and has not seen this one.
pub(super) fn refused(text: impl Into<String>) -> Failure {
    Failure { ran: Ran::No, cause: Cause::Refused, answer: Answer::new(Reason::RB, text), original: None }
}

/// The copy was not usable any more when the call was about to be written.
pub(super) fn unusable() -> Failure {
    let answer = Answer::new(Reason::UC, "the copy was given up before the call could be sent");
    Failure { ran: Ran::No, cause: Cause::Unusable, answer, original: None }
}

/// The server answered HTTP, but no gRPC.
pub(super) fn no_grpc(http: StatusCode) -> Failure {
    let code = match http.as_u16() {
        400 => INTERNAL,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502..=504 => UNAVAILABLE,
        _ => UNKNOWN,
    };
    status(lost(code, format!("the model server answered HTTP status {} and no gRPC", http.as_u16())))
}

/// The answer to a call that may have run.
pub(super) fn lost(code: u32, text: impl Into<String>) -> Answer {
    let again = matches!(code, UNAVAILABLE | RESOURCE_EXHAUSTED).then_some(Duration::from_secs(1));
    Answer { reason: Some(Reason::UR), retry_after: again, ..Answer::status(code, text) }
}

/// What a broken stream means.
pub(super) fn classify(error: &h2::Error) -> Failure {
    let refused = error.is_reset() && error.reason() == Some(Code::REFUSED_STREAM);
    // A GOAWAY of the server fails only the streams that it will not look at.
    let (ran, cause, answer) = if refused || error.is_go_away() && error.is_remote() {
        return self::refused(format!("the model server refused the call: {error}"));
    } else if error.is_reset() {
        let code = if error.reason() == Some(Code::ENHANCE_YOUR_CALM) { RESOURCE_EXHAUSTED } else { INTERNAL };
        (Ran::Maybe, Cause::Reset, lost(code, format!("the model server reset the call: {error}")))
    } else {
        let answer = lost(UNAVAILABLE, format!("the connection to the model server was lost: {error}"));
        (Ran::Maybe, Cause::Lost, answer)
    };
    Failure { ran, cause, answer, original: None }
}
