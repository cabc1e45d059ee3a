//! An InferenceService, turned into the model that serves it: the same id, type string, path and key JSON that
//! ModelMesh's controller would have made of it.

mod duration;
mod id;
mod storage;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, time::Duration};

pub use duration::parse_duration;

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

/// Why an InferenceService cannot be served.
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
    annotation(service, crd::DEPLOYMENT_MODE) == Some(crd::MODEL_MESH)
}

/// Turns an InferenceService into what it asks for.
pub fn convert(service: &InferenceService) -> Result<Converted, ConvertError> {
    let name = service.metadata.name.as_deref().unwrap_or_default();
    let predictor = &service.spec.predictor;
    let runtime_annotation = annotation(service, crd::SERVING_RUNTIME);
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
    let runtime = runtime.filter(|runtime| !runtime.is_empty());
    let protocol = protocol.filter(|protocol| !protocol.is_empty());
    let location =
        Location::resolve(uri, storage, annotation(service, crd::SECRET_KEY), annotation(service, crd::SCHEMA_PATH))?;

    let min_copies = count(service, crd::MIN_COPIES, 0)?.unwrap_or(0);
    let max_copies = count(service, crd::MAX_COPIES, 1)?;
    if let Some(max) = max_copies.filter(|max| *max < min_copies) {
        return Err(ConvertError::MinAboveMax { min: min_copies, max });
    }
    let load_timeout = annotation(service, crd::LOAD_TIMEOUT)
        .map(|value| {
            parse_duration(value).filter(|timeout| !timeout.is_zero()).ok_or_else(|| ConvertError::Annotation {
                name: crd::LOAD_TIMEOUT,
                value: value.to_owned(),
                expected: "a duration such as `90s` or `2m30s`",
            })
        })
        .transpose()?;

    let canary = match predictor.canary_traffic_percent {
        None | Some(100) => None,
        Some(percent) => {
            Some(u32::try_from(percent).ok().filter(|percent| *percent < 100).ok_or(ConvertError::Canary(percent))?)
        }
    };

    Ok(Converted {
        model: KeptModel {
            id: id::model_id(name, &format, &location, runtime, protocol),
            model_type: type_string(&format, runtime, protocol),
            key: id::key_json(&format, &location),
            path: location.path,
        },
        min_copies,
        max_copies,
        load_timeout,
        canary,
    })
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

fn annotation<'a>(service: &'a InferenceService, name: &str) -> Option<&'a str> {
    let annotations: &BTreeMap<String, String> = service.metadata.annotations.as_ref()?;
    annotations.get(name).map(String::as_str)
}

fn count(service: &InferenceService, name: &'static str, least: u32) -> Result<Option<u32>, ConvertError> {
    annotation(service, name)
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
