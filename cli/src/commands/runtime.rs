//! `modelring runtime`.

use std::net::SocketAddr;

use anyhow::Result;
use modelring_process::http::Routes;
use modelring_runtime::{Runtime, config::Config};

use crate::{
    args::{Bytes, Seconds},
    rim::Rim,
    signal::Stop,
};

/// Settings of the embedded model server.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where inference and management are served; port 0 = a free one
    #[arg(long, env = "MODELRING_LISTEN", default_value = "127.0.0.1:8085", value_name = "ADDRESS")]
    listen: SocketAddr,

    /// Memory that models may fill
    #[arg(long, env = "MODELRING_CAPACITY", default_value = "1GiB", value_name = "BYTES")]
    capacity: Bytes,

    /// Loads that may run at once
    #[arg(long, env = "MODELRING_LOADING_CONCURRENCY", default_value_t = 2, value_name = "N",
          value_parser = clap::value_parser!(u16).range(1..))]
    loading_concurrency: u16,

    /// How long a load may take
    #[arg(long, env = "MODELRING_LOAD_TIMEOUT", default_value = "90s", value_name = "TIME")]
    load_timeout: Seconds,

    /// Threads that run inference [default: the CPUs that this process may use]
    #[arg(long, env = "MODELRING_THREADS", value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,

    /// Largest request or response message
    #[arg(long, env = "MODELRING_MAX_MESSAGE", default_value = "16MiB", value_name = "BYTES")]
    max_message: Bytes,

    #[command(flatten)]
    rim: Rim,
}

/// Serves until it is asked to stop.
pub(crate) async fn run(args: Args) -> Result<()> {
    let mut stop = Stop::listen()?;
    let running = Runtime::start(Config {
        listen: args.listen,
        capacity: args.capacity.0,
        loading_concurrency: args.loading_concurrency.into(),
        load_timeout: args.load_timeout.0,
        threads: threads(args.threads),
        max_message: usize::try_from(args.max_message.0)?,
    })
    .await?;
    tracing::info!(address = %running.addr, "model server is ready");
    let _served = args.rim.serve(running.health().routes(), Routes::new()).await?;
    stop.asked().await;
    stop.orderly(running.shutdown()).await
}

/// The threads that were asked for, else as many as there are CPUs for this process.
pub(crate) fn threads(asked: Option<u16>) -> usize {
    asked.map_or_else(|| std::thread::available_parallelism().map_or(1, usize::from), usize::from)
}
