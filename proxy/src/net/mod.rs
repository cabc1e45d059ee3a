//! Sockets, threads and the two HTTP versions.
//!
//! One acceptor owns the listeners and hands each connection to the thread with the fewest streams. A thread runs a
//! single-threaded runtime; a connection never leaves it. Each port takes HTTP/1.1 and HTTP/2, gRPC and REST: the first
//! bytes and the content type decide.
//!
//! | module | does |
//! |---|---|
//! | `listen` | binds the ports, accepts |
//! | `thread` | one thread: its engine, its connections, its end |
//! | `sniff` | tells HTTP/2 from HTTP/1.1 |
//! | `http2`, `pingora` | the two versions |
//! | `calm` | a budget for calls that are begun and given up |
//! | [`http`] | the boundary to REST |

mod calm;
pub mod http;
mod http2;
mod listen;
mod pingora;
mod sniff;
pub(crate) mod tcp;
mod thread;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use modelring_process::probes::Pulse;
use tokio::{sync::watch, time::Instant};
use tonic::service::Routes;

use self::http::HttpHandler;
pub(crate) use self::thread::Load;
use crate::{
    clock::Clock,
    config::{Config, Limits},
    engine::{budget::Budget, policy::Policy},
};

/// How the server listens and ends.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where gRPC is expected; port 0 = a free one.
    pub grpc: SocketAddr,
    /// Where REST is expected; port 0 = a free one.
    pub rest: SocketAddr,
    /// Threads that relay, at least 1.
    pub threads: usize,
    /// Largest message that a compressed one may become, bytes; default 16 MiB.
    pub max_message: usize,
    /// What callers may not exceed.
    pub limits: Limits,
    /// How long connections are accepted after the end was asked for; default 10 s.
    pub drain_delay: Duration,
    /// How long calls may take to finish after that; default 30 s.
    pub grace: Duration,
}

/// What the server serves.
pub struct Services<P> {
    /// Says where gRPC calls go.
    pub policy: Arc<P>,
    /// Answers what is not gRPC.
    pub http: Arc<dyn HttpHandler>,
    /// Answers the gRPC calls that the policy says to serve here.
    pub local: Routes,
    /// The budget for held bytes.
    pub budget: Arc<Budget>,
    /// The clock.
    pub clock: Clock,
    /// Shows whether the threads turn.
    pub pulse: Pulse,
}

/// Why the server does not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A port is taken or not allowed.
    #[error("cannot listen on {address} for {what}: {source}: {remedy}", remedy = listen::remedy(source, what))]
    Listen {
        /// The address that was asked for.
        address: SocketAddr,
        /// `gRPC` or `REST`.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// No thread, or no runtime for it.
    #[error("cannot start a relay thread: {0}")]
    Thread(#[from] io::Error),
}

/// A running server. Dropped without [`Server::stop`] it ends at once.
pub struct Server {
    grpc: SocketAddr,
    rest: SocketAddr,
    phase: watch::Sender<Phase>,
    threads: Vec<thread::Thread>,
    loads: Vec<Arc<Load>>,
    drain_delay: Duration,
    grace: Duration,
}

/// Where the server is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Accepts.
    Open,
    /// Finishes what it has, until then.
    Draining(Instant),
}

// === impl Settings ===

impl Settings {
    /// The defaults, on free ports of the loopback interface.
    #[must_use]
    pub fn loopback() -> Self {
        let free = SocketAddr::from(([127, 0, 0, 1], 0));
        Self {
            grpc: free,
            rest: free,
            threads: 1,
            max_message: 16 * 1024 * 1024,
            limits: Limits::default(),
            drain_delay: Duration::from_secs(10),
            grace: Duration::from_secs(30),
        }
    }
}

impl From<&Config> for Settings {
    fn from(config: &Config) -> Self {
        let Config { grpc, rest, threads, drain_delay, limits, .. } = *config;
        Self { grpc, rest, threads, drain_delay, limits, ..Self::loopback() }
    }
}

// === impl Server ===

impl Server {
    /// Binds both ports and starts the threads. It serves when this returns.
    ///
    /// # Errors
    ///
    /// [`Error::Listen`] if a port cannot be had, [`Error::Thread`] if a thread cannot.
    pub fn start<P: Policy>(settings: &Settings, services: Services<P>) -> Result<Self, Error> {
        let listeners = [listen::bind(settings.grpc, "gRPC")?, listen::bind(settings.rest, "REST")?];
        let (grpc, rest) = (listeners[0].local_addr()?, listeners[1].local_addr()?);
        let (phase, watching) = watch::channel(Phase::Open);
        let services = Arc::new(services);
        let relays = (0..settings.threads.max(1))
            .map(|number| thread::Thread::relay(number, settings, services.clone(), watching.clone()))
            .collect::<io::Result<Vec<_>>>()?;
        let (doors, mut threads): (Vec<_>, Vec<_>) = relays.into_iter().unzip();
        let loads = doors.iter().map(|door| door.load().clone()).collect();
        threads.push(listen::start(listeners, doors, watching, services.pulse.heart("accept thread"))?);
        tracing::info!(%grpc, %rest, threads = threads.len() - 1, "listening");
        Ok(Self { grpc, rest, phase, threads, loads, drain_delay: settings.drain_delay, grace: settings.grace })
    }

    /// Where gRPC is served.
    #[must_use]
    pub fn grpc(&self) -> SocketAddr {
        self.grpc
    }

    /// Where REST is served.
    #[must_use]
    pub fn rest(&self) -> SocketAddr {
        self.rest
    }

    /// What each thread has to do.
    pub(crate) fn loads(&self) -> &[Arc<Load>] {
        &self.loads
    }

    /// How long calls may take to finish at the end, in place of [`Settings::grace`].
    #[must_use]
    pub fn with_grace(self, grace: Duration) -> Self {
        Self { grace, ..self }
    }

    /// Accepts for the drain delay, then asks clients to leave and lets calls finish within the grace; what is left then
    /// is cut off.
    pub async fn stop(self) {
        tokio::time::sleep(self.drain_delay).await;
        let until = Instant::now() + self.grace;
        // Fails only if every thread has ended.
        let _ = self.phase.send(Phase::Draining(until));
        for thread in self.threads {
            thread.ended().await;
        }
    }
}
