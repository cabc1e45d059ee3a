//! What a runtime may not be: rules and texts of ModelMesh's controller, checked in its order (adapter, containers,
//! volumes). Some are in the CRD's schema as well; this is for objects that were there before it.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    PodSettings, Runtime,
    endpoint::{Endpoint, Endpoints},
    names::{container_is_reserved, mount_is_reserved, port_is_reserved, port_name_is_reserved, volume_is_reserved},
};
use crate::crd::BuiltInAdapter;

/// Why no pod can be made of a runtime.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Invalid runtime Spec: {0}")]
pub struct Invalid(String);

/// Where the adapter of a server that the agent knows used to listen.
const ADAPTER_PORT: u16 = 8085;

// === impl Invalid ===

impl Invalid {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

/// Checks all rules, and reads the endpoints on the way.
pub(super) fn check(runtime: &Runtime<'_>, settings: &PodSettings) -> Result<Endpoints, Invalid> {
    let spec = runtime.spec;
    if let Some(adapter) = &spec.built_in_adapter {
        check_adapter(adapter, &spec.containers, &settings.server_types)?;
    }
    if spec.containers.is_empty() {
        return Err(Invalid::new("containers is empty; at least the model server must be there"));
    }
    let mut names = BTreeSet::new();
    for container in &spec.containers {
        let name = container["name"].as_str().unwrap_or_default();
        check_container(container, name)
            .map_err(|why| Invalid::new(format!("container spec for {name} is invalid: {why}")))?;
        if !names.insert(name) {
            return Err(Invalid::new(format!("container spec for {name} is invalid: its name is there twice")));
        }
    }
    for volume in &spec.volumes {
        let name = volume["name"].as_str().unwrap_or_default();
        if volume_is_reserved(name) {
            return Err(Invalid::new(format!("volume name {name} is reserved")));
        }
    }
    endpoints(runtime)
}

fn check_adapter(adapter: &BuiltInAdapter, containers: &[Value], known: &[String]) -> Result<(), Invalid> {
    let server = adapter.server_type.as_deref().unwrap_or_default();
    if !known.iter().any(|known| known == server) {
        return Err(Invalid::new(format!("unrecognized built-in runtime server type {server}")));
    }
    if !containers.iter().any(|container| container["name"] == server) {
        return Err(Invalid::new(format!("must include runtime container with name {server}")));
    }
    Ok(())
}

fn check_container(container: &Value, name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("it has no name".to_owned());
    }
    if container_is_reserved(name) {
        return Err(format!("container name {name} is reserved"));
    }
    if let Some(field) = ["readinessProbe", "lifecycle"].into_iter().find(|field| !container[*field].is_null()) {
        return Err(format!("{field} is set by Modelring and cannot be given"));
    }
    for mount in entries(&container["volumeMounts"]) {
        let volume = mount["name"].as_str().unwrap_or_default();
        if mount_is_reserved(volume) {
            return Err(format!("volume name {volume} is reserved and cannot be mounted"));
        }
    }
    for port in entries(&container["ports"]) {
        let name = port["name"].as_str().unwrap_or_default();
        if port_name_is_reserved(name) {
            return Err(format!("port name {name} is reserved"));
        }
        if let Some(number) = port["containerPort"].as_u64().filter(|number| port_is_reserved(*number)) {
            return Err(format!("port {number} is reserved"));
        }
    }
    Ok(())
}

fn endpoints(runtime: &Runtime<'_>) -> Result<Endpoints, Invalid> {
    let spec = runtime.spec;
    let management = spec.grpc_endpoint.as_deref().map(|text| Endpoint::read("grpcEndpoint", text)).transpose()?;
    let management = match (management, &spec.built_in_adapter) {
        (Some(Endpoint::Unix { .. }), Some(_)) => {
            return Err(Invalid::new("grpcEndpoint must be port:<number> where there is a builtInAdapter"));
        }
        (None, Some(_)) => Some(Endpoint::Port(ADAPTER_PORT)),
        (None, None) => {
            let text = "grpcEndpoint is not set; without builtInAdapter it must say where the runtime serves mmesh.ModelRuntime";
            return Err(Invalid::new(text));
        }
        (given, _) => given,
    };
    let data = match (&spec.grpc_data_endpoint, &spec.built_in_adapter) {
        (Some(text), _) => Endpoint::read("grpcDataEndpoint", text)?,
        (None, Some(adapter)) => match adapter.runtime_management_port {
            Some(port) if port > 0 => Endpoint::Port(port),
            _ => return Err(Invalid::new("neither grpcDataEndpoint nor builtInAdapter.runtimeManagementPort is set")),
        },
        (None, None) => management.clone().expect("a custom runtime without management endpoint was refused"),
    };
    if let (Some(Some(one)), Some(other)) = (management.as_ref().map(Endpoint::folder), data.folder())
        && one != other
    {
        return Err(Invalid::new("Only one unix domain socket path is allowed"));
    }
    Ok(Endpoints { management, data })
}

fn entries(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}
