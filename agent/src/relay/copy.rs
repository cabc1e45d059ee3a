//! Copies bytes both ways between two connections.
//!
//! Each direction has a buffer only while bytes are on their way: thousands of idle connections cost next to nothing. What
//! cannot be written is not read further, so that a slow reader slows down its writer and nobody else.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    sync::atomic::{AtomicU64, Ordering},
    task::{Context, Poll, ready},
};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::io::{poll_read_buf, poll_write_buf};

/// Most bytes of one direction on their way through here.
const BUFFER: usize = 64 * 1024;

/// One direction.
struct Flow<'c> {
    buffer: BytesMut,
    state: State,
    count: &'c AtomicU64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// The source has ended; the sink is to hear it.
    Ending,
    Ended,
}

/// Copies until both directions have ended. `counts` are of the bytes from `a` to `b`, and of those back.
///
/// # Errors
///
/// One side broke off, in whatever direction: the other is to be broken off too.
pub(super) async fn both_ways<A, B>(a: &mut A, b: &mut B, counts: [&AtomicU64; 2]) -> io::Result<()>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let [mut there, mut back] = counts.map(Flow::new);
    poll_fn(|cx| {
        // Both are polled at each turn: a direction that is full never keeps the other waiting.
        let there = there.poll(cx, a, b)?;
        let back = back.poll(cx, b, a)?;
        if there.is_ready() && back.is_ready() { Poll::Ready(Ok(())) } else { Poll::Pending }
    })
    .await
}

// === impl Flow ===

impl<'c> Flow<'c> {
    fn new(count: &'c AtomicU64) -> Self {
        Self { buffer: BytesMut::new(), state: State::Open, count }
    }

    fn poll<R, W>(&mut self, cx: &mut Context<'_>, from: &mut R, to: &mut W) -> Poll<io::Result<()>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        loop {
            while !self.buffer.is_empty() {
                match ready!(poll_write_buf(Pin::new(&mut *to), cx, &mut self.buffer))? {
                    0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    written => self.count.fetch_add(written as u64, Ordering::Relaxed),
                };
            }
            match self.state {
                State::Open => {
                    self.buffer.reserve(BUFFER);
                    match poll_read_buf(Pin::new(&mut *from), cx, &mut self.buffer)? {
                        Poll::Ready(0) => self.state = State::Ending,
                        Poll::Ready(_) => {}
                        Poll::Pending => {
                            self.buffer = BytesMut::new();
                            // TLS may keep back what the socket did not take.
                            let _ = Pin::new(&mut *to).poll_flush(cx)?;
                            return Poll::Pending;
                        }
                    }
                }
                State::Ending => {
                    self.buffer = BytesMut::new();
                    ready!(Pin::new(&mut *to).poll_shutdown(cx))?;
                    self.state = State::Ended;
                }
                State::Ended => return Poll::Ready(Ok(())),
            }
        }
    }
}
