//! Where the desired state comes from: the Kubernetes API, or a folder of the same manifests.

use std::{collections::BTreeMap, future::Future, pin::Pin, sync::Arc};

use tokio::sync::mpsc;

use crate::crd::{ClusterServingRuntime, InferenceService, Predictor, ServingRuntime};

/// The whole desired state of one namespace, as a source has last read it. Values are shared: an unchanged object of
/// the next state is the same `Arc`.
#[derive(Clone, Debug, Default)]
pub struct Desired {
    /// InferenceServices with the ModelMesh annotation, by name.
    pub inference_services: BTreeMap<String, Arc<InferenceService>>,
    /// Predictors by name.
    pub predictors: BTreeMap<String, Arc<Predictor>>,
    /// ServingRuntimes by name.
    pub runtimes: BTreeMap<String, Arc<ServingRuntime>>,
    /// ClusterServingRuntimes by name; a ServingRuntime of the same name hides one.
    pub cluster_runtimes: BTreeMap<String, Arc<ClusterServingRuntime>>,
    /// Entries of ConfigMap `model-serving-config` (the `config.yaml` document), empty if there is none.
    pub config: Option<String>,
    /// Agents to dial, by address.
    pub instances: BTreeMap<String, InstanceSpec>,
    /// Counts the changes of the storage Secret: what failed or found no place may be tried again.
    pub storage_changes: u64,
    /// Something could not be read that was not read before either: what is missing may be in it, and is no removal.
    pub incomplete: bool,
    /// The source cannot be believed: this is its last state.
    pub frozen: bool,
    /// What could not be read; the objects concerned keep their last good state.
    pub notices: Vec<Notice>,
}

/// An agent to dial.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InstanceSpec {
    /// Name of the runtime that the pod runs.
    pub runtime: String,
    /// Node, if known.
    pub node: String,
    /// Zone, if known.
    pub zone: String,
}

/// Something wrong in the desired state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// What it is about: `file:line`, or `kind/name`.
    pub subject: String,
    /// What is wrong and what to do.
    pub text: String,
}

/// A source of desired state.
pub trait Source: Send + 'static {
    /// Sends the first complete state, and then each changed one, until the receiver is dropped or the source can never
    /// work. Between two states the receiver keeps the last one.
    fn run(
        self: Box<Self>,
        states: mpsc::Sender<Desired>,
    ) -> Pin<Box<dyn Future<Output = Result<(), crate::Error>> + Send>>;
    /// Keeps what a changed spec no longer says: the active model of a vmodel and, while a change is on, the one before.
    fn memory(&self) -> Arc<dyn ActiveMemory>;
}

/// Keeps the active model of each vmodel over a restart of control (annotation `modelring.dev/active`; in a folder
/// `DIR/.modelring/active/<name>.json`).
pub trait ActiveMemory: Send + Sync {
    /// All records, read at start.
    fn read(&self) -> Result<BTreeMap<String, ActiveRecord>, crate::Error>;
    /// Writes one record; called before the table changes. Compare-and-swap: where a control of a higher epoch than the
    /// record's has taken over nothing is written ([`crate::Error::Superseded`]). `replaces`: there is a record already, and
    /// losing this one to a crash of the machine would bring back what it replaces.
    fn write(&self, name: &str, record: &ActiveRecord, replaces: bool) -> Result<(), crate::Error>;
    /// Removes the record of a vmodel that is no more.
    fn remove(&self, name: &str) -> Result<(), crate::Error>;
    /// The last epoch taken, 0 if none.
    fn epoch(&self) -> Result<u64, crate::Error>;
    /// Takes the next epoch by compare-and-swap: higher than the last one taken and than `above`.
    fn next_epoch(&self, above: u64) -> Result<u64, crate::Error>;
}

/// What is kept of a vmodel.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ActiveRecord {
    /// The model that serves.
    pub active: KeptModel,
    /// While a change is on: the one before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<KeptModel>,
    /// Id of the model for which room was made in vain: it is not tried again until the spec or the Secret changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tried: Option<String>,
    /// Epoch of the control that wrote it.
    pub epoch: u64,
}

/// A model as it is kept: enough to load it when its spec is gone.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct KeptModel {
    /// Its id.
    pub id: String,
    /// Its type string.
    #[serde(rename = "type")]
    pub model_type: String,
    /// Its path.
    pub path: String,
    /// Its key JSON.
    pub key: String,
}
