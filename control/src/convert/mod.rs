//! An InferenceService or a Predictor, turned into the model that serves it: the same id, type string, path and key JSON
//! that ModelMesh's controller would have made of it.

mod duration;
mod id;
mod predictor;
mod storage;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, time::Duration};

pub use duration::parse_duration;
pub use id::Kind;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
pub use predictor::convert_predictor;

use crate::{
    convert::storage::Location,
    crd::{self, InferenceService, ModelFormat},
    source::KeptModel,
};

/// What an InferenceService asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Converted {
    /// The model that shall serve it.
    pub model: KeptModel,
    /// Fewest copies.
    pub min_copies: u32,
    /// Most copies, `None` = no limit.
    pub max_copies: Option<u32>,
    /// How long a load may take, `None` = as the runtime says.
    pub load_timeout: Option<Duration>,
    /// Percent of the calls that go to a changed model while the one before stays; `None` = the change goes through.
    pub canary: Option<u32>,
}

/// What annotations of ours ask for.
struct Asked {
    min_copies: u32,
    max_copies: Option<u32>,
    load_timeout: Option<Duration>,
}

/// Why an InferenceService or a Predictor cannot be served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConvertError {
    /// Two forms at once.
    #[error("has both spec.predictor.model and spec.predictor.{0}: set one of them")]
    ModelAndFramework(&'static str),
    /// The annotation belongs to the legacy form.
    #[error("has both spec.predictor.model and annotation {annotation}: set spec.predictor.model.runtime instead", annotation = crd::SERVING_RUNTIME)]
    ModelAndAnnotation,
    /// No form.
    #[error(
        "has neither spec.predictor.model nor a known framework (xgboost, lightgbm, sklearn, tensorflow, onnx, pytorch, triton, pmml)"
    )]
    NoModel,
    /// No location.
    #[error("must have either the storageUri or the storage.path")]
    NoLocation,
    /// Two locations.
    #[error("cannot have both: the storageUri and the storage.path")]
    BothLocations,
    /// Two locations of a Predictor.
    #[error("Only one of spec.path and spec.storage.path can be specified")]
    BothPaths,
    /// Two schemas of a Predictor.
    #[error("Only one of spec.schemaPath and spec.storage.schemaPath can be specified")]
    BothSchemaPaths,
    /// A claim as the storage of a Predictor.
    #[error("spec.storage.PersistentVolumeClaim is not supported")]
    PersistentVolumeClaim,
    /// Two forms of the storage of a Predictor.
    #[error("spec.storage.s3 cannot be specified with any other keys in spec.storage")]
    S3AndOthers,
    /// Another kind of object has the name.
    #[error("{holder} already exists with the same name from a different source", holder = .0.name())]
    OtherSource(Kind),
    /// A scheme that is no storage.
    #[error("unsupported storageUri scheme `{0}`: use s3, gs, pvc, http or https")]
    Scheme(String),
    /// No URI.
    #[error("storageUri `{uri}` cannot be parsed: {text}")]
    Uri {
        /// The URI.
        uri: String,
        /// What is wrong.
        text: &'static str,
    },
    /// An annotation of ours has a value that means nothing.
    #[error("annotation {name}: `{value}` is not {expected}")]
    Annotation {
        /// The annotation.
        name: &'static str,
        /// Its value.
        value: String,
        /// What is expected.
        expected: &'static str,
    },
    /// No percentage.
    #[error("canaryTrafficPercent is {0}, it must be 0 to 100")]
    Canary(i64),
    /// More copies at least than at most.
    #[error("annotation {min_name} ({min}) is more than {max_name} ({max})", min_name = crd::MIN_COPIES, max_name = crd::MAX_COPIES)]
    MinAboveMax {
        /// Fewest.
        min: u32,
        /// Most.
        max: u32,
    },
}

/// Whether an InferenceService is handed to Modelring.
#[must_use]
pub fn is_ours(service: &InferenceService) -> bool {
    annotation(&service.metadata, crd::DEPLOYMENT_MODE) == Some(crd::MODEL_MESH)
}

/// Turns an InferenceService into what it asks for.
pub fn convert(service: &InferenceService) -> Result<Converted, ConvertError> {
    let name = service.metadata.name.as_deref().unwrap_or_default();
    let predictor = &service.spec.predictor;
    let runtime_annotation = annotation(&service.metadata, crd::SERVING_RUNTIME);
    let (format, runtime, protocol, uri, storage) = match (&predictor.model, predictor.framework()) {
        (Some(_), Some((framework, _))) => return Err(ConvertError::ModelAndFramework(framework)),
        (Some(_), None) if runtime_annotation.is_some() => return Err(ConvertError::ModelAndAnnotation),
        (Some(model), None) => (
            model.model_format.clone(),
            model.runtime.as_deref(),
            model.protocol_version.as_deref(),
            model.storage_uri.as_deref(),
            model.storage.as_ref(),
        ),
        (None, Some((framework, spec))) => (
            ModelFormat { name: framework.to_owned(), version: None },
            runtime_annotation,
            spec.protocol_version.as_deref(),
            spec.storage_uri.as_deref(),
            spec.storage.as_ref(),
        ),
        (None, None) => return Err(ConvertError::NoModel),
    };
    let format = ModelFormat { version: format.version.filter(|version| !version.is_empty()), ..format };
    let metadata = &service.metadata;
    let location =
        Location::resolve(uri, storage, annotation(metadata, crd::SECRET_KEY), annotation(metadata, crd::SCHEMA_PATH))?;
    let asked = Asked::of(metadata)?;

    let canary = match predictor.canary_traffic_percent {
        None | Some(100) => None,
        Some(percent) => {
            Some(u32::try_from(percent).ok().filter(|percent| *percent < 100).ok_or(ConvertError::Canary(percent))?)
        }
    };

    let (runtime, protocol) = (given(runtime), given(protocol));
    let id = id::of_service(name, &format, &location, runtime, protocol);
    Ok(Converted { canary, ..asked.converted(id, &format, location, runtime, protocol) })
}

// === impl Asked ===

impl Asked {
    fn of(metadata: &ObjectMeta) -> Result<Self, ConvertError> {
        let min_copies = count(metadata, crd::MIN_COPIES, 0)?.unwrap_or(0);
        let max_copies = count(metadata, crd::MAX_COPIES, 1)?;
        if let Some(max) = max_copies.filter(|max| *max < min_copies) {
            return Err(ConvertError::MinAboveMax { min: min_copies, max });
        }
        let load_timeout = annotation(metadata, crd::LOAD_TIMEOUT)
            .map(|value| {
                parse_duration(value).filter(|timeout| !timeout.is_zero()).ok_or_else(|| ConvertError::Annotation {
                    name: crd::LOAD_TIMEOUT,
                    value: value.to_owned(),
                    expected: "a duration such as `90s` or `2m30s`",
                })
            })
            .transpose()?;

        Ok(Self { min_copies, max_copies, load_timeout })
    }

    /// With the model that serves it.
    fn converted(
        self,
        id: String,
        format: &ModelFormat,
        location: Location,
        runtime: Option<&str>,
        protocol: Option<&str>,
    ) -> Converted {
        let model_type = type_string(format, given(runtime), given(protocol));
        let model = KeptModel { id, model_type, key: id::key_json(format, &location), path: location.path };
        let Self { min_copies, max_copies, load_timeout } = self;
        Converted { model, min_copies, max_copies, load_timeout, canary: None }
    }
}

/// An empty text says nothing.
fn given(text: Option<&str>) -> Option<&str> {
    text.filter(|text| !text.is_empty())
}

/// The type string of a model; also the id of its class.
fn type_string(format: &ModelFormat, runtime: Option<&str>, protocol: Option<&str>) -> String {
    if let Some(runtime) = runtime {
        return format!("rt:{runtime}");
    }
    let mut text = format!("mt:{}", format.name);
    if let Some(version) = &format.version {
        text.push(':');
        text.push_str(version);
    }
    if let Some(protocol) = protocol {
        text.push_str("|pv:");
        text.push_str(protocol);
    }
    text
}

fn annotation<'a>(metadata: &'a ObjectMeta, name: &str) -> Option<&'a str> {
    let annotations: &BTreeMap<String, String> = metadata.annotations.as_ref()?;
    annotations.get(name).map(String::as_str)
}

fn count(metadata: &ObjectMeta, name: &'static str, least: u32) -> Result<Option<u32>, ConvertError> {
    annotation(metadata, name)
        .map(|value| match value.trim().parse::<u32>() {
            Ok(count) if count >= least => Ok(count),
            _ => Err(ConvertError::Annotation {
                name,
                value: value.to_owned(),
                expected: if least == 0 { "a whole number from 0" } else { "a whole number from 1" },
            }),
        })
        .transpose()
}
