//! Names in a runtime pod: which are ours, and which a runtime may not take.

/// The container of ours.
pub const AGENT: &str = "mm-agent";
/// Volume of the model files.
pub(super) const MODELS: &str = "models-dir";
/// Volume of the storage Secret.
pub(super) const STORAGE: &str = "storage-config";
/// Volume of unix sockets that the server and the agent share.
pub(super) const SOCKETS: &str = "domain-socket";
/// Volume of the internal certificates.
pub(super) const TLS: &str = "mm-tls";
/// Secret of the internal certificates, which control writes into each namespace.
pub(super) const TLS_SECRET: &str = "modelring-internal-tls";
/// Port of `/prestop`.
pub(super) const PRESTOP_PORT: u16 = 8090;
/// Port of the probes.
pub(super) const PROBES_PORT: u16 = 8089;
/// Port of the agent's gRPC.
pub(super) const AGENT_PORT: u16 = 11881;
/// Port of the relay endpoint.
pub(super) const RELAY_PORT: u16 = 11882;

const CONTAINERS: [&str; 3] = ["mm", "rest-proxy", "puller"];
const VOLUMES: [&str; 4] = ["storage-config", "etcd-config", "tc-config", "domain-socket"];
const PORT_NAMES: [&str; 3] = ["grpc", "http", "prometheus"];
const PORTS: [u64; 4] = [8080, 8085, 8089, 8090];
const OUR_PORTS: std::ops::RangeInclusive<u64> = 11_881..=11_899;
/// What begins so is ours.
const OURS: &str = "mm-";

/// Name of a runtime's Deployment.
#[must_use]
pub fn deployment_name(service: &str, runtime: &str) -> String {
    format!("{service}-{runtime}")
}

pub(super) fn container_is_reserved(name: &str) -> bool {
    CONTAINERS.contains(&name) || name.starts_with(OURS)
}

/// Whether a container may not mount a volume of this name. `models-dir` it may.
pub(super) fn mount_is_reserved(name: &str) -> bool {
    VOLUMES.contains(&name) || name.starts_with(OURS)
}

pub(super) fn volume_is_reserved(name: &str) -> bool {
    mount_is_reserved(name) || name == MODELS
}

pub(super) fn port_name_is_reserved(name: &str) -> bool {
    PORT_NAMES.contains(&name) || name.starts_with(OURS)
}

pub(super) fn port_is_reserved(port: u64) -> bool {
    PORTS.contains(&port) || OUR_PORTS.contains(&port)
}
