//! Settings of the embedded model server.

use std::{net::SocketAddr, time::Duration};

use crate::error::Error;

/// Settings of one runtime process.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where inference (`inference.GRPCInferenceService`) and management (`mmesh.ModelRuntime`) are served, one port for
    /// both; port 0 = a free one. Default `127.0.0.1:8085`.
    pub listen: SocketAddr,
    /// Bytes that models may fill, as told to the agent, who keeps to it. Default 1 GiB.
    pub capacity: u64,
    /// Loads that may run at once, at least 1. Default 2.
    pub loading_concurrency: usize,
    /// How long a load may take, as told to the agent; at least 100 ms, which is the least that ModelMesh takes.
    /// Default 90 s.
    pub load_timeout: Duration,
    /// Threads that run inference, at least 1; default = the CPUs that the process may use.
    pub threads: usize,
    /// Largest request or response message, bytes. Default 16 MiB.
    pub max_message: usize,
}

// === impl Config ===

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8085)),
            capacity: 1 << 30,
            loading_concurrency: 2,
            load_timeout: Duration::from_secs(90),
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            max_message: 16 << 20,
        }
    }
}

impl Config {
    /// Checks the settings; the error names the one that is wrong.
    pub(crate) fn validate(&self) -> Result<(), Error> {
        let least = |name: &'static str, value: u128, least: u128| {
            if value >= least { Ok(()) } else { Err(Error::Setting { name, value, least }) }
        };
        least("capacity", self.capacity.into(), 1)?;
        least("loading_concurrency", self.loading_concurrency as u128, 1)?;
        least("load_timeout (milliseconds)", self.load_timeout.as_millis(), 100)?;
        least("threads", self.threads as u128, 1)?;
        least("max_message", self.max_message as u128, 1)
    }
}
