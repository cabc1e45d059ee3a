//! The custom resources of group `serving.kserve.io`, as KServe and ModelMesh have them. Both sources of desired state
//! read these types. Fields that Modelring does not read are ignored, so any manifest that KServe takes is taken.

mod inference_service;
mod predictor;
mod runtime;

pub use inference_service::*;
pub use predictor::*;
pub use runtime::*;

/// Annotation that hands an InferenceService to Modelring (and handed it to ModelMesh).
pub const DEPLOYMENT_MODE: &str = "serving.kserve.io/deploymentMode";
/// The value of [`DEPLOYMENT_MODE`] that does.
pub const MODEL_MESH: &str = "ModelMesh";
/// Storage key where `storage.key` is not set.
pub const SECRET_KEY: &str = "serving.kserve.io/secretKey";
/// Schema path where `storage.schemaPath` is not set.
pub const SCHEMA_PATH: &str = "serving.kserve.io/schemaPath";
/// Explicit runtime, with the legacy framework form only.
pub const SERVING_RUNTIME: &str = "serving.kserve.io/servingRuntime";
/// Fewest copies of a model.
pub const MIN_COPIES: &str = "modelring.dev/min-copies";
/// Most copies of a model.
pub const MAX_COPIES: &str = "modelring.dev/max-copies";
/// How long a load of the model may take, e.g. `90s`.
pub const LOAD_TIMEOUT: &str = "modelring.dev/load-timeout";
