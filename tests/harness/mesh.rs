//! A mesh of separate processes: control, a model server with its agent, a proxy.

use std::{
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::{Folder, process::binary};

/// One process of the `modelring` binary. Killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
}

/// Control, one model server with its agent, and one proxy, each a process of its own.
#[derive(Debug)]
pub struct Mesh {
    /// Where the model server serves.
    pub data: SocketAddr,
    /// Where the proxy serves gRPC.
    pub grpc: SocketAddr,
    /// Where the proxy serves REST.
    pub rest: SocketAddr,
    /// The model server.
    pub runtime: Process,
    /// Its agent.
    pub agent: Process,
    /// Control.
    pub control: Process,
    /// The proxy.
    pub proxy: Process,
    runtime_args: Vec<String>,
}

// === impl Mesh ===

impl Mesh {
    /// Starts a mesh that serves `folder`, with further arguments for the model server and the proxy.
    ///
    /// # Panics
    /// When a part does not come up.
    #[must_use]
    pub fn start(folder: &Folder, runtime_args: &[&str], proxy_args: &[&str]) -> Self {
        let [data, agent, control, grpc, rest] = std::array::from_fn(|_| free_address());
        let path = |below: &str| folder.path().join(below).display().to_string();
        folder.write("instances.yaml", format!("- address: {agent}\n  runtime: modelring-onnx\n"));
        let listen = data.to_string();
        let runtime_args: Vec<String> =
            ["runtime", "--listen", &listen].iter().chain(runtime_args).map(ToString::to_string).collect();
        let mut runtime = Process::start(&runtime_args);
        runtime.wait_for(data);
        let mut control_process = Process::start(&["control", &path(""), "--listen", &control.to_string()]);
        control_process.wait_for(control);
        let mut agent_process = Process::start(&[
            "agent",
            "--listen",
            &agent.to_string(),
            "--model-dir",
            &path("loaded"),
            "--storage-config",
            &path(".modelring/storage-config"),
            "--local-root",
            &path(""),
            "--management",
            &format!("http://{data}"),
            "--data",
            &data.to_string(),
        ]);
        agent_process.wait_for(agent);
        let (grpc_text, rest_text, control_url) = (grpc.to_string(), rest.to_string(), format!("http://{control}"));
        let mut args = vec!["proxy", "--grpc", &grpc_text, "--rest", &rest_text, "--control", &control_url];
        args.extend(proxy_args);
        let mut proxy = Process::start(&args);
        proxy.wait_for(grpc);
        wait_until_ready(rest);
        Self { data, grpc, rest, runtime, agent: agent_process, control: control_process, proxy, runtime_args }
    }

    /// Kills the model server (SIGKILL) and starts it again on the same port.
    pub fn restart_runtime(&mut self) {
        self.runtime.kill();
        self.runtime = Process::start(&self.runtime_args);
        self.runtime.wait_for(self.data);
    }
}

// === impl Process ===

impl Process {
    /// Starts `modelring ARGS`. What it logs as an error goes to the test's standard error.
    ///
    /// # Panics
    /// When the binary was not built.
    pub fn start<S: AsRef<str>>(args: &[S]) -> Self {
        let child = Command::new(binary())
            .args(args.iter().map(AsRef::as_ref))
            .env("MODELRING_LOG", std::env::var("MODELRING_LOG").unwrap_or_else(|_| "error".to_owned()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("the binary starts");
        Self { child }
    }

    /// Ends it by SIGKILL.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// User and system time so far.
    ///
    /// # Panics
    /// When it has ended.
    #[must_use]
    pub fn cpu(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("the process runs");
        // Behind the name in brackets utime and stime are the 12th and 13th field, in ticks of 10 ms.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks: u64 = fields.iter().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
        Duration::from_millis(ticks * 10)
    }

    /// Resident memory, MiB.
    ///
    /// # Panics
    /// When it has ended.
    #[must_use]
    pub fn rss_mib(&self) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("the process runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("the kernel tells it");
        line.trim().trim_end_matches("kB").trim().parse::<f64>().expect("it is a number") / 1024.0
    }

    /// Waits until something listens on `address`.
    ///
    /// # Panics
    /// When the process ends, or 20 s pass.
    pub fn wait_for(&mut self, address: SocketAddr) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(address).is_err() {
            if let Some(status) = self.child.try_wait().expect("the process can be waited for") {
                panic!("the process that should listen on {address} ended with {status}");
            }
            assert!(Instant::now() < deadline, "nothing listens on {address} after 20 s");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Waits until the proxy that serves REST there says that it is ready.
///
/// # Panics
/// When it does not within 20 s.
pub fn wait_until_ready(rest: SocketAddr) {
    let deadline = Instant::now() + Duration::from_secs(20);
    let url = format!("http://{rest}/v2/health/ready");
    while !Command::new("curl").args(["-sf", &url]).status().is_ok_and(|status| status.success()) {
        assert!(Instant::now() < deadline, "the proxy is not ready after 20 s");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// An address on loopback that was free a moment ago.
///
/// # Panics
/// When none is free.
#[must_use]
pub fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port is free")
}
