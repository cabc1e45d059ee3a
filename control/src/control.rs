//! Control as a whole: its source, its core and its service, started and stopped together.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use modelring_process::{
    metrics::Collect,
    probes::Health,
    tls::{Incoming, may_listen},
};
use modelring_proto::v1::routes_server::RoutesServer;
use tokio::{net::TcpListener, sync::mpsc, task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

use crate::{
    Config, Error,
    core::{Core, Event},
    folder::{FolderSource, StateFolder},
    metrics::Shown,
    routes::{Access, RoutesService},
    source::Source,
};

/// States on their way from the source.
const STATES: usize = 4;
/// Largest message of a proxy: usage of many copies.
const LARGEST_MESSAGE: usize = 64 << 20;
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// Until everything has stopped.
const STOP: Duration = Duration::from_secs(5);

/// The control plane.
#[derive(Debug)]
pub struct Control;

/// A control plane that runs.
#[derive(Debug)]
pub struct Running {
    addr: SocketAddr,
    state: StateFolder,
    health: Health,
    metrics: Arc<Shown>,
    cancel: CancellationToken,
    tasks: JoinSet<Result<(), Error>>,
}

// === impl Control ===

impl Control {
    /// Starts control over the folder of the settings. It serves before it has a table: proxies that dial wait for it.
    pub async fn start(config: Config) -> Result<Running, Error> {
        may_listen(config.listen, "--listen", config.tls.as_ref())?;
        let access = Access::of(&config.namespace)?;
        let source = FolderSource::open(config.dir.clone(), config.namespace.clone())?;
        let state = source.state();
        let (dataplane, follower) = config.dataplane.open()?;
        let (core, events, inbox) = Core::new(config.clone(), dataplane, source.memory())?;
        let health = core.health().clone();
        let listen = |error| Error::Listen { address: config.listen, source: error };
        let listener = TcpListener::bind(config.listen).await.map_err(listen)?;
        let addr = listener.local_addr().map_err(listen)?;
        state.write_address(&addr.to_string())?;

        let cancel = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let (states, read) = mpsc::channel(STATES);
        tasks.spawn(Box::new(source).run(states));
        tasks.spawn(forward(read, events.clone()));
        if let Some(follower) = follower {
            tasks.spawn(follower.follow(events.clone()));
        }
        tasks.spawn(core.run(inbox, cancel.clone()));
        let tls = config.tls.clone();
        let metrics = Arc::new(Shown(events.clone()));
        let service = RoutesServer::new(RoutesService::new(config.namespace, access, events))
            .max_decoding_message_size(LARGEST_MESSAGE)
            .max_encoding_message_size(LARGEST_MESSAGE);
        let stopped = cancel.clone().cancelled_owned();
        tasks.spawn(async move {
            Server::builder()
                .http2_keepalive_interval(Some(KEEP_ALIVE))
                .http2_keepalive_timeout(Some(KEEP_ALIVE))
                .add_service(service)
                .serve_with_incoming_shutdown(Incoming::on(listener, tls), stopped)
                .await
                .map_err(Error::Serve)
        });
        tracing::info!(address = %addr, folder = %config.dir.display(), "control serves");
        Ok(Running { addr, state, health, metrics, cancel, tasks })
    }
}

// === impl Running ===

impl Running {
    /// Where the Routes service is.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// What it tells its probes: ready once a table is published, until it stops.
    #[must_use]
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// Its metrics.
    #[must_use]
    pub fn metrics(&self) -> Arc<dyn Collect> {
        self.metrics.clone()
    }

    /// Waits until control has stopped by itself, which it does only by an error.
    pub async fn failed(&mut self) -> Error {
        match self.tasks.join_next().await {
            Some(Ok(Err(error))) => error,
            Some(Ok(Ok(()))) => Error::Stopped("a task ended"),
            Some(Err(_)) => Error::Stopped("a task has a defect"),
            None => Error::Stopped("all tasks ended"),
        }
    }

    /// Stops control. Proxies go on with their last table.
    pub async fn shutdown(mut self) {
        self.health.ready.end("stopping");
        self.cancel.cancel();
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if timeout(STOP, all).await.is_err() {
            self.tasks.shutdown().await;
        }
        if let Err(error) = self.state.remove_address(&self.addr.to_string()) {
            tracing::warn!(%error, "control's address stays written");
        }
    }
}

/// Hands the states of the source to the core.
async fn forward(mut states: mpsc::Receiver<crate::source::Desired>, events: mpsc::Sender<Event>) -> Result<(), Error> {
    loop {
        let state = tokio::select! {
            state = states.recv() => state,
            () = events.closed() => return Ok(()),
        };
        let Some(state) = state else { return Ok(()) };
        if events.send(Event::Desired(state)).await.is_err() {
            return Ok(());
        }
    }
}
