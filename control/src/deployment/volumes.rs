//! The volumes of a runtime pod.

use serde_json::{Value, json};

use super::{
    PodSettings, Runtime,
    endpoint::Endpoints,
    names::{MODELS, SOCKETS, STORAGE, TLS, TLS_SECRET},
    quantity,
};

/// The runtime's volumes first, then ours.
pub(super) fn volumes(
    runtime: &Runtime<'_>,
    settings: &PodSettings,
    endpoints: &Endpoints,
    claims: &[String],
) -> Vec<Value> {
    let spec = runtime.spec;
    let mut volumes = spec.volumes.clone();
    volumes.push(json!({"name": MODELS, "emptyDir": {"sizeLimit": quantity::show(models_limit(&spec.containers))}}));
    if endpoints.folder().is_some() {
        volumes.push(json!({"name": SOCKETS, "emptyDir": {}}));
    }
    if pulls(runtime) {
        // Optional: who uses claims or public storage alone needs no Secret.
        volumes.push(json!({"name": STORAGE, "secret": {"secretName": settings.storage_secret, "optional": true}}));
    }
    volumes.extend(
        claims
            .iter()
            .map(|claim| json!({"name": claim, "persistentVolumeClaim": {"claimName": claim, "readOnly": true}})),
    );
    // Of the certificates the agent gets its own, not the proxies'.
    let items: Vec<Value> = [("ca.crt", "ca.crt"), ("agent.crt", "tls.crt"), ("agent.key", "tls.key")]
        .map(|(key, path)| json!({"key": key, "path": path}))
        .into();
    volumes.push(json!({"name": TLS, "secret": {"secretName": TLS_SECRET, "items": items}}));
    volumes
}

/// Whether models are brought to the pod: not where a custom runtime fetches them by itself.
pub(super) fn pulls(runtime: &Runtime<'_>) -> bool {
    let disabled = runtime.spec.storage_helper.as_ref().is_some_and(|helper| helper.disabled);
    runtime.spec.built_in_adapter.is_some() || !disabled
}

/// One and a half times the memory of the servers: files of loaded models and of some that were loaded.
fn models_limit(containers: &[Value]) -> u64 {
    let limits = containers.iter().filter_map(|container| match &container["resources"]["limits"]["memory"] {
        Value::String(text) => quantity::bytes(text),
        Value::Number(number) => number.as_u64(),
        _ => None,
    });
    let sum = limits.fold(0_u64, u64::saturating_add);
    sum.saturating_add(sum / 2)
}
