//! The `modelring` binary as a process.

use std::{
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

/// `modelring up DIR` on free ports. Killed when dropped.
#[derive(Debug)]
pub struct Up {
    child: Child,
    lines: mpsc::Receiver<String>,
    said: Vec<String>,
    /// Where gRPC is served.
    pub grpc: SocketAddr,
    /// Where REST is served.
    pub rest: SocketAddr,
}

// === impl Up ===

impl Up {
    /// Starts it and waits until it has said where it serves.
    ///
    /// # Panics
    /// When it ends, or says nothing within 30 s.
    #[must_use]
    pub fn start(dir: &Path, args: &[&str]) -> Self {
        let mut child = Command::new(binary())
            .args(["up", "--grpc", "127.0.0.1:0", "--rest", "127.0.0.1:0"])
            .arg(dir)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts; `./dev test` builds it");
        let lines = read_lines(child.stdout.take().expect("standard output is piped"));
        let unknown = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut up = Self { child, lines, said: Vec::new(), grpc: unknown, rest: unknown };
        let address = |line: &str| line.rsplit([' ', '/']).next().and_then(|text| text.parse().ok());
        up.grpc = address(&up.line_with("gRPC")).expect("the line ends with an address");
        up.rest = address(&up.line_with("REST")).expect("the line ends with an address");
        up
    }

    /// Waits for a line that holds `text`, among those already said too.
    ///
    /// # Panics
    /// When the process ends first, or 30 s pass.
    pub fn line_with(&mut self, text: &str) -> String {
        let deadline = Instant::now() + Duration::from_secs(30);
        let mut looked_at = 0;
        loop {
            if let Some(line) = self.said[looked_at..].iter().find(|line| line.contains(text)) {
                return line.clone();
            }
            looked_at = self.said.len();
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => self.said.push(line),
                Err(_) => {
                    let _ = self.child.kill();
                    let mut errors = String::new();
                    let _ = self.child.stderr.take().map(|mut stderr| stderr.read_to_string(&mut errors));
                    panic!("no line with {text:?}; said:\n{}\n{errors}", self.said.join("\n"));
                }
            }
        }
    }

    /// Everything that it has said so far.
    pub fn said(&mut self) -> String {
        self.said.extend(self.lines.try_iter());
        self.said.join("\n")
    }

    /// Sends SIGTERM and waits for the end.
    ///
    /// # Panics
    /// When it has not ended after 30 s.
    pub fn terminate(mut self) -> ExitStatus {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().expect("kill runs").success());
        let deadline = Instant::now() + Duration::from_secs(30);
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().expect("the process can be waited for") {
                return status;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("the process has not ended 30 s after SIGTERM");
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The binary, which lies beside this executable or, for a test, beside its folder.
///
/// # Panics
/// When it was not built.
#[must_use]
pub fn binary() -> PathBuf {
    let executable = std::env::current_exe().expect("a process has a path");
    let found = executable.ancestors().skip(1).take(2).map(|dir| dir.join("modelring")).find(|path| path.is_file());
    found.expect("the binary `modelring` is built; `./dev` does it")
}

fn read_lines(stdout: ChildStdout) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::sync_channel(10_000);
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}
