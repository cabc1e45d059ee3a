//! `modelring proxy`.

use std::{net::SocketAddr, path::PathBuf};

use anyhow::Result;
use clap::ValueEnum;
use modelring_process::metrics::Options;
use modelring_proxy::{config, start::Proxy};

use super::runtime::threads;
use crate::{
    args::{Bytes, Seconds},
    limits::Limits,
    rim::{self, Rim},
    signal::Stop,
    tls::Tls,
};

/// Settings of the proxy.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where gRPC is served (REST too); port 0 = a free one
    #[arg(long, env = "MODELRING_GRPC", default_value = "0.0.0.0:8033", value_name = "ADDRESS")]
    grpc: SocketAddr,

    /// Where REST is served (gRPC too); port 0 = a free one
    #[arg(long, env = "MODELRING_REST", default_value = "0.0.0.0:8008", value_name = "ADDRESS")]
    rest: SocketAddr,

    /// Where control is reached
    #[arg(long, env = "MODELRING_CONTROL", default_value = "http://127.0.0.1:9444", value_name = "URL")]
    control: String,

    /// Namespace whose models are served
    #[arg(long, env = "NAMESPACE", default_value = "default", value_name = "NAME")]
    namespace: String,

    /// Threads that relay calls [default: the CPUs that this process may use]
    #[arg(long, env = "MODELRING_THREADS", value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,

    /// Bytes that may be held for slow readers, held requests and replays
    #[arg(long, env = "MODELRING_MEMORY_BUDGET", default_value = "200MiB", value_name = "BYTES")]
    memory_budget: Bytes,

    /// How long connections are still accepted after the end was asked for
    #[arg(long, env = "MODELRING_DRAIN_DELAY", default_value = "10s", value_name = "TIME")]
    drain_delay: Seconds,

    /// How long calls in flight may take to end after that
    #[arg(long, env = "MODELRING_GRACE", default_value = "60s", value_name = "TIME")]
    grace: Seconds,

    /// Which calls are logged
    #[arg(long, env = "MODELRING_ACCESS_LOG", value_enum, default_value_t = AccessLog::Errors, hide_env_values = true)]
    access_log: AccessLog,

    /// Folder that keeps the last table over a restart
    #[arg(long, env = "MODELRING_STATE_DIR", value_name = "DIR")]
    state_dir: Option<PathBuf>,

    #[command(flatten)]
    limits: Limits,

    #[command(flatten)]
    tls: Tls,

    #[command(flatten)]
    rim: Rim,
}

/// Which calls are logged.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum AccessLog {
    /// None
    Off,
    /// Those that did not end well
    Errors,
    /// One in a hundred, and those that did not end well
    Sampled,
    /// All
    All,
}

/// Serves until it is asked to stop.
pub(crate) async fn run(args: Args) -> Result<()> {
    let mut stop = Stop::listen()?;
    let options = Options::from_env()?;
    let running = Proxy::start(config::Config {
        grpc: args.grpc,
        rest: args.rest,
        control: args.control,
        tls: args.tls.identity().await?,
        namespace: args.namespace,
        threads: threads(args.threads),
        memory_budget: args.memory_budget.0,
        drain_delay: args.drain_delay.0,
        access_log: args.access_log.into(),
        metrics: options.clone(),
        state_dir: args.state_dir,
        limits: args.limits.read()?,
    })?;
    tracing::info!(grpc = %running.grpc_addr, rest = %running.rest_addr, "proxy is up");
    let _served = args.rim.serve(running.probes(), rim::metrics("proxy", options, running.metrics())).await?;
    stop.asked().await;
    stop.orderly(running.shutdown(args.grace.0)).await
}

// === impl AccessLog ===

impl From<AccessLog> for config::AccessLog {
    fn from(which: AccessLog) -> Self {
        match which {
            AccessLog::Off => Self::Off,
            AccessLog::Errors => Self::Errors,
            AccessLog::Sampled => Self::Sampled,
            AccessLog::All => Self::All,
        }
    }
}
