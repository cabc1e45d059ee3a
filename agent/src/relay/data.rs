//! Where the model server serves inference, and where proxies are told to go for it.

use std::{
    fmt, io,
    net::SocketAddr,
    path::PathBuf,
    pin::Pin,
    task::{Context, Poll},
};

use modelring_proto::v1::{DataEndpoint, data_endpoint::Kind};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
};

use crate::{config::Config, error::Error};

/// Where the model server serves, as seen from its pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Data {
    /// `host:port`.
    Tcp(String),
    /// `unix:/path`.
    Unix(PathBuf),
}

/// A connection to it.
pub(super) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// What `Hello` offers to proxies, best first. A server that only its own pod reaches is offered by the relay alone; one on
/// the loopback of a machine that proxies are on too, and without a relay, directly.
///
/// # Errors
///
/// Proxies could not reach the server.
pub(crate) fn endpoints(config: &Config, relay: Option<SocketAddr>) -> Result<Vec<DataEndpoint>, Error> {
    let data = Data::parse(&config.data)?;
    let direct = match (config.data_direct.as_deref(), &data) {
        (Some("none"), _) | (None, Data::Unix(_)) => None,
        (Some(address), _) => Some(address.to_owned()),
        (None, Data::Tcp(_)) if data.is_loopback() && relay.is_some() => None,
        (None, Data::Tcp(_)) if data.is_loopback() && !config.listen.ip().to_canonical().is_loopback() => None,
        (None, Data::Tcp(address)) => Some(address.clone()),
    };
    let offer = |kind: Kind, address| DataEndpoint { kind: kind.into(), address };
    let direct = direct.map(|address| offer(Kind::Direct, address));
    let relay = relay.map(|address| offer(Kind::Relay, address.to_string()));
    let endpoints: Vec<_> = direct.into_iter().chain(relay).collect();
    if endpoints.is_empty() {
        let text = format!(
            "proxies cannot reach the model server at {data}: give --relay ADDRESS to have its bytes relayed, or --data-direct \
             ADDRESS where they reach it"
        );
        return Err(Error::Setting { key: "--data", text });
    }
    Ok(endpoints)
}

// === impl Data ===

impl Data {
    /// Reads `host:port` or `unix:/path`.
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let wrong = || Error::Setting { key: "--data", text: format!("`{text}` is neither HOST:PORT nor unix:/PATH") };
        if let Some(path) = text.strip_prefix("unix:") {
            let path = PathBuf::from(path.strip_prefix("//").unwrap_or(path));
            return if path.is_absolute() { Ok(Self::Unix(path)) } else { Err(wrong()) };
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        if host.is_empty() || port.parse::<u16>().is_err() {
            return Err(wrong());
        }
        Ok(Self::Tcp(text.to_owned()))
    }

    fn is_loopback(&self) -> bool {
        let Self::Tcp(address) = self else { return true };
        let ip = address.parse::<SocketAddr>().map(|address| address.ip().to_canonical());
        ip.is_ok_and(|ip| ip.is_loopback()) || address.starts_with("localhost:")
    }

    pub(super) async fn connect(&self) -> io::Result<Socket> {
        match self {
            Self::Tcp(address) => {
                let socket = TcpStream::connect(address).await?;
                // What the kernel refuses is not worth a failure.
                let _ = socket.set_nodelay(true);
                Ok(Socket::Tcp(socket))
            }
            Self::Unix(path) => UnixStream::connect(path).await.map(Socket::Unix),
        }
    }
}

impl fmt::Display for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => f.write_str(address),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

// === impl Socket ===

impl Socket {
    /// The connection will be reset, not closed, when it is dropped. A unix socket knows no reset: it is closed.
    pub(super) fn reset(&self) {
        if let Self::Tcp(socket) = self {
            // Fails only for a connection that is lost already.
            let _ = socket.set_zero_linger();
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_read(cx, buffer),
            Self::Unix(socket) => Pin::new(socket).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_write(cx, bytes),
            Self::Unix(socket) => Pin::new(socket).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_flush(cx),
            Self::Unix(socket) => Pin::new(socket).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Unix(socket) => Pin::new(socket).poll_shutdown(cx),
        }
    }
}
