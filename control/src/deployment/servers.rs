//! The runtime's own containers: as they are written, with what the pod adds.

use serde_json::{Value, json};

use super::{
    endpoint::Endpoints,
    names::{MODELS, PRESTOP_PORT, SOCKETS},
};
use crate::crd::RuntimeSpec;

/// The containers of the runtime.
pub(super) fn containers(spec: &RuntimeSpec, endpoints: &Endpoints, claims: &[String]) -> Vec<Value> {
    spec.containers.iter().map(|container| with_additions(container, endpoints, claims)).collect()
}

/// The files of models, and the claims, as server and agent both see them.
pub(super) fn model_mounts(claims: &[String]) -> Vec<Value> {
    let mut mounts = vec![json!({"name": MODELS, "mountPath": "/models"})];
    mounts.extend(
        claims
            .iter()
            .map(|claim| json!({"name": claim, "mountPath": format!("/pvc_mounts/{claim}"), "readOnly": true})),
    );
    mounts
}

/// The folder of sockets, if there is one.
pub(super) fn socket_mount(endpoints: &Endpoints) -> Option<Value> {
    endpoints.folder().map(|folder| json!({"name": SOCKETS, "mountPath": folder}))
}

fn with_additions(container: &Value, endpoints: &Endpoints, claims: &[String]) -> Value {
    let mut container = container.clone();
    if container["securityContext"].is_null() {
        container["securityContext"] = json!({"capabilities": {"drop": ["ALL"]}});
    }
    // A mount of `models-dir` elsewhere is the runtime's wish; ours is there all the same.
    let mut mounts = model_mounts(claims);
    mounts.extend(container["volumeMounts"].as_array().cloned().unwrap_or_default());
    mounts.extend(socket_mount(endpoints));
    container["volumeMounts"] = mounts.into();
    // The server stays up until the agent has handed over.
    container["lifecycle"] = json!({"preStop": {"httpGet": {"path": "/prestop", "port": PRESTOP_PORT}}});
    container
}
