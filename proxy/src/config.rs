//! Settings of the proxy.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use modelring_process::{metrics::Options, tls::Identity};

pub use crate::fleet::PerCopy;

/// Settings of one proxy process.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where gRPC is served (REST too); port 0 = a free one. Default `0.0.0.0:8033`.
    pub grpc: SocketAddr,
    /// Where REST is served (gRPC too); port 0 = a free one. Default `0.0.0.0:8008`.
    pub rest: SocketAddr,
    /// Control's Routes service, `http://host:port`.
    pub control: String,
    /// Who this process is to control and agents; `None` = plaintext.
    pub tls: Option<Identity>,
    /// Namespace whose table is asked for.
    pub namespace: String,
    /// Threads that relay calls (`proxy.threads`); default = the CPUs that the process may use.
    pub threads: usize,
    /// Bytes that may be held for slow readers, held requests and replays (`proxy.memoryBudget`).
    pub memory_budget: u64,
    /// How long connections are still accepted after the end was asked for (`proxy.drainDelay`), default 10 s.
    pub drain_delay: Duration,
    /// Which calls are logged (`proxy.accessLog`).
    pub access_log: AccessLog,
    /// What callers may not exceed.
    pub limits: Limits,
    /// How metrics are shown.
    pub metrics: Options,
    /// Where the last table is kept over a restart of the container; `None` = nowhere.
    pub state_dir: Option<PathBuf>,
}

/// What callers may not exceed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest list of request headers, bytes.
    pub max_headers: u32,
    /// Age at which an HTTP/2 client is asked to connect anew, give or take a tenth.
    pub connection_age: Duration,
    /// How long the calls of such a client may take to end; `None` = as long as they need.
    pub connection_grace: Option<Duration>,
    /// Calls on a copy whose concurrency is limited.
    pub per_copy: PerCopy,
}

/// Which calls are logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AccessLog {
    /// None.
    Off,
    /// Those that did not end well.
    #[default]
    Errors,
    /// One in a hundred, and those that did not end well.
    Sampled,
    /// All.
    All,
}

// === impl Limits ===

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_headers: 8 * 1024,
            connection_age: Duration::from_secs(30 * 60),
            connection_grace: None,
            per_copy: PerCopy::default(),
        }
    }
}
