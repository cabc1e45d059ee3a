//! `modelring control`.

use std::{net::SocketAddr, path::PathBuf};

use anyhow::Result;
use modelring_control::{Control, config::Config};
use modelring_process::metrics::Options;

use crate::{
    dataplane::Dataplane,
    rim::{self, Rim},
    signal::Stop,
    tls::Tls,
};

/// The ServingRuntime that the binary brings: the embedded model server.
pub(crate) const BUILT_IN_RUNTIME: &str = include_str!("../../../config/runtimes/modelring-onnx.yaml");

/// Settings of control.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Folder of manifests; `instances.yaml` in it lists the agents
    #[arg(value_name = "DIR", env = "MODELRING_DIR")]
    dir: PathBuf,

    /// Where proxies reach control; port 0 = a free one
    #[arg(long, env = "MODELRING_LISTEN", default_value = "127.0.0.1:9444", value_name = "ADDRESS")]
    listen: SocketAddr,

    /// Namespace that the folder stands for
    #[arg(long, env = "NAMESPACE", default_value = "default", value_name = "NAME")]
    namespace: String,

    #[command(flatten)]
    dataplane: Dataplane,

    #[command(flatten)]
    tls: Tls,

    #[command(flatten)]
    rim: Rim,
}

/// Serves until it is asked to stop.
pub(crate) async fn run(args: Args) -> Result<()> {
    let mut stop = Stop::listen()?;
    let options = Options::from_env()?;
    let mut running = Control::start(Config {
        dir: args.dir,
        listen: args.listen,
        tls: args.tls.identity().await?,
        namespace: args.namespace,
        instances: Vec::new(),
        built_in_runtimes: vec![BUILT_IN_RUNTIME.to_owned()],
        dataplane: args.dataplane.source()?,
    })
    .await?;
    tracing::info!(address = %running.addr(), "control is up");
    let _served =
        args.rim.serve(running.health().routes(), rim::metrics("control", options, running.metrics())).await?;
    tokio::select! {
        () = stop.asked() => {}
        error = running.failed() => return Err(error.into()),
    }
    stop.orderly(running.shutdown()).await
}
