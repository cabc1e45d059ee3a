//! A whole mesh in the test's own process, with a model server that keeps a journal. The parts talk over loopback, as
//! they do apart.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use modelring_agent::Agent;
use modelring_control::{Control, source::InstanceSpec};
use modelring_placement::pod::EvictionPolicy;
use modelring_proxy::{config::AccessLog, start::Proxy};
use modelring_runtime::Runtime;

use crate::{Folder, Habits, Journal};

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);
const RUNTIME: &str = "modelring-onnx";

/// What a mesh is made with.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Bytes that models may fill.
    pub capacity: u64,
    /// What the model server's loader does.
    pub habits: Habits,
    /// The churn guard.
    pub min_churn_age: Duration,
}

/// A running mesh.
pub struct InProcess {
    /// Where gRPC is served.
    pub grpc: SocketAddr,
    /// Where REST is served.
    pub rest: SocketAddr,
    /// Where the agent is.
    pub agent_addr: SocketAddr,
    /// What happened to the models.
    pub journal: Arc<Journal>,
    runtime: modelring_runtime::Running,
    agent: modelring_agent::Running,
    control: modelring_control::Running,
    proxy: modelring_proxy::start::Running,
}

// === impl InProcess ===

impl InProcess {
    /// Starts a mesh and waits until its proxy is ready.
    ///
    /// # Panics
    /// When a part does not start.
    pub async fn start(folder: &Folder, setup: Setup) -> Self {
        let state = folder.path().join(".modelring");
        let journal = Arc::new(Journal::default());
        let config = modelring_runtime::Config { listen: LOOPBACK, capacity: setup.capacity, ..Default::default() };
        let runtime = Runtime::start_with(config, journal.loader(setup.habits)).await.expect("the model server starts");
        let agent = Agent::start(modelring_agent::Config {
            listen: LOOPBACK,
            instance: None,
            pod_uid: None,
            tls: None,
            namespace: "default".to_owned(),
            runtime: RUNTIME.to_owned(),
            model_dir: state.join("models"),
            storage_config: Some(state.join("storage-config")),
            local_root: Some(folder.path().to_owned()),
            disk_limit: None,
            server: modelring_agent::ServerKind::Custom,
            management: format!("http://{}", runtime.addr),
            data_direct: None,
            relay: None,
            data: runtime.addr.to_string(),
            min_churn_age: Some(setup.min_churn_age),
            eviction: EvictionPolicy::Gdsf,
            drain_timeout: Duration::from_secs(30),
        })
        .await
        .expect("the agent starts");
        let own = InstanceSpec { runtime: RUNTIME.to_owned(), ..InstanceSpec::default() };
        let manifest = Folder::checkout().join("config/runtimes/modelring-onnx.yaml");
        let control = Control::start(modelring_control::config::Config {
            dir: folder.path().to_owned(),
            listen: LOOPBACK,
            tls: None,
            namespace: "default".to_owned(),
            instances: vec![(agent.addr.to_string(), own)],
            built_in_runtimes: vec![std::fs::read_to_string(manifest).expect("it is there")],
            dataplane: Default::default(),
        })
        .await
        .expect("control starts");
        let proxy = Proxy::start(modelring_proxy::config::Config {
            grpc: LOOPBACK,
            rest: LOOPBACK,
            control: format!("http://{}", control.addr()),
            tls: None,
            namespace: "default".to_owned(),
            threads: 2,
            memory_budget: 200 << 20,
            drain_delay: Duration::ZERO,
            access_log: AccessLog::Off,
            metrics: Default::default(),
            state_dir: None,
            limits: Default::default(),
        })
        .expect("the proxy starts");
        let mesh = Self {
            grpc: proxy.grpc_addr,
            rest: proxy.rest_addr,
            agent_addr: agent.addr,
            journal,
            runtime,
            agent,
            control,
            proxy,
        };
        tokio::time::timeout(Duration::from_secs(20), mesh.proxy.watch_ready().wait_for(|ready| *ready))
            .await
            .expect("the proxy is ready within 20 s")
            .expect("the proxy runs");
        mesh
    }

    /// Stops every part.
    pub async fn stop(self) {
        self.proxy.shutdown(Duration::from_secs(10)).await;
        self.control.shutdown().await;
        self.agent.shutdown(Duration::ZERO).await;
        self.runtime.shutdown().await;
    }
}
