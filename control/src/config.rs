//! Settings of control.

use std::{net::SocketAddr, path::PathBuf};

use modelring_process::tls::Identity;

use crate::{dataplane, source::InstanceSpec};

/// Settings of one control process with the folder source.
#[derive(Clone, Debug)]
pub struct Config {
    /// The folder of manifests.
    pub dir: PathBuf,
    /// Where the Routes service is served; port 0 = a free one. Loopback, unless mTLS is configured.
    pub listen: SocketAddr,
    /// Who this process is to others; `None` = plaintext, and agents on loopback only.
    pub tls: Option<Identity>,
    /// Namespace that the folder stands for, in messages and ids of certificates; objects of another one are errors.
    pub namespace: String,
    /// Agents beside those of `instances.yaml`, by address (`modelring up` adds its own).
    pub instances: Vec<(String, InstanceSpec)>,
    /// ServingRuntimes that the binary brings where the folder has none of that name, as YAML.
    pub built_in_runtimes: Vec<String>,
    /// Which RPCs callers may use, and where their messages carry the id.
    pub dataplane: dataplane::Source,
}
