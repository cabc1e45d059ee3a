//! Settings of the embedded model server.

use std::{net::SocketAddr, time::Duration};

/// Settings of one runtime process.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where inference (`inference.GRPCInferenceService`) and management (`mmesh.ModelRuntime`) are served, one port for
    /// both; port 0 = a free one. Default `127.0.0.1:8085`.
    pub listen: SocketAddr,
    /// Bytes that models may fill.
    pub capacity: u64,
    /// Loads that may run at once, at least 1.
    pub loading_concurrency: usize,
    /// How long a load may take, as told to the agent.
    pub load_timeout: Duration,
    /// Threads that run inference; default = the CPUs that the process may use.
    pub threads: usize,
    /// Largest request or response message, bytes.
    pub max_message: usize,
}
