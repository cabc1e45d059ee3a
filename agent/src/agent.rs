//! Starting and stopping an agent.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use modelring_placement::{
    id::InstanceId,
    pod::{Event, Pod, Settings},
    time::Time,
};
use modelring_process::{
    metrics::Collect,
    probes::Health,
    tls::{Incoming, Name, may_listen},
};
use modelring_proto::{
    PROTOCOL,
    v1::{DataEndpoint, Hello, agent_server::AgentServer},
};
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::transport::Server;

use crate::{
    access::Access,
    clock,
    config::{Config, ServerKind},
    core::{Core, Message},
    custom::CustomServer,
    error::Error,
    identity::{Identity, OWN_DIR},
    metrics::{Metrics, Shown},
    mlserver::MlServer,
    relay::{self, Data, Traffic, endpoints},
    server::ModelServer,
    service::AgentService,
    storage::{
        store::{Places, Store},
        watch,
    },
};

/// Shortest time that a drain may be given.
const SHORTEST_DRAIN: Duration = Duration::from_secs(3);
/// Time between two looks at the storage Secret.
const SECRET: Duration = Duration::from_secs(1);
/// Time until a model server that came back broken is tried again.
const BROKEN: Duration = Duration::from_secs(10);
/// How long open calls may take to end.
const CLOSING: Duration = Duration::from_secs(1);
/// Calls that one connection may have open at once. Proxies hold one per cold model, tools may hold more.
const STREAMS: u32 = 16_384;
/// Largest message of a watcher, bytes: touches and hints name each model of the pod.
const LARGEST_MESSAGE: usize = 16 << 20;

/// The agent of a pod.
#[derive(Debug)]
pub struct Agent;

/// A started agent. Dropping it stops it at once.
#[derive(Debug)]
pub struct Running {
    /// Where its gRPC is served.
    pub addr: SocketAddr,
    /// Id of the instance.
    pub instance_id: InstanceId,
    /// Where its relay endpoint is, if it has one.
    pub relay_addr: Option<SocketAddr>,
    traffic: Arc<Traffic>,
    health: Health,
    metrics: Arc<Shown>,
    core: mpsc::Sender<Message>,
    stop: CancellationToken,
    tasks: TaskTracker,
    ended: oneshot::Receiver<Error>,
}

// === impl Agent ===

impl Agent {
    /// Starts an agent: takes the model directory, opens the port, and begins to wait for the model server, which need not
    /// be there yet.
    ///
    /// # Errors
    ///
    /// A setting out of its range, an address that is not loopback, a port that is taken, a model directory that cannot be
    /// used or is used by another agent.
    pub async fn start(config: Config) -> Result<Running, Error> {
        may_listen(config.listen, "--listen", config.tls.as_ref())?;
        let access = Access::of(&config.namespace)?;
        if let Some(relay) = config.relay {
            may_listen(relay, "--relay", config.tls.as_ref())?;
        }
        if config.drain_timeout < SHORTEST_DRAIN {
            let text = format!("{:?} is too short, at least 3s is needed", config.drain_timeout);
            return Err(Error::Setting { key: "agent.drainTimeout", text });
        }
        let identity = Identity::take(&config.model_dir, config.instance.as_deref(), config.pod_uid.as_deref())?;
        let places = Places {
            config_dir: config.storage_config.clone(),
            local_root: config.local_root.clone(),
            disk_limit: config.disk_limit,
        };
        let store = Store::open(&config.model_dir, places).map_err(|source| Error::ModelDir {
            verb: "use",
            path: config.model_dir.clone(),
            source,
        })?;
        let store = Arc::new(store);
        let metrics = Arc::new(Metrics::new());
        let server = model_server(&config, &store, &metrics)?;
        let (listener, addr) = bind(config.listen).await?;
        let relay = match config.relay {
            Some(relay) => Some(bind(relay).await?),
            None => None,
        };
        let relay_addr = relay.as_ref().map(|(_, addr)| *addr);
        let hello = hello(&config, &identity, endpoints(&config, relay_addr)?);

        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        let pod = Pod::new(identity.boot, settings(&config, &identity), clock::now());
        let may_purge_at = pod.may_purge_at();
        let health = Health::not_yet("the handshake with the model server is not done");
        let (core, sender, mailbox) = Core::new(
            pod,
            store.clone(),
            config.model_dir.join(OWN_DIR).join("sizes"),
            hello,
            stop.clone(),
            health.clone(),
            metrics.clone(),
        );
        let instance_id = identity.instance.clone();
        tracing::info!(instance = %instance_id, %addr, runtime = config.runtime, "agent has started");

        tasks.spawn(async move {
            core.run(mailbox).await;
            // The model directory is another's from here on.
            drop(identity);
        });
        if let Some(dir) = config.storage_config {
            tasks.spawn(stop.clone().run_until_cancelled_owned(watch_secret(dir, sender.clone())));
        }
        let traffic = Arc::new(Traffic::default());
        if let Some((listener, _)) = relay {
            let incoming = Incoming::on(listener, config.tls.clone());
            let (data, proxy) = (Data::parse(&config.data)?, Name::proxy(&config.namespace)?);
            let relaying = relay::serve(incoming, data, proxy, traffic.clone());
            tasks.spawn(stop.clone().run_until_cancelled_owned(relaying));
        }
        let serving =
            serve(Incoming::on(listener, config.tls), AgentService::new(sender.clone(), access), stop.clone());
        let attending = attend(server, store, may_purge_at, sender.clone());
        let (end, ended) = oneshot::channel();
        let stopped = stop.clone();
        tasks.spawn(async move {
            let attending = stopped.run_until_cancelled(attending);
            let error = tokio::select! {
                Some(error) = attending => error,
                result = serving => match result {
                    Ok(()) => return,
                    Err(error) => Error::Serve(error.to_string()),
                },
            };
            tracing::error!(code = error.code(), %error, "agent ends");
            let _ = end.send(error);
            stopped.cancel();
        });
        tasks.close();
        let metrics = Arc::new(Shown { metrics, core: sender.clone() });
        Ok(Running { addr, instance_id, relay_addr, traffic, health, metrics, core: sender, stop, tasks, ended })
    }
}

// === impl Running ===

impl Running {
    /// What it tells its probes: ready once the handshake with the model server is done, until it leaves.
    #[must_use]
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// Its metrics.
    #[must_use]
    pub fn metrics(&self) -> Arc<dyn Collect> {
        self.metrics.clone()
    }

    /// What has passed its relay endpoint.
    #[must_use]
    pub fn relay_traffic(&self) -> &Arc<Traffic> {
        &self.traffic
    }

    /// Resolves when the agent ends by itself, with the reason. Never, if it is only stopped.
    pub async fn ended(&mut self) -> Error {
        match (&mut self.ended).await {
            Ok(error) => error,
            Err(_) => std::future::pending().await,
        }
    }

    /// Stops the agent: says that the instance leaves, serves until what it holds is not needed any more or `grace` is
    /// over, and ends. The model server is left as it is.
    pub async fn shutdown(self, grace: Duration) {
        let (done, left) = oneshot::channel();
        let leaving = async {
            if self.core.send(Message::Leave(done)).await.is_ok() {
                let _ = left.await;
            }
        };
        if self.stop.run_until_cancelled(timeout(grace, leaving)).await.is_some_and(|left| left.is_err()) {
            tracing::warn!(grace_seconds = grace.as_secs(), "grace is over, copies that may be needed go");
        }
        self.stop.cancel();
        if timeout(CLOSING * 2, self.tasks.wait()).await.is_err() {
            tracing::warn!("the agent's tasks have not ended");
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn model_server(config: &Config, store: &Arc<Store>, metrics: &Arc<Metrics>) -> Result<Box<dyn ModelServer>, Error> {
    Ok(match &config.server {
        ServerKind::Custom => {
            Box::new(CustomServer::new(&config.management, &config.runtime, store.clone(), metrics.clone())?)
        }
        ServerKind::MlServer(settings) => {
            Box::new(MlServer::new(&config.management, &config.model_dir, settings.clone())?)
        }
    })
}

fn settings(config: &Config, identity: &Identity) -> Settings {
    Settings {
        min_churn_age: config.min_churn_age,
        eviction: config.eviction,
        drain_timeout: config.drain_timeout,
        started_before: identity.started_before,
    }
}

async fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), Error> {
    let cannot = |source| Error::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(cannot)?;
    let addr = listener.local_addr().map_err(cannot)?;
    Ok((listener, addr))
}

fn hello(config: &Config, identity: &Identity, endpoints: Vec<DataEndpoint>) -> Hello {
    Hello {
        protocol: PROTOCOL,
        instance_id: identity.instance.to_string(),
        pod_uid: identity.pod_uid.clone(),
        boot_id: identity.boot,
        namespace: config.namespace.clone(),
        runtime: config.runtime.clone(),
        endpoints,
        ..Hello::default()
    }
}

/// Serves the agent's gRPC until the agent stops, and open calls a moment longer.
async fn serve(
    incoming: Incoming,
    service: AgentService,
    stop: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    let service = AgentServer::new(service).max_decoding_message_size(LARGEST_MESSAGE);
    let serving = Server::builder()
        .max_concurrent_streams(STREAMS)
        .add_service(service)
        .serve_with_incoming_shutdown(incoming, stop.clone().cancelled_owned());
    tokio::select! {
        result = serving => result,
        () = async {
            stop.cancelled().await;
            tokio::time::sleep(CLOSING).await;
        } => Ok(()),
    }
}

/// Stands by the model server: tells the core when a process of it is ready, and when that is gone. Ends only where the
/// first one will never be ready.
async fn attend(
    server: Box<dyn ModelServer>,
    store: Arc<Store>,
    may_purge_at: Time,
    core: mpsc::Sender<Message>,
) -> Error {
    clock::sleep_until(Some(may_purge_at)).await;
    let mut life = 0;
    let mut believed = false;
    loop {
        match server.handshake(believed).await {
            Ok(session) => {
                // The server holds none now, and nothing may be pulled yet.
                if let Err(error) = store.sweep().await {
                    tracing::warn!(error = error.text, "leftovers not removed");
                }
                life += 1;
                let _ = core.send(Message::Up(life, session.clone())).await;
                session.gone().await;
                let _ = core.send(Message::Down(life)).await;
                believed = true;
            }
            Err(error) if life == 0 => return Error::Server(error),
            Err(error) => {
                tracing::error!(error = error.text, "model server is not usable any more");
                tokio::time::sleep(BROKEN).await;
                believed = false;
            }
        }
    }
}

/// Tells the core when the storage Secret has changed.
async fn watch_secret(dir: std::path::PathBuf, core: mpsc::Sender<Message>) {
    let mut last = None;
    loop {
        let dir = dir.clone();
        let look = tokio::task::spawn_blocking(move || watch::look(&dir)).await.ok();
        if let Some(look) = look {
            if last.as_ref().is_some_and(|last| *last != look) {
                tracing::info!("storage config has changed");
                let _ = core.send(Message::Heard(Event::SecretChanged)).await;
            }
            last = Some(look);
        }
        tokio::time::sleep(SECRET).await;
    }
}
