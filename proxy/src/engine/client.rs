//! The caller's end of a call, whoever the caller is.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{RecvStream, SendStream, server::SendResponse};
use http::{HeaderMap, Response};

/// The caller went away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gone;

/// The caller's end of a call. Everything is polled, so that one task serves both directions.
pub(super) trait Client {
    /// The next bytes of the request, `None` at its end.
    fn poll_request(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Gone>>>;
    /// So many bytes of the request are on their way: the caller may send as many more.
    fn credit(&mut self, bytes: usize);
    /// Ready once the caller has gone.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()>;
    /// Whether the response has begun.
    fn has_begun(&self) -> bool;
    /// Begins the response.
    fn headers(&mut self, headers: HeaderMap, end: bool) -> Result<(), Gone>;
    /// How many bytes the caller takes now, of those `wanted`; at least one when ready.
    fn poll_room(&mut self, wanted: usize, cx: &mut Context<'_>) -> Poll<Result<usize, Gone>>;
    /// Sends response bytes for which there is room.
    fn data(&mut self, data: Bytes, end: bool) -> Result<(), Gone>;
    /// Ends the response.
    fn trailers(&mut self, trailers: HeaderMap) -> Result<(), Gone>;
    /// Bytes that this end keeps in memory.
    fn cost(&self) -> usize {
        0
    }
}

/// A stream of a client's HTTP/2 connection.
pub(super) struct Wire {
    body: RecvStream,
    respond: SendResponse<Bytes>,
    out: Option<SendStream<Bytes>>,
}

// === impl Wire ===

impl Wire {
    pub(super) fn new(body: RecvStream, respond: SendResponse<Bytes>) -> Self {
        Self { body, respond, out: None }
    }
}

impl Client for Wire {
    fn poll_request(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Gone>>> {
        // The end is told by the flag too: END_STREAM on the last DATA needs no further wake-up.
        if self.body.is_end_stream() {
            return Poll::Ready(None);
        }
        self.body.poll_data(cx).map(|data| data.map(|data| data.map_err(|_| Gone)))
    }

    fn credit(&mut self, bytes: usize) {
        let flow = self.body.flow_control();
        // Fails only for a stream that is over.
        let _ = flow.release_capacity(bytes.min(flow.used_capacity()));
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.out {
            None => self.respond.poll_reset(cx).map(drop),
            Some(out) => out.poll_reset(cx).map(drop),
        }
    }

    fn has_begun(&self) -> bool {
        self.out.is_some()
    }

    fn headers(&mut self, headers: HeaderMap, end: bool) -> Result<(), Gone> {
        let mut response = Response::new(());
        *response.headers_mut() = headers;
        self.out = Some(self.respond.send_response(response, end).map_err(|_| Gone)?);
        Ok(())
    }

    fn poll_room(&mut self, wanted: usize, cx: &mut Context<'_>) -> Poll<Result<usize, Gone>> {
        self.out.as_mut().map_or(Poll::Ready(Err(Gone)), |out| poll_room(out, wanted, cx).map_err(|_| Gone))
    }

    fn data(&mut self, data: Bytes, end: bool) -> Result<(), Gone> {
        self.out.as_mut().ok_or(Gone)?.send_data(data, end).map_err(|_| Gone)
    }

    fn trailers(&mut self, trailers: HeaderMap) -> Result<(), Gone> {
        self.out.as_mut().ok_or(Gone)?.send_trailers(trailers).map_err(|_| Gone)
    }
}

/// How many bytes a stream takes now; at least one when ready.
pub(crate) fn poll_room(
    out: &mut SendStream<Bytes>,
    wanted: usize,
    cx: &mut Context<'_>,
) -> Poll<Result<usize, h2::Error>> {
    loop {
        if out.capacity() > 0 {
            return Poll::Ready(Ok(out.capacity().min(wanted)));
        }
        out.reserve_capacity(wanted);
        match ready!(out.poll_capacity(cx)) {
            Some(Ok(_)) => {}
            Some(Err(error)) => return Poll::Ready(Err(error)),
            None => return Poll::Ready(Err(h2::Reason::CANCEL.into())),
        }
    }
}
