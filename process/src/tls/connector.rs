//! Dialling another process.

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll},
};

use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, TlsStream};
use tower::Service;

use super::{Connection, Identity, Name};

/// Dials processes of one name, for `tonic`'s `connect_with_connector` among others: mTLS with an identity, else
/// plaintext. The address says where the other one is, its certificate says who it is.
#[derive(Clone, Debug)]
pub struct Connector {
    identity: Option<Identity>,
    name: Name,
}

// === impl Connector ===

impl Connector {
    /// A connector to processes called `name`.
    #[must_use]
    pub fn new(identity: Option<Identity>, name: Name) -> Self {
        Self { identity, name }
    }

    /// A connector that speaks plaintext, to whoever is there.
    #[must_use]
    pub fn plaintext() -> Self {
        Self::new(None, Name::control())
    }

    /// Makes a connection of a socket: the handshake, where there is an identity. Waits as long as the other one does.
    ///
    /// # Errors
    ///
    /// The handshake failed, or the other one has no certificate of that name.
    pub async fn over(&self, socket: TcpStream) -> io::Result<Connection> {
        let Some(identity) = &self.identity else { return Ok(Connection::Plain(socket)) };
        let shaken = TlsConnector::from(identity.client()).connect(self.name.server_name(), socket).await?;
        Ok(Connection::Tls(Box::new(TlsStream::from(shaken))))
    }

    async fn dial(self, uri: Uri) -> io::Result<TokioIo<Connection>> {
        let wrong = || io::Error::new(io::ErrorKind::InvalidInput, format!("`{uri}` is no address with a port"));
        let authority = uri.authority().ok_or_else(wrong)?;
        let port = authority.port_u16().ok_or_else(wrong)?;
        let host = authority.host().trim_matches(['[', ']']);
        let socket = TcpStream::connect((host, port)).await?;
        // What the kernel refuses is not worth a failure.
        let _ = socket.set_nodelay(true);
        self.over(socket).await.map(TokioIo::new)
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Connection>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().dial(uri))
    }
}
