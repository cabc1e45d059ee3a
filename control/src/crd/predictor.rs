//! Predictor, v1alpha1: the older way to say what is served, without KServe.

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ModelFormat;

/// What shall be served under the name of the object.
// Declaration order is the order of the JSON whose hash is in the model's id.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "serving.kserve.io",
    version = "v1alpha1",
    kind = "Predictor",
    plural = "predictors",
    namespaced,
    derive = "PartialEq",
    status = "PredictorStatus",
    printcolumn = r#"{"name":"Type","type":"string","jsonPath":".spec.modelType.name"}"#,
    printcolumn = r#"{"name":"Available","type":"boolean","jsonPath":".status.available"}"#,
    printcolumn = r#"{"name":"ActiveModel","type":"string","jsonPath":".status.activeModelState"}"#,
    printcolumn = r#"{"name":"TargetModel","type":"string","jsonPath":".status.targetModelState"}"#,
    printcolumn = r#"{"name":"Transition","type":"string","jsonPath":".status.transitionStatus"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct PredictorSpec {
    /// Ignored; a change makes another model.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub service_account_name: String,
    /// Its format.
    pub model_type: ModelFormat,
    /// Older form of `storage.path`.
    #[serde(default)]
    pub path: String,
    /// Older form of `storage.schemaPath`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema_path: Option<String>,
    /// Where the model's files are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<PredictorStorage>,
    /// Ignored; a change makes another model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<Gpu>,
    /// Explicit runtime; format, version and protocol are then not checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<PredictorRuntime>,
    /// Limits the runtimes to those that list it; empty = no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol_version: Option<String>,
}

/// Where the files of a Predictor's model are.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PredictorStorage {
    /// Path in that storage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Path of a schema file in that storage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema_path: Option<String>,
    /// Overlays the entry of the Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters: Option<BTreeMap<String, String>>,
    /// Entry of the storage Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Never served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistent_volume_claim: Option<PersistentVolumeClaim>,
    /// Older form of `key` and `parameters`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub s3: Option<S3Storage>,
}

/// A claim with the model's files. Named by older manifests, and refused.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PersistentVolumeClaim {
    /// Name of the claim.
    pub claim_name: String,
    /// Whether it is read only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_only: Option<bool>,
}

/// An entry of the storage Secret, and the bucket in place of its own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct S3Storage {
    /// Entry of the storage Secret.
    pub secret_key: String,
    /// Bucket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bucket: Option<String>,
}

/// Whether a model wants a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Gpu {
    /// It cannot be without.
    Required,
    /// It is better with one.
    Preferred,
}

/// The runtime that a Predictor names.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PredictorRuntime {
    /// Its name; empty = none is named.
    pub name: String,
}

/// How a Predictor stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PredictorStatus {
    /// Whether calls are answered, cold or warm.
    pub available: bool,
    /// `UpToDate`, `InProgress`, `BlockedByFailedLoad` or `InvalidSpec`.
    #[serde(default = "up_to_date")]
    pub transition_status: String,
    /// `Pending`, `Standby`, `Loading`, `Loaded` or `FailedToLoad`.
    #[serde(default = "pending")]
    pub active_model_state: String,
    /// The same of the model of a changed spec; empty without one.
    #[serde(default)]
    pub target_model_state: String,
    /// What is wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failure_info: Option<PredictorFailure>,
    /// Where it is called by REST.
    #[serde(default)]
    pub http_endpoint: String,
    /// Where it is called by gRPC.
    #[serde(default)]
    pub grpc_endpoint: String,
    /// Copies in any state, of both models.
    #[serde(default)]
    pub total_copies: u32,
    /// Copies that failed, of both models.
    #[serde(default)]
    pub failed_copies: u32,
}

/// What is wrong with a Predictor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PredictorFailure {
    /// Where a load failed.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub location: String,
    /// Why, in a word.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Why, in words.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Id of the model concerned.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub model_id: String,
    /// When, as RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
}

// === impl PredictorStatus ===

impl Default for PredictorStatus {
    /// As a new Predictor has it.
    fn default() -> Self {
        Self {
            available: false,
            transition_status: up_to_date(),
            active_model_state: pending(),
            target_model_state: String::new(),
            last_failure_info: None,
            http_endpoint: String::new(),
            grpc_endpoint: String::new(),
            total_copies: 0,
            failed_copies: 0,
        }
    }
}

fn up_to_date() -> String {
    "UpToDate".to_owned()
}

fn pending() -> String {
    "Pending".to_owned()
}
