//! A whole proxy among a scripted control, agents that say model `m` is ready, and the servers of a test.

use std::{net::SocketAddr, time::Duration};

use modelring_proto::{
    inference::{ModelInferRequest, grpc_inference_service_client::GrpcInferenceServiceClient},
    v1::{self, routes_update::Kind},
};
use modelring_proxy::{
    config::{AccessLog, Config},
    start::{Proxy, Running},
};
use tonic::transport::Channel;

use crate::{
    scripted::{ScriptedAgent, ScriptedControl, endpoint, soon, until},
    world::{change, update},
};

pub(crate) type Client = GrpcInferenceServiceClient<Channel>;

const IDS: [&str; 4] = ["a", "b", "c", "d"];

/// What runs.
pub(crate) struct Rig {
    pub(crate) agents: Vec<ScriptedAgent>,
    pub(crate) proxy: Running,
    _control: ScriptedControl,
}

// === impl Rig ===

impl Rig {
    /// An agent for each server, all with `m` ready, and a proxy that sees them all.
    pub(crate) async fn start(servers: &[SocketAddr]) -> Self {
        Self::with(servers, 64 << 20, |_| {}, |_| {}).await
    }

    /// The same with a memory budget, changed hellos and a changed table.
    pub(crate) async fn with(
        servers: &[SocketAddr],
        memory_budget: u64,
        hello: impl Fn(&mut v1::Hello),
        table: impl FnOnce(&mut v1::TableChange),
    ) -> Self {
        let mut agents = Vec::new();
        for (id, server) in IDS.into_iter().zip(servers) {
            let agent = ScriptedAgent::start(id).await;
            agent.introduce(|said| {
                said.endpoints = vec![endpoint(&server.to_string())];
                hello(said);
            });
            agent.ready("m");
            agents.push(agent);
        }
        let mut tables = change(&agents.iter().collect::<Vec<_>>());
        table(&mut tables);
        let control = ScriptedControl::start(vec![update(1, 1, Kind::SnapshotEnd, tables)]).await;
        let free = ([127, 0, 0, 1], 0).into();
        let proxy = Proxy::start(Config {
            grpc: free,
            rest: free,
            control: control.address.clone(),
            tls: None,
            namespace: "ns".into(),
            threads: 1,
            memory_budget,
            drain_delay: Duration::ZERO,
            access_log: AccessLog::Off,
            state_dir: None,
            limits: Default::default(),
            metrics: Default::default(),
        })
        .expect("a proxy");
        soon("readiness", proxy.watch_ready().wait_for(|ready| *ready)).await.expect("the proxy lives");
        let fleet = proxy.fleet();
        let usable = || {
            let now = fleet.clock.now();
            fleet.index.with("m", |copies| copies.iter().filter(|copy| copy.is_usable(now)).count())
        };
        until("all copies", || (usable() == servers.len()).then_some(())).await;
        Self { agents, proxy, _control: control }
    }

    pub(crate) async fn client(&self) -> Client {
        let channel = Channel::from_shared(format!("http://{}", self.proxy.grpc_addr)).expect("an address");
        let client = Client::new(channel.connect().await.expect("a connection"));
        client.max_encoding_message_size(64 << 20)
    }

    pub(crate) async fn stop(self) {
        self.proxy.shutdown(Duration::from_secs(1)).await;
    }
}

/// A request of vmodel `v` of about this size.
pub(crate) fn request(bytes: usize) -> ModelInferRequest {
    let raw_input_contents = if bytes == 0 { Vec::new() } else { vec![vec![7; bytes].into()] };
    ModelInferRequest { model_name: "v".into(), id: "7".into(), raw_input_contents, ..Default::default() }
}
