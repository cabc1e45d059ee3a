//! A real MLServer as a process, started as the shipped runtime starts it.

use std::{
    fs::{self, File},
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::{mesh::free_address, tools};

/// How long it may take to be ready: it imports half of Python, and the machine may be busy.
const READY: Duration = Duration::from_secs(120);
/// How long it may take to stop.
const STOP: Duration = Duration::from_secs(60);

/// MLServer on free ports of loopback, in one process. Killed when dropped.
#[derive(Debug)]
pub struct MlServer {
    child: Child,
    /// Where gRPC is served: inference and management.
    pub grpc: SocketAddr,
    /// Where REST is served.
    pub rest: SocketAddr,
    metrics: SocketAddr,
    models_dir: PathBuf,
    log: TempDir,
}

// === impl MlServer ===

impl MlServer {
    /// Starts it for the agent whose model directory this is, and waits until it is ready.
    ///
    /// # Panics
    /// When it ends, or is not ready after 2 minutes.
    #[must_use]
    pub fn start(model_dir: &Path) -> Self {
        let models_dir = model_dir.join("_mlserver_models");
        fs::create_dir_all(&models_dir).expect("a folder can be made");
        let [grpc, rest, metrics] = std::array::from_fn(|_| free_address());
        let log = tempfile::tempdir().expect("a temporary folder can be made");
        let child = spawn(&models_dir, log.path(), [grpc, rest, metrics]);
        let mut server = Self { child, grpc, rest, metrics, models_dir, log };
        server.wait_until_ready();
        server
    }

    /// Ends it by SIGKILL, with all its processes.
    pub fn kill(&mut self) {
        self.signal_all("KILL");
        let _ = self.child.wait();
    }

    /// Ends it by SIGTERM.
    ///
    /// # Panics
    /// When it has not ended after a minute.
    pub fn stop(&mut self) {
        signal("TERM", &self.child.id().to_string());
        let deadline = Instant::now() + STOP;
        while self.child.try_wait().expect("the process can be waited for").is_none() {
            assert!(Instant::now() < deadline, "MLServer has not ended {STOP:?} after SIGTERM:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Starts it again on the same ports, once it was stopped or killed. Does not wait until it is ready.
    pub fn start_again(&mut self) {
        self.child = spawn(&self.models_dir, self.log.path(), [self.grpc, self.rest, self.metrics]);
    }

    /// Stops it as a debugger would (SIGSTOP): its connections stay open and nothing is answered.
    pub fn freeze(&self) {
        self.signal_all("STOP");
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.signal_all("CONT");
    }

    /// Waits until it says that it is ready.
    ///
    /// # Panics
    /// When it ends, or is not ready after 2 minutes.
    pub fn wait_until_ready(&mut self) {
        let deadline = Instant::now() + READY;
        while !(TcpStream::connect(self.grpc).is_ok() && self.says_ready()) {
            if let Some(status) = self.child.try_wait().expect("the process can be waited for") {
                panic!("MLServer ended with {status}:\n{}", self.log());
            }
            assert!(Instant::now() < deadline, "MLServer is not ready after {READY:?}:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The end of what it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        let log = fs::read_to_string(self.log.path().join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    fn says_ready(&self) -> bool {
        let ask = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect(self.rest)?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            stream.write_all(b"GET /v2/health/ready HTTP/1.1\r\nHost: mlserver\r\nConnection: close\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        ask().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
    }

    /// It leads a process group of its own, which has no other members.
    fn signal_all(&self, name: &str) {
        signal(name, &format!("-{}", self.child.id()));
    }
}

impl Drop for MlServer {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn(models_dir: &Path, log: &Path, [grpc, rest, metrics]: [SocketAddr; 3]) -> Child {
    let log = File::options().create(true).append(true).open(log.join("log")).expect("a log file can be made");
    Command::new(tools::mlserver())
        .arg("start")
        .arg(models_dir)
        // As `config/runtimes/mlserver-1.x.yaml` says.
        .env("MLSERVER_MODELS_DIR", models_dir)
        .env("MLSERVER_GRPC_PORT", grpc.port().to_string())
        .env("MLSERVER_HTTP_PORT", rest.port().to_string())
        .env("MLSERVER_LOAD_MODELS_AT_STARTUP", "false")
        .env("MLSERVER_MODEL_NAME", "dummy-model-fixme")
        .env("MLSERVER_HOST", "127.0.0.1")
        .env("MLSERVER_GRPC_MAX_MESSAGE_LENGTH", "-1")
        // For tests: one process, one thread, several beside each other.
        .env("MLSERVER_METRICS_PORT", metrics.port().to_string())
        .env("MLSERVER_PARALLEL_WORKERS", "0")
        .env("OMP_NUM_THREADS", "1")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .current_dir(models_dir)
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a file handle can be doubled"))
        .stderr(log)
        .process_group(0)
        .spawn()
        .expect("MLServer starts")
}

fn signal(name: &str, to: &str) {
    let _ = Command::new("kill").arg(format!("-{name}")).arg("--").arg(to).stderr(Stdio::null()).status();
}
