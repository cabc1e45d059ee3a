//! `modelring agent`.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::Result;
use clap::ValueEnum;
use modelring_agent::{Agent, config::Config};
use modelring_placement::pod;
use modelring_process::{http::Server, metrics::Options, prestop::Prestop};

use super::adapter::{Adapter, Kind};
use crate::{
    args::{Bytes, Seconds},
    rim::{self, Port, Rim},
    signal::Stop,
    tls::Tls,
};

/// Settings of the agent.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where proxies and control reach this agent; port 0 = a free one
    #[arg(long, env = "MODELRING_LISTEN", default_value = "127.0.0.1:11881", value_name = "ADDRESS")]
    listen: SocketAddr,

    /// Id of this instance [default: the pod's name, else made once and kept in the model directory]
    #[arg(long, env = "POD_NAME", value_name = "ID")]
    instance: Option<String>,

    /// Uid of the pod [default: made once and kept in the model directory]
    #[arg(long, env = "POD_UID", value_name = "UID")]
    pod_uid: Option<String>,

    /// Namespace
    #[arg(long, env = "NAMESPACE", default_value = "default", value_name = "NAME")]
    namespace: String,

    /// Name of the ServingRuntime whose model server this is
    #[arg(long, env = "MODELRING_RUNTIME", default_value = "modelring-onnx", value_name = "NAME")]
    runtime: String,

    /// Where model files are put; the model server must see the same paths
    #[arg(long, env = "MODELRING_MODEL_DIR", default_value = "/models", value_name = "DIR")]
    model_dir: PathBuf,

    /// Folder of storage-config entries, one file a key
    #[arg(long, env = "MODELRING_STORAGE_CONFIG", value_name = "DIR")]
    storage_config: Option<PathBuf>,

    /// Folder that storage entries of type `local` are relative to; without it `local` is an unknown type
    #[arg(long, env = "MODELRING_LOCAL_ROOT", value_name = "DIR")]
    local_root: Option<PathBuf>,

    /// Most that model files may take on disk, loaded and unloaded models together, as 10Gi [default: 80 % of the volume]
    #[arg(long, env = "MODELRING_DISK_LIMIT", value_name = "BYTES")]
    disk_limit: Option<Bytes>,

    /// Kind of the model server
    #[arg(long, env = "MODELRING_SERVER", value_enum, default_value_t = Kind::Custom, hide_env_values = true)]
    server: Kind,

    /// Management endpoint of the model server: http://HOST:PORT, port:NUMBER or unix:/PATH [default:
    /// http://127.0.0.1:8085, of a built-in server its --runtime-port]
    #[arg(long, env = "MODELRING_MANAGEMENT", value_name = "ENDPOINT")]
    management: Option<String>,

    /// Where the model server serves inference, as this process reaches it: HOST:PORT or unix:/PATH [default:
    /// 127.0.0.1:8085, of a built-in server its --runtime-port]
    #[arg(long, env = "MODELRING_DATA", value_name = "ADDRESS")]
    data: Option<String>,

    /// Where proxies reach the model server themselves; 0.0.0.0:PORT = on the agent's host, `none` = nowhere
    /// [default: --data, unless that is a unix socket, or on loopback where there is a relay]
    #[arg(long, env = "MODELRING_DATA_DIRECT", value_name = "ADDRESS")]
    data_direct: Option<String>,

    /// Where bytes are relayed to a model server that only this machine or pod reaches (in a pod 0.0.0.0:11882; port 0 = a
    /// free one) [default: none]
    #[arg(long, env = "MODELRING_RELAY", value_name = "ADDRESS")]
    relay: Option<Port>,

    /// A copy used more recently is not evicted for another [default: 10 x the learned load time, at least 1s]
    #[arg(long, env = "MODELRING_MIN_CHURN_AGE", value_name = "TIME")]
    min_churn_age: Option<Seconds>,

    /// Order of evictions
    #[arg(long, env = "MODELRING_EVICTION_POLICY", value_enum, default_value_t = Eviction::Gdsf, hide_env_values = true)]
    eviction_policy: Eviction,

    /// How long a copy may drain before it is unloaded, at least 3s
    #[arg(long, env = "MODELRING_DRAIN_TIMEOUT", default_value = "30s", value_name = "TIME")]
    drain_timeout: Seconds,

    /// How long this agent may serve on after it was asked to stop
    #[arg(long, env = "MODELRING_GRACE", default_value = "90s", value_name = "TIME")]
    grace: Seconds,

    /// Where /prestop holds the containers beside this one until the drain is over (in a pod 0.0.0.0:8090) [default: none]
    #[arg(long, env = "MODELRING_PRESTOP", value_name = "ADDRESS")]
    prestop: Option<Port>,

    #[command(flatten)]
    tls: Tls,

    #[command(flatten)]
    rim: Rim,

    #[command(flatten)]
    adapter: Adapter,
}

/// Order of evictions.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Eviction {
    /// By recency, load cost and size (Greedy-Dual-Size-Frequency)
    Gdsf,
    /// Least recently used, as ModelMesh
    Lru,
}

/// Serves until it is asked to stop.
pub(crate) async fn run(args: Args) -> Result<()> {
    let mut stop = Stop::listen()?;
    let options = Options::from_env()?;
    let mut running = Agent::start(Config {
        listen: args.listen,
        instance: args.instance,
        pod_uid: args.pod_uid,
        tls: args.tls.identity().await?,
        namespace: args.namespace,
        runtime: args.runtime,
        model_dir: args.model_dir,
        storage_config: args.storage_config,
        local_root: args.local_root,
        disk_limit: args.disk_limit.map(|limit| limit.0),
        server: args.adapter.server(args.server),
        management: args.management.unwrap_or_else(|| args.adapter.management(args.server)),
        data: args.data.unwrap_or_else(|| args.adapter.data(args.server)),
        data_direct: args.data_direct.filter(|address| !address.is_empty()),
        relay: rim::at(args.relay),
        min_churn_age: args.min_churn_age.map(|age| age.0),
        eviction: match args.eviction_policy {
            Eviction::Gdsf => pod::EvictionPolicy::Gdsf,
            Eviction::Lru => pod::EvictionPolicy::Lru,
        },
        drain_timeout: args.drain_timeout.0.max(Duration::from_secs(3)),
    })
    .await?;
    tracing::info!(address = %running.addr, instance = %running.instance_id, "agent is up");
    let _served = args.rim.serve(running.health().routes(), rim::metrics("agent", options, running.metrics())).await?;
    let prestop = Prestop::new();
    let _prestop = match rim::at(args.prestop) {
        // Twice the grace and a second, as ModelMesh.
        Some(address) => {
            let routes = prestop.routes((args.grace.0 + Duration::from_secs(1)) * 2);
            Some(Server::start(address, "prestop", "--prestop", routes).await?)
        }
        None => None,
    };
    tokio::select! {
        () = stop.asked() => {}
        error = running.ended() => return Err(error.into()),
    }
    let end = async {
        running.shutdown(args.grace.0).await;
        prestop.over().await;
    };
    stop.orderly(end).await
}
