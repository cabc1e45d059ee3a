//! Settings of the agent.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use modelring_placement::pod::EvictionPolicy;
use modelring_process::tls::Identity;

use crate::adapter;

/// Settings of one agent process.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the agent's gRPC is served; port 0 = a free one. Loopback, unless mTLS is configured.
    pub listen: SocketAddr,
    /// Who this process is to others; `None` = plaintext on loopback.
    pub tls: Option<Identity>,
    /// Instance id; `None` = made at random once and kept in the model directory.
    pub instance: Option<String>,
    /// Uid of the pod; `None` = made at random once and kept in the model directory.
    pub pod_uid: Option<String>,
    /// Namespace.
    pub namespace: String,
    /// Name of the runtime.
    pub runtime: String,
    /// Where model files are put: `<model_dir>/<model id>/<file>`.
    pub model_dir: PathBuf,
    /// Folder of storage-config entries, one file a key, re-read per load.
    pub storage_config: Option<PathBuf>,
    /// Root that `local` entries are relative to; `None` = `local` is an unknown type.
    pub local_root: Option<PathBuf>,
    /// Most bytes of model files in the model directory, of loaded and of unloaded models together (`agent.diskLimit`);
    /// `None` = 80 % of the volume.
    pub disk_limit: Option<u64>,
    /// What kind of model server it is.
    pub server: ServerKind,
    /// Management endpoint of the model server: `http://host:port`, `port:<n>` or `unix:/path`.
    pub management: String,
    /// Where the model server serves inference, as this process reaches it: `host:port` or `unix:/path`.
    pub data: String,
    /// Where proxies reach the model server themselves: `host:port`, on no particular host (`0.0.0.0:port`) = on that of the
    /// agent, `none` = nowhere; `None` = at `data`, unless only this pod reaches that.
    pub data_direct: Option<String>,
    /// Where the relay endpoint listens for proxies that cannot; port 0 = a free one. Loopback, unless mTLS is configured.
    pub relay: Option<SocketAddr>,
    /// A copy used more recently is not evicted for another (`agent.minChurnAge`); `None` = learned.
    pub min_churn_age: Option<Duration>,
    /// Order of evictions (`agent.evictionPolicy`).
    pub eviction: EvictionPolicy,
    /// How long a drain may take (`agent.drainTimeout`), at least 3 s; default 30 s.
    pub drain_timeout: Duration,
}

/// Kinds of model servers.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum ServerKind {
    /// It implements `mmesh.ModelRuntime`.
    #[default]
    Custom,
    /// MLServer, by its repository API.
    MlServer(adapter::Settings),
}
