//! A proxy, from its settings to its end.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use modelring_process::{
    http::Routes,
    metrics::Collect,
    probes::{self, Pulse},
};
use tokio::{runtime::Runtime, sync::watch};
use tonic::transport::Endpoint;

use crate::{
    clock::Clock,
    config::Config,
    engine::budget::Budget,
    error::Error,
    fleet::{Fleet, Links, Source},
    metrics::{Metrics, Shown},
    net::{Server, Services, Settings},
    policy::{self, Mesh},
    rest::handler::Rest,
};

/// Threads for all that is not relaying: watching control and agents, searching copies.
const BACKGROUND_THREADS: usize = 2;
/// How long calls may take to finish by default once the proxy is to end.
const GRACE: Duration = Duration::from_secs(30);

/// Starts proxies.
#[derive(Debug)]
pub struct Proxy;

/// A proxy that serves.
pub struct Running {
    /// Where gRPC is served.
    pub grpc_addr: SocketAddr,
    /// Where REST is served.
    pub rest_addr: SocketAddr,
    fleet: Arc<Fleet>,
    metrics: Arc<dyn Collect>,
    server: Server,
    background: Background,
    pulse: Pulse,
}

/// The background threads; ended without waiting wherever it is dropped, an async context included.
struct Background(Option<Runtime>);

// === impl Proxy ===

impl Proxy {
    /// Starts a proxy: its ports are open when this returns; until it is [`Running::ready`] calls are answered `TB`, or wait.
    ///
    /// # Errors
    ///
    /// A port or a thread cannot be had, or a setting is wrong.
    pub fn start(config: Config) -> Result<Running, Error> {
        if Endpoint::from_shared(config.control.clone()).is_err() {
            return Err(Error::Control { address: config.control });
        }
        let background = Background::start()?;
        let clock = Clock::boot();
        let pulse = Pulse::default();
        background.handle().spawn(pulse.heart("background threads").beat_on());
        let settings = Settings { grace: GRACE, ..Settings::from(&config) };
        let links = Links::of(config.tls, &config.namespace)?;
        let fleet = Fleet::dialling(clock.clone(), background.handle(), links, config.limits.per_copy);
        let metrics = Metrics::new(&config.metrics, config.threads);
        let mesh = Mesh::new(fleet.clone(), config.access_log, metrics.clone());
        let budget = Budget::new(config.memory_budget);
        let services = Services {
            local: policy::services(&mesh)?,
            http: Arc::new(Rest::new(Arc::new(mesh.clone())).counting(metrics.clone())),
            policy: Arc::new(mesh),
            budget: budget.clone(),
            clock,
            pulse: pulse.clone(),
        };
        let source = Source { control: config.control, namespace: config.namespace, state_dir: config.state_dir };
        fleet.recall(&source);
        let server = Server::start(&settings, services)?;
        let metrics = Arc::new(Shown { metrics, fleet: fleet.clone(), budget, loads: server.loads().to_vec() });
        fleet.start(source);
        Ok(Running { grpc_addr: server.grpc(), rest_addr: server.rest(), fleet, metrics, server, background, pulse })
    }
}

// === impl Running ===

impl Running {
    /// Whether it takes calls: it has a table, and every listed agent has told its copies or has had 5 s.
    #[must_use]
    pub fn ready(&self) -> bool {
        self.fleet.is_ready()
    }

    /// Tells when it becomes ready.
    #[must_use]
    pub fn watch_ready(&self) -> watch::Receiver<bool> {
        self.fleet.ready()
    }

    /// Answers `/ready` and `/live`.
    #[must_use]
    pub fn probes(&self) -> Routes {
        let fleet = self.fleet.clone();
        let ready = move || if fleet.is_ready() { Ok(()) } else { Err(fleet.why_not_ready()) };
        probes::routes(self.pulse.clone(), ready)
    }

    /// Its metrics.
    #[must_use]
    pub fn metrics(&self) -> Arc<dyn Collect> {
        self.metrics.clone()
    }

    /// What it knows of the mesh.
    #[must_use]
    pub fn fleet(&self) -> &Arc<Fleet> {
        &self.fleet
    }

    /// Accepts for the drain delay, asks clients to leave, lets calls finish within the grace, and ends.
    pub async fn shutdown(self, grace: Duration) {
        self.fleet.set_unready();
        self.server.with_grace(grace).stop().await;
        self.fleet.stop();
        drop(self.background);
    }
}

// === impl Background ===

impl Background {
    fn start() -> Result<Self, Error> {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let built = builder.worker_threads(BACKGROUND_THREADS).thread_name("background").enable_all().build();
        built.map(|runtime| Self(Some(runtime))).map_err(Error::Background)
    }

    fn handle(&self) -> tokio::runtime::Handle {
        self.0.as_ref().expect("the runtime is there until it is dropped").handle().clone()
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
