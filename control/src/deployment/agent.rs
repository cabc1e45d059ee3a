//! The container of ours: the agent.

use serde_json::{Value, json};

use super::{
    AGENT, PodSettings, Runtime,
    endpoint::{Endpoint, Endpoints},
    names::{AGENT_PORT, PRESTOP_PORT, PROBES_PORT, RELAY_PORT, STORAGE, TLS},
    servers::{model_mounts, socket_mount},
    volumes::pulls,
};
use crate::crd::BuiltInAdapter;

/// Where the certificates are mounted.
const TLS_DIR: &str = "/etc/modelring/tls";
/// Where the entries of the storage Secret are mounted.
const STORAGE_DIR: &str = "/storage-config";

/// The container `mm-agent`.
pub(super) fn container(
    runtime: &Runtime<'_>,
    settings: &PodSettings,
    endpoints: &Endpoints,
    claims: &[String],
) -> Value {
    let mut ports = vec![
        json!({"name": "mm-grpc", "containerPort": AGENT_PORT}),
        json!({"name": "mm-relay", "containerPort": RELAY_PORT}),
        json!({"name": "mm-probes", "containerPort": PROBES_PORT}),
    ];
    if let Some(metrics) = &settings.metrics {
        ports.push(json!({"name": "prometheus", "containerPort": metrics.port}));
    }
    let mut mounts = model_mounts(claims);
    if pulls(runtime) {
        mounts.push(json!({"name": STORAGE, "mountPath": STORAGE_DIR, "readOnly": true}));
    }
    mounts.extend(socket_mount(endpoints));
    mounts.push(json!({"name": TLS, "mountPath": TLS_DIR, "readOnly": true}));
    json!({
        "name": AGENT,
        "image": settings.image,
        "args": ["agent"],
        "env": environment(runtime, settings, endpoints),
        "ports": ports,
        "resources": settings.resources,
        "volumeMounts": mounts,
        "readinessProbe": probe("/ready", 5, 1, 3, 0),
        "livenessProbe": probe("/live", 30, 5, 2, 90),
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": true,
            "runAsNonRoot": true,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
    })
}

fn probe(path: &str, period: u32, timeout: u32, failures: u32, delay: u32) -> Value {
    let mut probe = json!({
        "httpGet": {"path": path, "port": PROBES_PORT},
        "periodSeconds": period,
        "timeoutSeconds": timeout,
        "failureThreshold": failures,
    });
    if delay > 0 {
        probe["initialDelaySeconds"] = delay.into();
    }
    probe
}

/// In this order: facts of the pod, where everybody listens, the settings, the adapter's own variables.
fn environment(runtime: &Runtime<'_>, settings: &PodSettings, endpoints: &Endpoints) -> Vec<Value> {
    let mut env = vec![
        field("POD_NAME", "metadata.name"),
        field("POD_UID", "metadata.uid"),
        field("POD_IP", "status.podIP"),
        field("NODE_NAME", "spec.nodeName"),
        plain("NAMESPACE", runtime.namespace),
        plain("MODELRING_RUNTIME", runtime.name),
        plain("MODELRING_LISTEN", format!("[::]:{AGENT_PORT}")),
        plain("MODELRING_RELAY", format!("[::]:{RELAY_PORT}")),
        plain("MODELRING_PROBES", format!("[::]:{PROBES_PORT}")),
        plain("MODELRING_PRESTOP", format!("[::]:{PRESTOP_PORT}")),
        plain("MODELRING_TLS_CERT", format!("{TLS_DIR}/tls.crt")),
        plain("MODELRING_TLS_KEY", format!("{TLS_DIR}/tls.key")),
        plain("MODELRING_TLS_CA", format!("{TLS_DIR}/ca.crt")),
        plain("MODELRING_DATA", address(&endpoints.data)),
    ];
    if let Some(metrics) = &settings.metrics {
        env.push(plain("MODELRING_METRICS", format!("[::]:{}", metrics.port)));
    }
    if pulls(runtime) {
        env.push(plain("MODELRING_STORAGE_CONFIG", STORAGE_DIR));
    }
    env.extend(settings.environment.iter().map(|(name, value)| plain(name, value)));
    match &runtime.spec.built_in_adapter {
        Some(adapter) => built_in(&mut env, runtime, adapter),
        None => {
            let management = endpoints.management.as_ref().unwrap_or(&endpoints.data);
            let url = match management {
                Endpoint::Port(port) => format!("http://127.0.0.1:{port}"),
                Endpoint::Unix { path, .. } => format!("unix:{path}"),
            };
            env.extend([plain("MODELRING_SERVER", "custom"), plain("MODELRING_MANAGEMENT", url)]);
        }
    }
    env
}

/// The variables that ModelMesh's adapters read, by the same names.
fn built_in(env: &mut Vec<Value>, runtime: &Runtime<'_>, adapter: &BuiltInAdapter) {
    let server = adapter.server_type.as_deref().unwrap_or_default();
    let container = runtime.spec.containers.iter().find(|container| container["name"] == server);
    let version = container.and_then(|container| container["image"].as_str()).map(tag).unwrap_or_default();
    env.extend([
        plain("MODELRING_SERVER", server),
        plain("RUNTIME_PORT", adapter.runtime_management_port.unwrap_or_default().to_string()),
        json!({
            "name": "CONTAINER_MEM_REQ_BYTES",
            "valueFrom": {"resourceFieldRef": {"containerName": server, "resource": "requests.memory"}},
        }),
        plain("MEM_BUFFER_BYTES", adapter.mem_buffer_bytes.unwrap_or_default().to_string()),
        plain("LOADTIME_TIMEOUT", adapter.model_loading_timeout_millis.unwrap_or_default().to_string()),
        plain("RUNTIME_VERSION", version),
    ]);
    let annotations =
        [("LOADING_CONCURRENCY", "maxLoadingConcurrency"), ("LIMIT_PER_MODEL_CONCURRENCY", "perModelConcurrencyLimit")];
    for (variable, annotation) in annotations {
        if let Some(value) = runtime.annotations.get(annotation) {
            env.push(plain(variable, value));
        }
    }
    for own in adapter.env.iter().filter(|own| own["name"].is_string()) {
        match env.iter_mut().find(|there| there["name"] == own["name"]) {
            Some(there) => *there = own.clone(),
            None => env.push(own.clone()),
        }
    }
}

/// The tag of an image: not the port of its registry, not its digest. Empty if it has none.
fn tag(image: &str) -> &str {
    let without_digest = image.split_once('@').map_or(image, |(image, _)| image);
    let last = without_digest.rsplit('/').next().unwrap_or_default();
    last.split_once(':').map_or("", |(_, tag)| tag)
}

fn address(endpoint: &Endpoint) -> String {
    match endpoint {
        Endpoint::Port(port) => format!("127.0.0.1:{port}"),
        Endpoint::Unix { path, .. } => format!("unix:{path}"),
    }
}

fn plain(name: &str, value: impl Into<String>) -> Value {
    json!({"name": name, "value": value.into()})
}

fn field(name: &str, path: &str) -> Value {
    json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}})
}

#[cfg(test)]
mod tests {
    use super::tag;

    #[test]
    fn a_version_is_the_tag_and_neither_port_nor_digest() {
        assert_eq!(tag("registry.local:5000/seldonio/mlserver:1.7.1"), "1.7.1");
        assert_eq!(tag("registry.local:5000/seldonio/mlserver"), "");
        assert_eq!(tag("mlserver:1.7.1@sha256:abc"), "1.7.1");
        assert_eq!(tag("mlserver@sha256:abc"), "");
        assert_eq!(tag(""), "");
    }
}
