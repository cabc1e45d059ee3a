//! ServingRuntime and ClusterServingRuntime, v1alpha1: one spec, two scopes. Parts that only go into a pod template are
//! kept as they are.

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A kind of model server, in its own namespace.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "serving.kserve.io",
    version = "v1alpha1",
    kind = "ServingRuntime",
    plural = "servingruntimes",
    namespaced,
    derive = "PartialEq"
)]
#[serde(transparent)]
pub struct ServingRuntimeSpec(pub RuntimeSpec);

/// A kind of model server, for all namespaces.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "serving.kserve.io",
    version = "v1alpha1",
    kind = "ClusterServingRuntime",
    plural = "clusterservingruntimes",
    derive = "PartialEq"
)]
#[serde(transparent)]
pub struct ClusterServingRuntimeSpec(pub RuntimeSpec);

/// A kind of model server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RuntimeSpec {
    /// What it can load.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub supported_model_formats: Vec<SupportedModelFormat>,
    /// Must be true to be used by Modelring.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub multi_model: Option<bool>,
    /// Takes it out of use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disabled: Option<bool>,
    /// `v1`, `v2`, `grpc-v1`, `grpc-v2`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub protocol_versions: Vec<String>,
    /// Containers of the pod.
    #[schemars(schema_with = "preserved_list")]
    pub containers: Vec<Value>,
    /// Volumes of the pod.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "preserved_list")]
    pub volumes: Vec<Value>,
    /// Node selector of the pod.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// Tolerations of the pod.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "preserved_list")]
    pub tolerations: Vec<Value>,
    /// Affinity of the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "preserved")]
    pub affinity: Option<Value>,
    /// Labels of the pod.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations of the pod.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Pull secrets of the pod.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "preserved_list")]
    pub image_pull_secrets: Vec<Value>,
    /// Management endpoint (`mmesh.ModelRuntime`), `port:<n>` or `unix:<path>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc_endpoint: Option<String>,
    /// Inference endpoint, same forms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc_data_endpoint: Option<String>,
    /// Read and ignored, as ModelMesh did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_data_endpoint: Option<String>,
    /// Pods; absent = `podsPerRuntime`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<u16>,
    /// How models reach the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_helper: Option<StorageHelper>,
    /// A model server that Modelring knows by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub built_in_adapter: Option<BuiltInAdapter>,
}

/// A model format that a runtime can load.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SupportedModelFormat {
    /// E.g. `onnx`.
    pub name: String,
    /// Matched as an exact string.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Only true makes models of this format come here unasked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auto_select: Option<bool>,
    /// Read and ignored, as ModelMesh did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<i32>,
}

/// How models reach the pod.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StorageHelper {
    /// The runtime fetches models by itself.
    #[serde(default)]
    pub disabled: bool,
}

/// A model server that Modelring knows by itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BuiltInAdapter {
    /// `triton`, `mlserver`, `ovms`, `torchserve`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_type: Option<String>,
    /// Port of its management API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime_management_port: Option<u16>,
    /// Bytes of the container's memory that are no models.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mem_buffer_bytes: Option<u64>,
    /// How long a load may take, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_loading_timeout_millis: Option<u64>,
    /// Environment of the adapter.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "preserved_list")]
    pub env: Vec<Value>,
}

// === impl RuntimeSpec ===

impl RuntimeSpec {
    /// Whether models may be placed on it.
    #[must_use]
    pub fn takes_models(&self) -> bool {
        self.multi_model == Some(true) && self.disabled != Some(true)
    }
}

fn preserved(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

fn preserved_list(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "array", "items": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}})
}
