//! The id of a model is a hash over what makes it this model: ModelMesh's own, over the compact JSON that Go writes, so
//! that ids stay the same for whoever comes from there.

use std::collections::BTreeMap;

use serde::Serialize;
use sha1::{Digest, Sha1};

use crate::{
    convert::storage::Location,
    crd::{ModelFormat, PredictorSpec},
};

/// A kind of object that says what is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// InferenceService.
    Service,
    /// Predictor.
    Predictor,
}

// Declaration order is the order of the hashed JSON.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Hashed<'a> {
    model_type: &'a ModelFormat,
    path: &'static str,
    storage: HashedStorage<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    runtime: Option<HashedRuntime<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    protocol_version: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct HashedStorage<'a> {
    path: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    schema_path: Option<&'a str>,
    // Present even when empty: this matters for the hash.
    parameters: &'a BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
}

#[derive(Serialize)]
struct HashedRuntime<'a> {
    name: &'a str,
}

#[derive(Serialize)]
struct Key<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    storage_key: Option<&'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    storage_params: &'a BTreeMap<String, String>,
    model_type: &'a ModelFormat,
    #[serde(skip_serializing_if = "Option::is_none")]
    schema_path: Option<&'a str>,
}

// === impl Kind ===

impl Kind {
    /// As manifests name it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Service => "InferenceService",
            Self::Predictor => "Predictor",
        }
    }

    /// The kind of the object that a model of this id is of.
    #[must_use]
    pub fn of_model(id: &str) -> Self {
        let is_of_predictor = |(_, source): (&str, &str)| source.starts_with("ksp-");
        if id.rsplit_once("__").is_some_and(is_of_predictor) { Self::Predictor } else { Self::Service }
    }

    /// `<name>__<source>-<first 10 hex digits of the SHA-1>`.
    fn id(self, name: &str, hashed: &impl Serialize) -> String {
        let source = match self {
            Self::Service => "isvc",
            Self::Predictor => "ksp",
        };
        let digest = Sha1::digest(go_json(hashed).as_bytes());
        let hash: String = digest.iter().take(5).map(|byte| format!("{byte:02x}")).collect();
        format!("{name}__{source}-{hash}")
    }
}

/// The id of the model of a Predictor.
pub(super) fn of_predictor(name: &str, spec: &PredictorSpec) -> String {
    Kind::Predictor.id(name, spec)
}

/// The id of the model of an InferenceService.
pub(super) fn of_service(
    name: &str,
    format: &ModelFormat,
    location: &Location,
    runtime: Option<&str>,
    protocol: Option<&str>,
) -> String {
    let hashed = Hashed {
        model_type: format,
        path: "",
        storage: HashedStorage {
            path: &location.path,
            schema_path: location.schema_path.as_deref(),
            parameters: &location.parameters,
            key: location.key.as_deref(),
        },
        runtime: runtime.map(|name| HashedRuntime { name }),
        protocol_version: protocol,
    };
    Kind::Service.id(name, &hashed)
}

/// The key JSON that agents (and custom runtimes) get.
pub(super) fn key_json(format: &ModelFormat, location: &Location) -> String {
    go_json(&Key {
        storage_key: location.key.as_deref(),
        storage_params: &location.parameters,
        model_type: format,
        schema_path: location.schema_path.as_deref(),
    })
}

/// Compact JSON as Go's encoder writes it: it also escapes what could end a script in HTML.
fn go_json(value: &impl Serialize) -> String {
    let json = serde_json::to_string(value).expect("maps with string keys always serialise");
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '<' => text.push_str("\\u003c"),
            '>' => text.push_str("\\u003e"),
            '&' => text.push_str("\\u0026"),
            '\u{2028}' => text.push_str("\\u2028"),
            '\u{2029}' => text.push_str("\\u2029"),
            c => text.push(c),
        }
    }
    text
}
