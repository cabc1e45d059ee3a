//! Calls that begin in the process itself: REST becomes a unary gRPC call and goes the same way as any other, through
//! the same policy, hold, retry and connections.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::{BufMut, Bytes, BytesMut};
use http::HeaderMap;
use modelring_placement::time::Time;

use super::{
    answer::{Answer, Reason},
    budget::{Budget, Held},
    client::{Client, Gone},
    headers,
    policy::Head,
    tail::PREFIX,
};

/// A future that stays on its thread.
pub type Local<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// A unary call from inside.
#[derive(Debug)]
pub struct Call {
    /// Path, headers and deadline, as a caller on the wire would give them.
    pub head: Head,
    /// The model's name; asked for by a path in the message, it counts as found there. `None` = only headers name it.
    pub name: Option<Bytes>,
    /// The encoded request message, without gRPC's prefix.
    pub message: Bytes,
}

/// What a call brought.
#[derive(Debug)]
pub struct CallAnswer {
    /// The encoded response message, without gRPC's prefix.
    pub message: Bytes,
    /// Response headers: the server's, and those of the plan.
    pub headers: HeaderMap,
    /// Trailers.
    pub trailers: HeaderMap,
    /// Keeps the message in the budget.
    pub held: Held,
}

/// Makes calls from inside; one per thread.
pub trait Caller {
    /// Makes a call; dropping the future cancels it.
    ///
    /// # Errors
    ///
    /// The answer that the caller gets instead of a message: the proxy's own (with a reason) or the model server's
    /// status (without).
    fn call(&self, call: Call) -> Local<'_, Result<CallAnswer, Answer>>;

    /// The time.
    fn now(&self) -> Time;

    /// The budget for held bytes.
    fn budget(&self) -> &Arc<Budget>;
}

// === impl CallAnswer ===

impl CallAnswer {
    /// The concrete id of the model that answered.
    #[must_use]
    pub fn model_id(&self) -> Option<&str> {
        self.headers.get("mm-model-id").and_then(|id| id.to_str().ok())
    }
}

/// The caller's end of a call from inside.
pub(super) struct Inside {
    request: std::collections::VecDeque<Bytes>,
    headers: Option<HeaderMap>,
    trailers: HeaderMap,
    response: BytesMut,
    ended: bool,
}

// === impl Inside ===

impl Inside {
    pub(super) fn new(message: Bytes) -> Result<Self, Answer> {
        let too_large = |_| Answer::new(Reason::TL, "the message is larger than 4 GiB");
        let length = u32::try_from(message.len()).map_err(too_large)?;
        let mut prefix = BytesMut::with_capacity(PREFIX);
        prefix.put_u8(0);
        prefix.put_u32(length);
        let request = [prefix.freeze(), message].into_iter().filter(|piece| !piece.is_empty()).collect();
        Ok(Self { request, headers: None, trailers: HeaderMap::new(), response: BytesMut::new(), ended: false })
    }

    /// What came of it.
    pub(super) fn into_answer(self, mut held: Held) -> Result<CallAnswer, Answer> {
        let broken = || Answer::new(Reason::IN, "the call ended without an answer");
        let headers = self.headers.filter(|_| self.ended).ok_or_else(broken)?;
        let last = if self.trailers.is_empty() { &headers } else { &self.trailers };
        match headers::code(last) {
            Some(0) => {}
            Some(code) => return Err(headers::read_answer(code, last)),
            None => return Err(Answer::status(2, "the model server sent no status")),
        }
        let mut message = self.response.freeze();
        if message.len() < PREFIX {
            return Err(Answer::status(13, "the model server sent no message"));
        }
        let prefix = message.split_to(PREFIX);
        let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
        if prefix[0] != 0 || length != message.len() {
            return Err(Answer::status(13, "the model server sent something else than one plain message"));
        }
        held.resize(message.len())?;
        Ok(CallAnswer { message, headers, trailers: self.trailers, held })
    }
}

impl Client for Inside {
    fn poll_request(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, Gone>>> {
        Poll::Ready(self.request.pop_front().map(Ok))
    }

    fn credit(&mut self, _: usize) {}

    fn poll_gone(&mut self, _: &mut Context<'_>) -> Poll<()> {
        // A caller inside goes away by dropping the future.
        Poll::Pending
    }

    fn has_begun(&self) -> bool {
        self.headers.is_some()
    }

    fn headers(&mut self, headers: HeaderMap, end: bool) -> Result<(), Gone> {
        self.headers = Some(headers);
        self.ended = end;
        Ok(())
    }

    fn poll_room(&mut self, wanted: usize, _: &mut Context<'_>) -> Poll<Result<usize, Gone>> {
        Poll::Ready(Ok(wanted))
    }

    fn data(&mut self, data: Bytes, end: bool) -> Result<(), Gone> {
        self.response.extend_from_slice(&data);
        self.ended |= end;
        Ok(())
    }

    fn trailers(&mut self, trailers: HeaderMap) -> Result<(), Gone> {
        self.trailers = trailers;
        self.ended = true;
        Ok(())
    }

    fn cost(&self) -> usize {
        self.request.iter().map(Bytes::len).sum::<usize>() + self.response.capacity()
    }
}
