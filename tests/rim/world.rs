//! Control, a model server that only its agent reaches, and a proxy, each with its probes.

use std::{
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    process::{Command, Output},
    time::{Duration, Instant},
};

use harness::{Ca, Folder, Pems, Rest, binary, fleet::Part, grpc};
use modelring_proto::inference::{ModelInferRequest, model_infer_request::InferInputTensor};

/// How long something that should happen soon may take on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// The processes.
pub(crate) struct World {
    pub(crate) control: Part,
    pub(crate) agent: Part,
    pub(crate) runtime: Part,
    pub(crate) proxy: Part,
    pub(crate) relay: SocketAddr,
    pub(crate) prestop: SocketAddr,
    pub(crate) ca: Ca,
    pub(crate) certificates: PathBuf,
    pub(crate) probes: Probes,
    pub(crate) folder: Folder,
}

/// Where the probes of each are.
pub(crate) struct Probes {
    pub(crate) control: SocketAddr,
    pub(crate) agent: SocketAddr,
    pub(crate) runtime: SocketAddr,
    pub(crate) proxy: SocketAddr,
}

/// An address on loopback that was free a moment ago.
pub(crate) fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port is free")
}

/// Runs `modelring` to its end.
pub(crate) fn run(args: &[String]) -> Output {
    Command::new(binary()).args(args).output().expect("the binary starts")
}

pub(crate) fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// Waits until it is so.
pub(crate) async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !is_so().await {
        assert!(Instant::now() < deadline, "not after {SOON:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Status and text of a probe; 0 where nothing listens.
pub(crate) async fn probe(address: SocketAddr, path: &str) -> (u16, String) {
    if tokio::net::TcpStream::connect(address).await.is_err() {
        return (0, String::new());
    }
    let answer = Rest::send(address, "GET", path, "").await;
    (answer.status, answer.text())
}

/// A request of model 0 with so many rows of zeros.
pub(crate) fn request(rows: usize) -> ModelInferRequest {
    ModelInferRequest {
        model_name: harness::fleet::model(0),
        inputs: vec![InferInputTensor {
            name: "x".to_owned(),
            datatype: "FP32".to_owned(),
            shape: vec![i64::try_from(rows).expect("it is few"), 3],
            ..InferInputTensor::default()
        }],
        raw_input_contents: vec![vec![0; rows * 12].into()],
        ..ModelInferRequest::default()
    }
}

/// What model 0 answers to so many rows of zeros.
pub(crate) fn right(rows: usize) -> Vec<u8> {
    [1_f32.to_le_bytes(), (-1_f32).to_le_bytes()].concat().repeat(rows)
}

// === impl World ===

impl World {
    /// A mesh with model 0, with mTLS and the relay or plain and direct; further flags of agent and proxy.
    pub(crate) async fn start(mtls: bool, agent_flags: &str, proxy_flags: &str) -> Self {
        let folder = Folder::with_storage();
        folder.add_numbered(0);
        let state = folder.path().join(".modelring");
        let certificates = folder.path().join(".modelring/certificates");
        std::fs::create_dir_all(&certificates).expect("a folder can be made");
        let ca = Ca::new();
        let tls = |name: &str, file: &str| match mtls {
            true => ca.issue(&certificates, file, name).flags().to_vec(),
            false => Vec::new(),
        };
        let [control, agent, relay, data, grpc, rest, prestop] = std::array::from_fn(|_| free());
        let [of_control, of_agent, of_runtime, of_proxy] = std::array::from_fn(|_| free());
        // With certificates the internal ports are open to other machines.
        let open = |address: SocketAddr| if mtls { format!("0.0.0.0:{}", address.port()) } else { address.to_string() };
        let part = |name: &str, listens: SocketAddr, flags: String, more: Vec<String>| {
            Part::new(name, listens, &binary(), [words(&flags), more].concat(), &state)
        };
        let dir = folder.path().display();
        let (open_control, open_agent, open_relay) = (open(control), open(agent), open(relay));
        let relay_flag = if mtls { format!("--relay {open_relay}") } else { String::new() };
        let mut world = Self {
            control: part(
                "control",
                control,
                format!("control {dir} --listen {open_control} --probes {of_control}"),
                tls("control.modelring", "control"),
            ),
            runtime: part("runtime", data, format!("runtime --listen {data} --probes {of_runtime}"), Vec::new()),
            agent: part(
                "agent",
                agent,
                format!(
                    "agent --listen {open_agent} --model-dir {dir}/loaded --storage-config {dir}/.modelring/storage-config \
                     --local-root {dir} --management http://{data} --data {data} --probes {of_agent} --prestop {prestop} \
                     {relay_flag} {agent_flags}"
                ),
                tls("agent.default.modelring", "agent"),
            ),
            proxy: part(
                "proxy",
                grpc,
                format!(
                    "proxy --grpc {grpc} --rest {rest} --control http://{control} --probes {of_proxy} --threads 1 {proxy_flags}"
                ),
                tls("proxy.default.modelring", "proxy"),
            ),
            relay,
            prestop,
            ca,
            certificates,
            probes: Probes { control: of_control, agent: of_agent, runtime: of_runtime, proxy: of_proxy },
            folder,
        };
        world.folder.write("instances.yaml", format!("- address: {agent}\n  runtime: modelring-onnx\n"));
        for part in [&mut world.control, &mut world.runtime, &mut world.agent, &mut world.proxy] {
            part.start();
        }
        let probes = [world.probes.control, world.probes.runtime, world.probes.agent, world.probes.proxy];
        for address in probes {
            until("it is ready", async || probe(address, "/ready").await.0 == 200).await;
            assert_eq!(probe(address, "/live").await.0, 200);
        }
        world
    }

    /// A certificate of the mesh's CA.
    pub(crate) fn issue(&self, name: &str) -> Pems {
        self.ca.issue(&self.certificates, name, name)
    }

    /// One call with so many rows, answered rightly.
    pub(crate) async fn infer(&self, rows: usize) {
        let answer = grpc(self.proxy.listens).await.model_infer(request(rows)).await.expect("it is answered");
        assert!(answer.into_inner().raw_output_contents[0] == right(rows), "another answer");
    }
}
