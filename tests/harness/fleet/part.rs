//! One process of a fleet, by name: killed, frozen, stopped and started again at will.

use std::{
    fs::{self, File, OpenOptions},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

/// How long a process may take to listen, and to end: the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// A process with the command that starts it. Killed when dropped.
#[derive(Debug)]
pub struct Part {
    /// What it is called.
    pub name: String,
    /// Where it listens.
    pub listens: SocketAddr,
    /// Its program and arguments.
    pub command: Vec<String>,
    /// What it has in its environment beside that of the test.
    pub environment: Vec<(String, String)>,
    log: PathBuf,
    child: Option<Child>,
}

// === impl Part ===

impl Part {
    /// A process that is not started yet; it logs to `<logs>/<name>.log`.
    #[must_use]
    pub fn new(name: &str, listens: SocketAddr, program: &Path, args: Vec<String>, logs: &Path) -> Self {
        let mut command = vec![program.display().to_string()];
        command.extend(args);
        Self {
            name: name.to_owned(),
            listens,
            command,
            environment: Vec::new(),
            log: logs.join(format!("{name}.log")),
            child: None,
        }
    }

    /// Starts it and waits until it listens.
    ///
    /// # Panics
    /// When it does not.
    pub fn start(&mut self) {
        self.spawn();
        self.wait_until_it_listens();
    }

    /// Starts it. Its log goes on.
    ///
    /// # Panics
    /// When it runs, or does not start.
    pub fn spawn(&mut self) {
        assert!(self.child.is_none(), "{} runs", self.name);
        let log = || -> File {
            OpenOptions::new().create(true).append(true).open(&self.log).expect("a log file can be written")
        };
        let child = Command::new(&self.command[0])
            .args(&self.command[1..])
            .env("MODELRING_LOG", std::env::var("MODELRING_LOG").unwrap_or_else(|_| "info".to_owned()))
            .env("NO_COLOR", "1")
            // Of toxiproxy.
            .env("LOG_LEVEL", "error")
            .envs(self.environment.clone())
            .stdin(Stdio::null())
            .stdout(log())
            .stderr(log())
            .spawn();
        self.child = Some(child.unwrap_or_else(|error| panic!("{}: {error}; `./dev` builds it", self.command[0])));
    }

    /// Waits until it listens.
    ///
    /// # Panics
    /// When it does not, or ends.
    pub fn wait_until_it_listens(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(self.listens).is_err() {
            let child = self.child.as_mut().expect("it was started");
            if let Some(status) = child.try_wait().expect("a process can be waited for") {
                panic!("{} ended with {status}:\n{}", self.name, self.log_tail(20));
            }
            assert!(Instant::now() < deadline, "{} does not listen on {}", self.name, self.listens);
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends it by SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Kills it and starts it again on the same address.
    pub fn kill_and_start(&mut self) {
        self.kill();
        self.start();
    }

    /// Freezes it: SIGSTOP.
    pub fn freeze(&self) {
        self.signal("-STOP");
    }

    /// Lets it go on: SIGCONT.
    pub fn thaw(&self) {
        self.signal("-CONT");
    }

    /// Asks it to end: SIGTERM. Does not wait.
    pub fn terminate(&self) {
        self.signal("-TERM");
    }

    /// Whether it runs.
    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Waits until it has ended by itself.
    ///
    /// # Panics
    /// When it has not after `within`.
    pub async fn ended(&mut self, within: Duration) -> ExitStatus {
        let deadline = Instant::now() + within;
        loop {
            let child = self.child.as_mut().expect("it was started");
            if let Some(status) = child.try_wait().expect("a process can be waited for") {
                self.child = None;
                return status;
            }
            assert!(Instant::now() < deadline, "{} still runs after {within:?}", self.name);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Resident memory, KiB.
    ///
    /// # Panics
    /// When it does not run.
    #[must_use]
    pub fn rss_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).expect("the process runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("the kernel tells it");
        line.trim().trim_end_matches("kB").trim().parse().expect("it is a number")
    }

    /// Open file descriptors.
    ///
    /// # Panics
    /// When it does not run.
    #[must_use]
    pub fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.id())).expect("the process runs").count()
    }

    /// Everything that it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Its last lines.
    #[must_use]
    pub fn log_tail(&self, lines: usize) -> String {
        let log = self.log();
        let all: Vec<&str> = log.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    fn id(&self) -> u32 {
        self.child.as_ref().expect("it was started").id()
    }

    fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.id().to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()), "{signal} did not reach {}", self.name);
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- log of {}, last lines ---\n{}", self.name, self.log_tail(40));
        }
    }
}
