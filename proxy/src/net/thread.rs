//! One thread: its runtime, its engine, its connections and its end.

use std::{
    future::Future,
    io,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    net::TcpStream,
    sync::{mpsc, oneshot, watch},
    task::LocalSet,
    time::{MissedTickBehavior, interval, timeout, timeout_at},
};
use tokio_util::task::TaskTracker;

use super::{Phase, Services, Settings, http::HttpHandler, http2, pingora, sniff, tcp};
use crate::engine::{Engine, policy::Policy};
use modelring_process::probes::{BEAT, Heart};

/// Connections that may wait for their thread.
const WAITING: usize = 1024;
/// How long a client may leave bytes unread in its kernel.
const UNACKNOWLEDGED: Duration = Duration::from_secs(60);
/// How long the last answers may take to go out.
const FAREWELL: Duration = Duration::from_secs(1);
/// How often unused connections to model servers are looked for.
const SWEEP: Duration = Duration::from_secs(60);

/// A thread of the server.
pub(super) struct Thread {
    ended: oneshot::Receiver<()>,
}

/// Where the acceptor hands connections in.
pub(super) struct Door {
    sockets: mpsc::Sender<std::net::TcpStream>,
    load: Arc<Load>,
}

/// What a thread has to do at this moment.
#[derive(Debug, Default)]
pub(crate) struct Load {
    connections: AtomicUsize,
    streams: AtomicUsize,
}

/// What every connection of a thread needs.
pub(super) struct Context<P: Policy> {
    pub engine: Engine<P>,
    pub http: Arc<dyn HttpHandler>,
    pub settings: Settings,
    pub phase: watch::Receiver<Phase>,
    load: Arc<Load>,
}

/// Counts one as long as it lives.
pub(super) struct Counted(Arc<Load>, fn(&Load) -> &AtomicUsize);

// === impl Thread ===

impl Thread {
    /// Starts a thread with a single-threaded runtime that ends when `work` does.
    pub(super) fn spawn<F: Future<Output = ()>>(
        name: String,
        work: impl FnOnce() -> F + Send + 'static,
    ) -> io::Result<Self> {
        let (ending, ended) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new().name(name).spawn(move || {
            // Dropped last, by a panic too.
            let _ending = ending;
            let local = LocalSet::new();
            local.block_on(&runtime, work());
        })?;
        Ok(Self { ended })
    }

    /// Starts a thread that relays.
    pub(super) fn relay<P: Policy>(
        number: usize,
        settings: &Settings,
        services: Arc<Services<P>>,
        phase: watch::Receiver<Phase>,
    ) -> io::Result<(Door, Self)> {
        let (sockets, arriving) = mpsc::channel(WAITING);
        let load = Arc::new(Load::default());
        let door = Door { sockets, load: load.clone() };
        let settings = settings.clone();
        let heart = services.pulse.heart("relay thread");
        let thread = Self::spawn(format!("relay-{number}"), move || {
            let Services { policy, http, local, budget, clock, pulse: _ } = &*services;
            let engine =
                Engine::new(policy.clone(), local.clone(), budget.clone(), clock.clone(), settings.max_message);
            run(Rc::new(Context { engine, http: http.clone(), settings, phase, load }), arriving, heart)
        })?;
        Ok((door, thread))
    }

    /// Resolves when the thread has ended.
    pub(super) async fn ended(self) {
        // The sender is dropped, never used.
        let _ = self.ended.await;
    }
}

async fn run<P: Policy>(context: Rc<Context<P>>, mut arriving: mpsc::Receiver<std::net::TcpStream>, heart: Heart) {
    let connections = TaskTracker::new();
    let mut phase = context.phase.clone();
    let mut sweep = interval(SWEEP);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut beats = interval(BEAT);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let until = loop {
        tokio::select! {
            changed = phase.wait_for(|phase| *phase != Phase::Open) => break match changed.as_deref() {
                Ok(Phase::Draining(until)) => Some(*until),
                // The server was dropped.
                Ok(Phase::Open) | Err(_) => None,
            },
            _ = beats.tick() => heart.beat(),
            _ = sweep.tick() => context.engine.sweep(),
            Some(socket) = arriving.recv() => {
                connections.spawn_local(connection(socket, context.clone()));
            }
        }
    };
    heart.rest();
    connections.close();
    if let Some(until) = until
        && timeout_at(until, connections.wait()).await.is_err()
    {
        tracing::warn!(connections = connections.len(), "the grace is over: calls that are still on are ended");
        context.engine.end();
        if timeout(FAREWELL, connections.wait()).await.is_err() {
            tracing::warn!(connections = connections.len(), "cutting off what is left");
        }
    }
}

async fn connection<P: Policy>(socket: std::net::TcpStream, context: Rc<Context<P>>) {
    let _counted = context.count(|load| &load.connections);
    let socket = match TcpStream::from_std(socket) {
        Ok(socket) => socket,
        Err(error) => return tracing::debug!(%error, "a connection was lost before it began"),
    };
    tcp::keep_alive(&socket, UNACKNOWLEDGED);
    let peer = socket.peer_addr().ok().map(|address| address.ip());
    match sniff::sniff(socket).await {
        Some(sniff::Sniffed::Http2(io)) => http2::serve(io, peer, context).await,
        Some(sniff::Sniffed::Http1(socket, read)) => pingora::serve(socket, &read, peer, context).await,
        None => {}
    }
}

// === impl Context ===

impl<P: Policy> Context<P> {
    /// Counts a stream.
    pub(super) fn count_stream(&self) -> Counted {
        self.count(|load| &load.streams)
    }

    /// Resolves once the server finishes what it has.
    pub(super) async fn draining(&self) {
        // An error says that the server was dropped.
        let _ = self.phase.clone().wait_for(|phase| *phase != Phase::Open).await;
    }

    /// Whether the server finishes what it has.
    pub(super) fn is_draining(&self) -> bool {
        *self.phase.borrow() != Phase::Open
    }

    fn count(&self, which: fn(&Load) -> &AtomicUsize) -> Counted {
        which(&self.load).fetch_add(1, Ordering::Relaxed);
        Counted(self.load.clone(), which)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.1(&self.0).fetch_sub(1, Ordering::Relaxed);
    }
}

// === impl Load ===

impl Load {
    /// Connections of callers.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Calls in flight.
    pub(crate) fn streams(&self) -> usize {
        self.streams.load(Ordering::Relaxed)
    }
}

// === impl Door ===

impl Door {
    pub(super) fn load(&self) -> &Arc<Load> {
        &self.load
    }

    pub(super) fn connections(&self) -> usize {
        self.load.connections()
    }

    pub(super) fn streams(&self) -> usize {
        self.load.streams()
    }

    /// False if the thread does not keep up.
    pub(super) fn hand_in(&self, socket: std::net::TcpStream) -> bool {
        self.sockets.try_send(socket).is_ok()
    }
}
