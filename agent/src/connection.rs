//! One connection to a model server, which lives as long as the server's process and is never replaced behind anyone's
//! back: its end is how the agent learns that everything in the server's memory is gone.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
    pin::Pin,
    str::FromStr,
    task::{Context, Poll},
    time::Duration,
};

use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
};
use tokio_util::{
    either::Either,
    sync::{CancellationToken, DropGuard},
};
use tonic::transport::{Channel, Endpoint, Uri};

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(2);

/// Where a model server is managed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    /// `host:port`.
    Tcp(String),
    /// A socket in the file system.
    Unix(PathBuf),
}

/// The agent's eye on a connection.
#[derive(Debug)]
pub(crate) struct Held {
    /// The same socket once more, to look at it without reading from it.
    socket: OwnedFd,
    ended: CancellationToken,
}

/// A socket that tells when it is closed from this side, whatever the reason.
struct Socket {
    io: Either<TcpStream, UnixStream>,
    _ended: DropGuard,
}

// === impl Address ===

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let invalid = || format!("invalid endpoint '{text}': expected http://host:port, port:<number> or unix:<path>");
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.is_empty() { Err(invalid()) } else { Ok(Self::Unix(path.into())) };
        }
        if let Some(port) = text.strip_prefix("port:") {
            let port: u16 = port.parse().map_err(|_| invalid())?;
            return Ok(Self::Tcp(format!("localhost:{port}")));
        }
        let authority = text.strip_prefix("http://").ok_or_else(invalid)?.trim_end_matches('/');
        let authority: http::uri::Authority = authority.parse().map_err(|_| invalid())?;
        if authority.port_u16().is_none() || authority.as_str().contains('@') {
            return Err(invalid());
        }
        Ok(Self::Tcp(authority.to_string()))
    }
}

/// Connects. The channel uses this one connection, and fails once it has ended.
pub(crate) async fn connect(address: &Address) -> Result<(Channel, Held), String> {
    let absent = |error: io::Error| format!("cannot connect: {error}");
    let opening = async {
        Ok(match address {
            Address::Tcp(authority) => {
                let stream = TcpStream::connect(authority).await?;
                stream.set_nodelay(true)?;
                (stream.as_fd().try_clone_to_owned()?, Either::Left(stream))
            }
            Address::Unix(path) => {
                let stream = UnixStream::connect(path).await?;
                (stream.as_fd().try_clone_to_owned()?, Either::Right(stream))
            }
        })
    };
    let (socket, io) = tokio::time::timeout(CONNECT, opening)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        .map_err(absent)?;
    let ended = CancellationToken::new();
    let only = Mutex::new(Some(TokioIo::new(Socket { io, _ended: ended.clone().drop_guard() })));
    let connector = tower::service_fn(move |_: Uri| {
        let socket =
            only.lock().take().ok_or_else(|| io::Error::new(io::ErrorKind::NotConnected, "the model server is gone"));
        std::future::ready(socket)
    });
    let authority = match address {
        Address::Tcp(authority) => authority,
        Address::Unix(_) => "localhost",
    };
    let endpoint = Endpoint::from_shared(format!("http://{authority}")).map_err(|error| error.to_string())?;
    let channel = endpoint.connect_with_connector(connector).await.map_err(|error| format!("no HTTP/2: {error}"))?;
    Ok((channel, Held { socket, ended }))
}

// === impl Held ===

impl Held {
    /// Whether both ends are still open, as the kernel knows it at this moment.
    pub(crate) fn is_open(&self) -> bool {
        if self.ended.is_cancelled() {
            return false;
        }
        let mut sockets = [PollFd::new(&self.socket, PollFlags::RDHUP)];
        match poll(&mut sockets, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) {
            Ok(_) => {
                !sockets[0].revents().intersects(PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL)
            }
            Err(error) => error == rustix::io::Errno::INTR,
        }
    }

    /// Resolves when the connection has ended.
    pub(crate) async fn ended(&self) {
        self.ended.cancelled().await;
    }
}

// === impl Socket ===

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_forms_of_an_endpoint_are_read_and_others_refused() {
        for (text, expected) in [
            ("http://127.0.0.1:8085", Address::Tcp("127.0.0.1:8085".to_owned())),
            ("http://[::1]:8085/", Address::Tcp("[::1]:8085".to_owned())),
            ("port:8085", Address::Tcp("localhost:8085".to_owned())),
            ("unix:/tmp/s", Address::Unix("/tmp/s".into())),
            ("unix:///tmp/s", Address::Unix("/tmp/s".into())),
        ] {
            assert_eq!(text.parse::<Address>().unwrap(), expected);
        }
        for text in [
            "",
            "8085",
            "port:",
            "port:x",
            "port:70000",
            "unix:",
            "http://",
            "http://host",
            "https://host:1",
            "http://u@host:1",
            "host:1",
        ] {
            assert!(text.parse::<Address>().unwrap_err().contains("invalid endpoint"), "{text}");
        }
    }
}
