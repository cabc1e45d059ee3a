//! Tells HTTP/2 from HTTP/1.1 by the first bytes of a connection.
//!
//! They are read, not peeked at, and the first byte that differs from HTTP/2's preface decides: a request shorter than
//! the preface is not waited for.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, Bytes};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::timeout,
};

const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How long a client may take to say the first bytes.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a connection speaks.
pub(super) enum Sniffed {
    /// HTTP/2; the preface is read again.
    Http2(Reread),
    /// HTTP/1.1, and the bytes that were read.
    Http1(TcpStream, Vec<u8>),
}

/// A socket with bytes put back in front.
pub(super) struct Reread {
    front: Bytes,
    socket: TcpStream,
}

/// `None` if the client says nothing, or breaks off.
pub(super) async fn sniff(mut socket: TcpStream) -> Option<Sniffed> {
    let mut read = [0; PREFACE.len()];
    let mut length = 0;
    let http2 = timeout(PATIENCE, async {
        while length < read.len() {
            match socket.read(&mut read[length..]).await {
                Ok(0) | Err(_) => return None,
                Ok(more) => length += more,
            }
            if !PREFACE.starts_with(&read[..length]) {
                return Some(false);
            }
        }
        Some(true)
    });
    match http2.await.ok()?? {
        true => Some(Sniffed::Http2(Reread { front: Bytes::from_static(PREFACE), socket })),
        false => Some(Sniffed::Http1(socket, read[..length].to_vec())),
    }
}

// === impl Reread ===

impl AsyncRead for Reread {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.front.is_empty() {
            return Pin::new(&mut this.socket).poll_read(cx, buffer);
        }
        let step = this.front.len().min(buffer.remaining());
        buffer.put_slice(&this.front[..step]);
        this.front.advance(step);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Reread {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().socket).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().socket).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_shutdown(cx)
    }
}
