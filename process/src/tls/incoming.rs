//! The connections that come in on an internal port.
//!
//! Handshakes run beside each other, each within its time: one that is slow or silent holds up nobody. Who does not prove
//! a certificate of our CA never becomes a connection.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, TlsStream};
use tokio_stream::Stream;

use super::{Connection, Identity};

/// Handshakes at once, most; further callers wait in the kernel.
const HANDSHAKES: usize = 256;
/// How long a handshake may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Connections that may wait to be taken.
const WAITING: usize = 16;
/// Rest after a failed accept: mostly there are no file descriptors left.
const REST: Duration = Duration::from_millis(50);
/// Least time between two warnings of failed handshakes.
const WARN: Duration = Duration::from_secs(10);

/// Connections whose handshake is done. Dropped, the port is closed.
#[derive(Debug)]
pub struct Incoming(mpsc::Receiver<Connection>);

// === impl Incoming ===

impl Incoming {
    /// Accepts on `listener`: mTLS with an identity, else plaintext.
    #[must_use]
    pub fn on(listener: TcpListener, identity: Option<Identity>) -> Self {
        let (connections, incoming) = mpsc::channel(WAITING);
        tokio::spawn(async move {
            tokio::select! {
                () = accept(listener, identity, connections.clone()) => {}
                () = connections.closed() => {}
            }
        });
        Self(incoming)
    }

    /// The next connection; `None` never comes while this value lives and its runtime runs.
    pub async fn next(&mut self) -> Option<Connection> {
        self.0.recv().await
    }
}

impl Stream for Incoming {
    type Item = io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(cx).map(|connection| connection.map(Ok))
    }
}

async fn accept(listener: TcpListener, identity: Option<Identity>, connections: mpsc::Sender<Connection>) {
    let free = Arc::new(Semaphore::new(HANDSHAKES));
    // Dropped with this task, and the handshakes with it.
    let mut handshakes = JoinSet::new();
    let mut warned: Option<Instant> = None;
    loop {
        let permit = free.clone().acquire_owned().await.expect("the semaphore is never closed");
        let socket = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) => socket,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(REST).await;
                    continue;
                }
            },
            Some(ended) = handshakes.join_next() => {
                if let Ok(Some(error)) = ended && warned.is_none_or(|last| last.elapsed() >= WARN) {
                    let error: io::Error = error;
                    tracing::warn!(%error, "refused a connection: its mTLS handshake failed");
                    warned = Some(Instant::now());
                }
                continue;
            }
        };
        // What the kernel refuses is not worth a failure.
        let _ = socket.set_nodelay(true);
        match &identity {
            None => {
                if connections.send(Connection::Plain(socket)).await.is_err() {
                    return;
                }
            }
            Some(identity) => {
                let (identity, connections) = (identity.clone(), connections.clone());
                handshakes.spawn(async move {
                    let shaken = handshake(socket, &identity).await;
                    drop(permit);
                    match shaken {
                        Ok(tls) => {
                            // Who would take it may be gone.
                            let _ = connections.send(Connection::Tls(Box::new(tls))).await;
                            None
                        }
                        Err(error) => Some(error),
                    }
                });
            }
        }
    }
}

async fn handshake(socket: TcpStream, identity: &Identity) -> io::Result<TlsStream<TcpStream>> {
    let peer = socket.peer_addr()?;
    let from = |error: io::Error| io::Error::new(error.kind(), format!("{peer}: {error}"));
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, format!("{peer}: not done within {PATIENCE:?}"));
    let shaken = timeout(PATIENCE, TlsAcceptor::from(identity.server()).accept(socket)).await.map_err(late)?;
    Ok(TlsStream::from(shaken.map_err(from)?))
}
