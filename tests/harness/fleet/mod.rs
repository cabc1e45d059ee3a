//! A whole mesh of processes, each on a loopback address of its own: proxies, control, agents with their model servers,
//! and where it is asked for a network between them that can be harmed.

mod connection;
mod observer;
mod part;
mod steady;
mod toxiproxy;

use std::{
    fmt::Write,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicU8, Ordering},
    time::{Duration, Instant},
};

pub use connection::{Answer, Connection, Told};
pub use observer::{Observer, Said};
pub use part::Part;
pub use steady::{Call, Outcome, Pattern, Steady, call, failures, model, percentile};
pub use toxiproxy::{Harm, Link, Toxiproxy};

use crate::{Folder, Lives, Rest, ServerSettings, process};

/// Ports need not be free ones: the addresses are the fleet's own.
const PORT: u16 = 28_000;
/// How long something that should happen soon may take on a busy machine.
pub const SOON: Duration = Duration::from_secs(30);

/// What a fleet is made with.
#[derive(Clone, Debug)]
pub struct FleetSetup {
    /// Proxies.
    pub proxies: usize,
    /// Agents, each with a model server.
    pub instances: usize,
    /// Models of the size of `size` for which each instance has room.
    pub room: u64,
    /// Bytes that each model takes.
    pub size: u64,
    /// How long each load sleeps.
    pub load_delay: Duration,
    /// How long each load works at least.
    pub load_work: Duration,
    /// Whether the parts reach each other through a network that can be harmed.
    pub links: bool,
    /// Further flags of the agents.
    pub agent_flags: Vec<String>,
    /// Further flags of the proxies.
    pub proxy_flags: Vec<String>,
}

/// A proxy.
#[derive(Debug)]
pub struct ProxyPart {
    /// Its process.
    pub part: Part,
    /// Where gRPC is served.
    pub grpc: SocketAddr,
    /// Where REST is served.
    pub rest: SocketAddr,
    /// The way to control, where the fleet has links.
    pub to_control: Option<Link>,
}

/// An agent with its model server.
#[derive(Debug)]
pub struct InstancePart {
    /// The agent's process.
    pub agent: Part,
    /// The model server's.
    pub server: Part,
    /// Where the agent itself listens.
    pub address: SocketAddr,
    /// Where the model server itself listens.
    pub data: SocketAddr,
    /// The way to the agent, for proxies and control, where the fleet has links.
    pub to_agent: Option<Link>,
    /// The way to the model server, for proxies, where the fleet has links.
    pub to_data: Option<Link>,
    journal: PathBuf,
}

/// A running mesh. Its processes are killed when it is dropped; their last log lines are printed where the test fails.
#[derive(Debug)]
pub struct Fleet {
    /// Control.
    pub control: Part,
    /// Proxies.
    pub proxies: Vec<ProxyPart>,
    /// Agents and model servers.
    pub instances: Vec<InstancePart>,
    /// Where further parts of this fleet may listen: each address is given once.
    net: Net,
    logs: PathBuf,
    folder: PathBuf,
    _toxiproxy: Option<Toxiproxy>,
}

/// Loopback addresses that nobody else uses.
#[derive(Debug)]
struct Net {
    given: AtomicU8,
}

static NETS: AtomicU8 = AtomicU8::new(0);

// === impl FleetSetup ===

impl Default for FleetSetup {
    fn default() -> Self {
        Self {
            proxies: 2,
            instances: 3,
            room: 8,
            size: 10 << 20,
            load_delay: Duration::ZERO,
            load_work: Duration::ZERO,
            links: false,
            agent_flags: Vec::new(),
            proxy_flags: Vec::new(),
        }
    }
}

// === impl Net ===

impl Net {
    fn address(&self) -> Ipv4Addr {
        let pid = std::process::id();
        let host = self.given.fetch_add(1, Ordering::Relaxed);
        let third = ((pid & 0xff) as u8).wrapping_add(NETS.load(Ordering::Relaxed).wrapping_mul(31));
        Ipv4Addr::new(127, 64 + ((pid >> 8) & 0x7f) as u8, third, host)
    }
}

// === impl Fleet ===

impl Fleet {
    /// Starts a mesh that serves `folder` and waits until its proxies are ready.
    ///
    /// # Panics
    /// When a part does not come up.
    pub async fn start(folder: &Folder, setup: FleetSetup) -> Self {
        NETS.fetch_add(1, Ordering::Relaxed);
        let net = Net { given: AtomicU8::new(1) };
        let address = |port: u16| SocketAddr::from((net.address(), PORT + port));
        let state = folder.path().join(".modelring");
        let logs = state.join("logs");
        std::fs::create_dir_all(&logs).expect("a folder can be made");
        let toxiproxy = setup.links.then(|| Toxiproxy::start(address(474), &logs));
        let link = async |name: String, upstream: SocketAddr| match &toxiproxy {
            Some(toxiproxy) => Some(toxiproxy.link(&name, address(500), upstream).await),
            None => None,
        };
        let through = |link: &Option<Link>, upstream: SocketAddr| link.as_ref().map_or(upstream, |link| link.listens);
        let test_server = process::binary().with_file_name("modelring-test-server");

        let mut instances = Vec::new();
        let mut listed = String::new();
        for number in 0..setup.instances {
            let (agent_address, data) = (address(881), address(85));
            let to_agent = link(format!("agent-{number}"), agent_address).await;
            let to_data = link(format!("data-{number}"), data).await;
            let journal = logs.join(format!("server-{number}.journal"));
            let settings = ServerSettings {
                listen: data,
                journal: journal.clone(),
                log: "info,modelring_runtime=debug".to_owned(),
                capacity: setup.room * setup.size,
                threads: 2,
                size: setup.size,
                load_delay_millis: u64::try_from(setup.load_delay.as_millis()).expect("it is short"),
                load_work_millis: u64::try_from(setup.load_work.as_millis()).expect("it is short"),
            };
            let settings = serde_json::to_string(&settings).expect("settings are JSON");
            let server = Part::new(&format!("server-{number}"), data, &test_server, vec![settings], &logs);
            let mut args = words(&["agent", "--namespace", "default", "--runtime", "modelring-onnx"]);
            args.extend(words(&["--listen", &agent_address.to_string(), "--instance", &format!("instance-{number}")]));
            args.extend(words(&["--model-dir", &state.join(format!("models-{number}")).display().to_string()]));
            args.extend(words(&["--storage-config", &state.join("storage-config").display().to_string()]));
            args.extend(words(&["--local-root", &folder.path().display().to_string()]));
            args.extend(words(&["--management", &format!("http://{data}")]));
            args.extend(words(&["--data", &through(&to_data, data).to_string()]));
            args.extend(words(&["--metrics", &beside(agent_address).to_string()]));
            args.extend(setup.agent_flags.clone());
            let agent = Part::new(&format!("agent-{number}"), agent_address, &process::binary(), args, &logs);
            let _ = writeln!(listed, "- address: {}\n  runtime: modelring-onnx", through(&to_agent, agent_address));
            instances.push(InstancePart { agent, server, address: agent_address, data, to_agent, to_data, journal });
        }
        folder.write("instances.yaml", listed);

        let control_address = address(444);
        let mut control = control_part("control", control_address, folder.path(), &logs);
        let mut proxies = Vec::new();
        for number in 0..setup.proxies {
            let ip = net.address();
            let (grpc, rest) = (SocketAddr::from((ip, PORT + 33)), SocketAddr::from((ip, PORT + 8)));
            let to_control = link(format!("control-of-proxy-{number}"), control_address).await;
            let mut args = words(&["proxy", "--grpc", &grpc.to_string(), "--rest", &rest.to_string()]);
            args.extend(words(&["--control", &format!("http://{}", through(&to_control, control_address))]));
            args.extend(words(&["--threads", "2"]));
            args.extend(words(&["--state-dir", &state.join(format!("proxy-{number}")).display().to_string()]));
            args.extend(words(&["--metrics", &beside(grpc).to_string()]));
            args.extend(setup.proxy_flags.clone());
            let part = Part::new(&format!("proxy-{number}"), grpc, &process::binary(), args, &logs);
            proxies.push(ProxyPart { part, grpc, rest, to_control });
        }
        control.spawn();
        for instance in &mut instances {
            instance.server.spawn();
            instance.agent.spawn();
        }
        proxies.iter_mut().for_each(|proxy| proxy.part.spawn());
        control.wait_until_it_listens();
        for instance in &mut instances {
            instance.server.wait_until_it_listens();
            instance.agent.wait_until_it_listens();
        }
        let folder = folder.path().to_owned();
        let mut fleet = Self { control, proxies, instances, net, logs, folder, _toxiproxy: toxiproxy };
        for number in 0..fleet.proxies.len() {
            fleet.proxies[number].part.wait_until_it_listens();
            fleet.wait_until_ready(number).await;
        }
        fleet
    }

    /// A second control of the same folder, not started.
    #[must_use]
    pub fn another_control(&self) -> Part {
        control_part("control-2", SocketAddr::from((self.net.address(), PORT + 444)), &self.folder, &self.logs)
    }

    /// Waits until a proxy says that it is ready.
    ///
    /// # Panics
    /// When it does not.
    pub async fn wait_until_ready(&self, proxy: usize) {
        let rest = self.proxies[proxy].rest;
        let deadline = Instant::now() + SOON;
        loop {
            let asking = tokio::spawn(Rest::send(rest, "GET", "/v2/health/ready", ""));
            if asking.await.is_ok_and(|answer| answer.status == 200) {
                return;
            }
            assert!(Instant::now() < deadline, "{} is not ready", self.proxies[proxy].part.name);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// What `modelring status --json` says of the control that listens there; nothing where it does not answer.
    ///
    /// # Panics
    /// When the binary was not built.
    #[must_use]
    pub fn status(&self, control: SocketAddr) -> Option<serde_json::Value> {
        let control = format!("http://{control}");
        let args = ["status", "--json", "--timeout", "2s", "--control", &control];
        let said = Command::new(process::binary()).args(args).output().expect("the binary starts");
        serde_json::from_slice(&said.stdout).ok()
    }

    /// Where the proxies serve gRPC.
    #[must_use]
    pub fn grpc(&self) -> Vec<SocketAddr> {
        self.proxies.iter().map(|proxy| proxy.grpc).collect()
    }

    /// Watches all agents.
    #[must_use]
    pub fn observe(&self) -> Observer {
        Observer::start(self.instances.iter().map(|instance| instance.address).collect())
    }

    /// What the model servers' journals say.
    #[must_use]
    pub fn journals(&self) -> Vec<Lives> {
        self.instances.iter().map(InstancePart::journal).collect()
    }

    /// Loads of one model, or of all whose id begins so, at all model servers.
    #[must_use]
    pub fn loads(&self, prefix: &str) -> usize {
        self.journals().iter().map(|journal| journal.loads(prefix)).sum()
    }

    /// Checks what must always hold at the model servers: see [`Lives::assert_no_call_outside_its_span`].
    ///
    /// # Panics
    /// When a rule was broken.
    pub fn assert_spans(&self) {
        for instance in &self.instances {
            instance.journal().assert_no_call_outside_its_span(&instance.server.name);
        }
    }

    /// Calls that reached a model server which had not the model.
    #[must_use]
    pub fn strays(&self) -> usize {
        let strays =
            |instance: &InstancePart| instance.server.log().matches("call of a model that is not loaded").count();
        self.instances.iter().map(strays).sum()
    }

    /// All processes.
    pub fn parts(&self) -> impl Iterator<Item = &Part> {
        let instances = self.instances.iter().flat_map(|instance| [&instance.agent, &instance.server]);
        self.proxies.iter().map(|proxy| &proxy.part).chain(instances).chain([&self.control])
    }
}

// === impl InstancePart ===

impl InstancePart {
    /// What the model server's journal says.
    #[must_use]
    pub fn journal(&self) -> Lives {
        Lives::read(&self.journal)
    }
}

/// Where the process that listens here shows its metrics.
#[must_use]
pub fn beside(listens: SocketAddr) -> SocketAddr {
    SocketAddr::from((listens.ip(), PORT + 112))
}

fn control_part(name: &str, listen: SocketAddr, folder: &std::path::Path, logs: &std::path::Path) -> Part {
    let mut args = words(&["control", &folder.display().to_string(), "--listen", &listen.to_string()]);
    args.extend(words(&["--metrics", &beside(listen).to_string()]));
    Part::new(name, listen, &process::binary(), args, logs)
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(ToString::to_string).collect()
}

/// Waits until something is so.
///
/// # Panics
/// When it is not after `within`, naming it.
pub async fn until(what: &str, within: Duration, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + within;
    while !is_so() {
        assert!(Instant::now() < deadline, "not within {within:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
