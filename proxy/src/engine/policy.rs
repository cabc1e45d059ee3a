//! The boundary between the way of the bytes and the decisions about them.
//!
//! An engine relays streams; a [`Policy`] says where each goes. The engine knows frames, gRPC's prefix and status; it
//! knows nothing of models, tables or copies. The policy knows nothing of sockets. Two engines stand behind this
//! boundary: first the forwarder on the h2 crate, later the frame relay.

use std::{
    any::Any,
    future::Future,
    pin::Pin,
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use modelring_placement::{id::ModelId, time::Time};
use tokio_util::sync::CancellationToken;

use super::{answer::Answer, target::Target};

/// Something of the policy's own, set at most once a call.
pub type Noted = OnceLock<Arc<dyn Any + Send + Sync>>;

/// Field numbers from a message down to a field.
pub type FieldPath = Arc<[u32]>;

/// A held call's decision, some time later.
pub type Later<L> = Pin<Box<dyn Future<Output = Decision<L>>>>;

/// The head of a call.
#[derive(Clone, Debug)]
pub struct Head {
    /// `/pkg.Service/Method`.
    pub path: Arc<str>,
    /// Headers as the caller sent them.
    pub headers: HeaderMap,
    /// When the caller's patience ends (`grpc-timeout`), [`Time::NEVER`] without one.
    pub deadline: Time,
    /// When the call came.
    pub arrived: Time,
    /// What the policy noted at [`Policy::head`] to find it again at [`Policy::route`]: a call sees one version of what it
    /// is decided by.
    pub noted: Noted,
}

/// What to do before the first message.
pub enum First<L> {
    /// Read the first message until the field is seen, then ask [`Policy::route`].
    Peek(FieldPath),
    /// Nothing needs to be read.
    Decide(Decision<L>),
}

/// Where a call goes.
pub enum Decision<L> {
    /// To a model server.
    Forward(Plan<L>),
    /// Nobody can have it yet: wait for the future, which ends in another decision. Dropping it gives the call up.
    Hold(Later<L>),
    /// To a service of the proxy itself.
    Serve,
    /// It is answered here. An answer without a reason, given to a failed attempt that brought a status of the server,
    /// lets that status pass as it came, with its headers and trailers.
    Answer(Answer),
}

/// What a call is about, for those who count by model.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Subject {
    /// The model.
    pub model: ModelId,
    /// The vmodel that was asked for, empty where the model itself was.
    pub vmodel: Arc<str>,
}

/// How a call is forwarded.
pub struct Plan<L> {
    /// The model server.
    pub target: Arc<Target>,
    /// Guard of one attempt (in flight on the copy); dropped exactly once, when its upstream half is over.
    pub lease: L,
    /// Headers to add to the call (the caller's `mm-*` and `grpc-*` are stripped by the engine).
    pub request_headers: Vec<(HeaderName, HeaderValue)>,
    /// Headers to add to the response.
    pub response_headers: Vec<(HeaderName, HeaderValue)>,
    /// Bytes to append to every request message.
    pub request_tail: Option<Bytes>,
    /// Bytes to append to every response message.
    pub response_tail: Option<Bytes>,
    /// Whether the method is known to be unary: its response headers are held until the first data or the end, so that
    /// a status in the trailers can still be retried.
    pub unary: bool,
    /// Largest message either way, bytes.
    pub max_message: usize,
    /// Time that the call may take in all, from its arrival.
    pub deadline: Time,
    /// What the call is about, where [`Record::subject`] is to tell it.
    pub subject: Option<Subject>,
}

/// How an attempt ended that brought no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Whether the server may have run the call.
    pub ran: Ran,
    /// What happened.
    pub cause: Cause,
    /// gRPC code where the server gave one.
    pub code: Option<u32>,
    /// Text of the server or of the failure.
    pub text: String,
    /// Whether all that the caller sent is still held, so that the call can be sent again.
    pub replayable: bool,
    /// Whether the caller had ended its request: to a method that is not known otherwise, the call was a unary one.
    pub whole: bool,
    /// Attempts so far, this one included.
    pub tries: u32,
}

/// Whether the server may have run the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ran {
    /// Certainly not.
    No,
    /// Perhaps.
    Maybe,
}

/// What ended an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// No connection.
    Connect,
    /// REFUSED_STREAM, or above the last stream of a GOAWAY.
    Refused,
    /// The copy was not usable any more when the call was about to be written.
    Unusable,
    /// The connection was lost.
    Lost,
    /// The stream was reset.
    Reset,
    /// The server answered with a status that is worth a look (nothing has passed to the caller).
    Status,
}

/// What the engine tells of a finished call, exactly once.
#[derive(Clone, Debug)]
pub struct Record {
    /// `/pkg.Service/Method`.
    pub path: Arc<str>,
    /// gRPC code that the caller saw.
    pub code: u32,
    /// Reason where the proxy itself answered.
    pub reason: Option<super::answer::Reason>,
    /// Attempts made.
    pub tries: u32,
    /// From arrival to end.
    pub took: Duration,
    /// Of that, held.
    pub held: Duration,
    /// Whether a service of the proxy itself answered.
    pub served: bool,
    /// Bytes of the messages that went to the last server tried and came from it, as the two ends sent them; none where
    /// nothing was sent to a server.
    pub bytes: Option<(u64, u64)>,
    /// As the last plan said.
    pub subject: Option<Subject>,
}

/// Says where calls go. One value serves all threads.
pub trait Policy: Send + Sync + 'static {
    /// In-flight guard of one attempt.
    type Lease: 'static;

    /// A call has begun.
    fn head(&self, head: &Head) -> First<Self::Lease>;
    /// The name was looked for in the first message; `None` = absent.
    fn route(&self, head: &Head, name: Option<&[u8]>) -> Decision<Self::Lease>;
    /// Asked when the call is about to be written to the server.
    fn usable(&self, lease: &Self::Lease) -> bool;
    /// An attempt failed: try again, or what the caller is told.
    fn again(&self, head: &Head, name: Option<&[u8]>, lease: Self::Lease, attempt: Attempt) -> Decision<Self::Lease>;
    /// An attempt was answered with this gRPC code after this time, and the caller has it. A status that the policy
    /// was asked about ([`Policy::again`]) is not told again.
    fn answered(&self, lease: &Self::Lease, code: u32, took: Duration);
    /// Cancelled when the attempt must be reset although the server is at it: the drain of its copy is over its time.
    fn revoked(&self, lease: &Self::Lease) -> Option<Arc<CancellationToken>> {
        let _ = lease;
        None
    }
    /// A call that was sent to a server is over there, with this gRPC code: its own, or that of what ended it.
    fn invoked(&self, head: &Head, subject: Option<&Subject>, code: u32, took: Duration) {
        let _ = (head, subject, code, took);
    }
    /// A call is over.
    fn done(&self, record: &Record);
}
