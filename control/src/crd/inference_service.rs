//! InferenceService, v1beta1.

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What shall be served under the name of the object.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "serving.kserve.io",
    version = "v1beta1",
    kind = "InferenceService",
    plural = "inferenceservices",
    shortname = "isvc",
    namespaced,
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub struct InferenceServiceSpec {
    /// The model.
    pub predictor: ServicePredictor,
}

/// The model of an InferenceService: `model`, or one of the legacy framework fields.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServicePredictor {
    /// Percent of the calls that go to the newest model while the one before serves the rest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary_traffic_percent: Option<i64>,
    /// The current form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelSpec>,
    /// Legacy form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub xgboost: Option<FrameworkSpec>,
    /// Legacy form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lightgbm: Option<FrameworkSpec>,
    /// Legacy form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sklearn: Option<FrameworkSpec>,
    /// Legacy form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tensorflow: Option<FrameworkSpec>,
    /// Legacy form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub onnx: Option<FrameworkSpec>,
    /// Legacy form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pytorch: Option<FrameworkSpec>,
    /// Legacy form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub triton: Option<FrameworkSpec>,
    /// Legacy form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pmml: Option<FrameworkSpec>,
}

/// A model of a named format.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ModelSpec {
    /// Its format.
    pub model_format: ModelFormat,
    /// Explicit runtime; format, version and protocol are then not checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<String>,
    /// Limits the runtimes to those that list it; empty = no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol_version: Option<String>,
    /// Location as a URI.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_uri: Option<String>,
    /// Location as a storage key and a path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<StorageSpec>,
}

/// Name and version of a model format.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ModelFormat {
    /// E.g. `onnx`.
    pub name: String,
    /// Matched as an exact string.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// A legacy framework field: its name is the format.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FrameworkSpec {
    /// Limits the runtimes to those that list it; empty = no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol_version: Option<String>,
    /// Location as a URI.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_uri: Option<String>,
    /// Location as a storage key and a path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<StorageSpec>,
}

/// Where the model's files are.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StorageSpec {
    /// Entry of the storage Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Path in that storage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Path of a schema file in that storage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema_path: Option<String>,
    /// Overlays the entry of the Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters: Option<BTreeMap<String, String>>,
}

// === impl ServicePredictor ===

impl ServicePredictor {
    /// The first legacy framework that is set, in ModelMesh's order of precedence, with its format name.
    #[must_use]
    pub fn framework(&self) -> Option<(&'static str, &FrameworkSpec)> {
        [
            ("xgboost", &self.xgboost),
            ("lightgbm", &self.lightgbm),
            ("sklearn", &self.sklearn),
            ("tensorflow", &self.tensorflow),
            ("onnx", &self.onnx),
            ("pytorch", &self.pytorch),
            ("triton", &self.triton),
            ("pmml", &self.pmml),
        ]
        .into_iter()
        .find_map(|(name, spec)| spec.as_ref().map(|spec| (name, spec)))
    }
}
