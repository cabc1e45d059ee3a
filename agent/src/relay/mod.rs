//! The relay endpoint: a byte copy between proxies and a model server that only its own pod can reach.
//!
//! mTLS ends here where the agent has an identity; what is inside is nobody's business here. Half-closes and resets are kept:
//! who ends one direction ends it on the other side, who breaks off breaks both off. Streams may be of any length and may
//! be idle for any time; connections are bounded, and one whose peer is dead is found by TCP.

mod copy;
mod data;

use std::{
    fmt, io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use modelring_process::tls::{Connection, Incoming, Name};
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, timeout},
};

use self::data::Socket;
pub(crate) use self::data::{Data, endpoints};

/// Connections at once, most. Each of a proxy's threads has a few; an idle one has no buffers.
const CONNECTIONS: usize = 4096;
/// How long a connection to the model server may take.
const CONNECT: Duration = Duration::from_secs(5);
/// Rest of a connection that is refused, so that who dials again at once does not spin.
const REST: Duration = Duration::from_millis(20);

/// What has passed the relay endpoint, counted from the start of the agent.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Bytes from proxies to the model server.
    pub to_server: AtomicU64,
    /// Bytes from the model server to proxies.
    pub to_proxies: AtomicU64,
    /// Connections that were relayed.
    pub opened: AtomicU64,
    /// Those of them that have ended.
    pub closed: AtomicU64,
    /// Connections that were refused: too many, or not of a proxy.
    pub refused: AtomicU64,
    /// Connections for which the model server could not be connected.
    pub unreachable: AtomicU64,
}

/// What every connection needs.
struct Relay {
    data: Data,
    proxy: Name,
    traffic: Arc<Traffic>,
    /// Whether the model server could not be connected the last time.
    down: AtomicBool,
}

/// Relays what comes in from proxies of this name, until it is dropped.
pub(crate) async fn serve(mut incoming: Incoming, data: Data, proxy: Name, traffic: Arc<Traffic>) {
    let relay = Arc::new(Relay { data, proxy, traffic, down: AtomicBool::new(false) });
    let free = Arc::new(Semaphore::new(CONNECTIONS));
    // Dropped with this future, and the connections with it.
    let mut connections = JoinSet::new();
    loop {
        let connection = tokio::select! {
            Some(connection) = incoming.next() => connection,
            Some(_) = connections.join_next() => continue,
            else => return,
        };
        let Ok(permit) = free.clone().try_acquire_owned() else {
            relay.refuse(&connection, "there are too many");
            sleep(REST).await;
            continue;
        };
        let relay = relay.clone();
        connections.spawn(async move {
            relay.connection(connection).await;
            drop(permit);
        });
    }
}

// === impl Relay ===

impl Relay {
    async fn connection(&self, mut proxy: Connection) {
        if !proxy.peer().is(&self.proxy) {
            return self.refuse(&proxy, "its certificate is of no proxy of this namespace");
        }
        keep_alive(&proxy);
        let mut server = match self.connect().await {
            Ok(server) => server,
            Err(error) => {
                self.traffic.unreachable.fetch_add(1, Ordering::Relaxed);
                if !self.down.swap(true, Ordering::Relaxed) {
                    tracing::warn!(data = %self.data, %error, "model server cannot be connected for the relay");
                }
                return reset(&proxy);
            }
        };
        if self.down.swap(false, Ordering::Relaxed) {
            tracing::info!(data = %self.data, "model server can be connected for the relay again");
        }
        let _open = Open::count(&self.traffic);
        let counts = [&self.traffic.to_server, &self.traffic.to_proxies];
        if let Err(error) = copy::both_ways(&mut proxy, &mut server, counts).await {
            tracing::debug!(%error, "a relayed connection was reset");
            reset(&proxy);
            server.reset();
        }
    }

    async fn connect(&self) -> io::Result<Socket> {
        let late = |_| io::Error::new(io::ErrorKind::TimedOut, "no answer in time");
        timeout(CONNECT, self.data.connect()).await.map_err(late)?
    }

    fn refuse(&self, connection: &Connection, why: &str) {
        // The first of them, and then one in a thousand.
        if self.traffic.refused.fetch_add(1, Ordering::Relaxed).is_multiple_of(1000) {
            tracing::warn!(why, "refused a connection to the relay");
        }
        reset(connection);
    }
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relay").field("data", &self.data).finish_non_exhaustive()
    }
}

/// One relayed connection, as long as it lives.
struct Open<'t>(&'t Traffic);

impl<'t> Open<'t> {
    fn count(traffic: &'t Traffic) -> Self {
        traffic.opened.fetch_add(1, Ordering::Relaxed);
        Self(traffic)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.closed.fetch_add(1, Ordering::Relaxed);
    }
}

/// The connection will be reset, not closed, when it is dropped.
fn reset(connection: &Connection) {
    // Fails only for a connection that is lost already.
    let _ = connection.socket().set_zero_linger();
}

/// Finds a dead proxy within about 25 s. What the kernel refuses is not worth a failure.
fn keep_alive(connection: &Connection) {
    let keep_alive =
        TcpKeepalive::new().with_time(Duration::from_secs(10)).with_interval(Duration::from_secs(5)).with_retries(3);
    let _ = SockRef::from(connection.socket()).set_tcp_keepalive(&keep_alive);
}
