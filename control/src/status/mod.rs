//! The status of an InferenceService: a pure function of what control sees of its models.
//!
//! States, transitions, reasons and messages are ModelMesh's, which users' tools read. Three things are better: a condition
//! keeps the time of its last change, what others wrote into the status stays, and an available model that stops being so is
//! written.

mod conditions;
mod derive;

pub use conditions::{Condition, conditions};
pub use derive::derive;

/// What control sees of a stable name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seen {
    /// The model that answers; `None` while there is none yet.
    pub active: Option<ModelSeen>,
    /// The model that shall answer, while a change is on.
    pub target: Option<ModelSeen>,
    /// Whether the change has failed.
    pub blocked: bool,
    /// Why the spec is no model, if it is none.
    pub invalid: Option<String>,
}

/// What control sees of a model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModelSeen {
    /// Its id.
    pub id: String,
    /// Copies by state.
    pub copies: Copies,
    /// The newest failure, while a copy is in that state.
    pub failure: Option<Failure>,
    /// What may serve it.
    pub class: Class,
}

/// Copies of a model by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copies {
    /// QUEUED and LOADING.
    pub loading: u32,
    /// READY.
    pub ready: u32,
    /// FAILED.
    pub failed: u32,
}

/// What may serve a model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Class {
    /// An instance of a runtime that takes it is there.
    #[default]
    Served,
    /// A runtime takes it; no pod of it is there yet.
    Waiting,
    /// The spec names a runtime that there is not.
    NotRecognized,
    /// No runtime takes its format and protocol.
    NotSupported,
}

/// A failed load.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failure {
    /// Last 12 characters of the pod's name.
    pub location: String,
    /// What the server or the storage said.
    pub message: String,
    /// When, as RFC 3339.
    pub time: String,
}

/// State of a model, in the words of the status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Control has not looked at it yet.
    Pending,
    /// In no memory; the next call loads it.
    Standby,
    /// On its way, or waiting for a pod.
    Loading,
    /// Some copy is ready.
    Loaded,
    /// No copy is ready, and one has failed.
    FailedToLoad,
}

/// Where a change stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transition {
    /// There is no change.
    UpToDate,
    /// The target is on its way.
    InProgress,
    /// The target failed; the active model answers.
    BlockedByFailedLoad,
    /// The spec is no model.
    InvalidSpec,
}

/// Why a model is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A load failed.
    ModelLoadFailed,
    /// No pod of a runtime that takes it is there.
    RuntimeUnhealthy,
    /// The spec names a runtime that there is not.
    RuntimeNotRecognized,
    /// No runtime takes its format and protocol.
    NoSupportingRuntime,
    /// The spec is no model.
    InvalidPredictorSpec,
}

/// What is written.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// Of the model that answers.
    pub active: State,
    /// Of the model that shall answer.
    pub target: Option<State>,
    /// Where the change stands.
    pub transition: Transition,
    /// What is wrong.
    pub failure: Option<FailureInfo>,
    /// Copies that failed, of both models.
    pub failed_copies: u32,
    /// Copies in any state, of both models.
    pub total_copies: u32,
    /// Whether calls are answered, cold or warm.
    pub available: bool,
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailureInfo {
    /// Why.
    pub reason: Reason,
    /// In words.
    pub message: String,
    /// Where, for a failed load.
    pub location: String,
    /// Id of the model concerned.
    pub model: String,
    /// When, as RFC 3339; empty = since when is not known.
    pub time: String,
}

// === impl State ===

impl State {
    /// As the status has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Standby => "Standby",
            Self::Loading => "Loading",
            Self::Loaded => "Loaded",
            Self::FailedToLoad => "FailedToLoad",
        }
    }
}

// === impl Transition ===

impl Transition {
    /// As the status has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::UpToDate => "UpToDate",
            Self::InProgress => "InProgress",
            Self::BlockedByFailedLoad => "BlockedByFailedLoad",
            Self::InvalidSpec => "InvalidSpec",
        }
    }
}

// === impl Reason ===

impl Reason {
    /// As the status has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ModelLoadFailed => "ModelLoadFailed",
            Self::RuntimeUnhealthy => "RuntimeUnhealthy",
            Self::RuntimeNotRecognized => "RuntimeNotRecognized",
            Self::NoSupportingRuntime => "NoSupportingRuntime",
            Self::InvalidPredictorSpec => "InvalidPredictorSpec",
        }
    }
}
