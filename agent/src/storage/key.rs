//! The model key: a JSON object that names the storage entry on its way in, and tells the model server about the files on
//! its way out. Read as Go reads JSON: keys in any case, unknown ones dropped, wrong types refused.

use std::collections::BTreeMap;

use modelring_placement::pod::LoadError;
use serde::Serialize;
use serde_json::{Map, Value};
use tonic::Code;

use crate::failure::permanent;

/// What a model key says.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ModelKey {
    /// Type of the model, passed through.
    pub(crate) model_type: Option<Value>,
    /// Deprecated: overrides the entry's bucket where it has one.
    pub(crate) bucket: Option<String>,
    /// Name of the storage entry.
    pub(crate) storage_key: Option<String>,
    /// Overlay of the storage entry, by dot path.
    pub(crate) storage_params: BTreeMap<String, String>,
    /// A second path to bring.
    pub(crate) schema_path: Option<String>,
}

/// The key that the model server gets.
#[derive(Serialize)]
struct ServerKey<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    model_type: Option<&'a Value>,
    disk_size_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    schema_path: Option<&'a str>,
}

// === impl ModelKey ===

impl ModelKey {
    /// Reads a key. An empty one says nothing.
    pub(crate) fn parse(json: &str) -> Result<Self, LoadError> {
        let wrong =
            |text: String| permanent(Code::InvalidArgument, format!("Invalid modelKey in LoadModelRequest: {text}"));
        let mut key = Self::default();
        if json.is_empty() {
            return Ok(key);
        }
        let fields: Map<String, Value> = serde_json::from_str(json).map_err(|error| wrong(error.to_string()))?;
        for (name, value) in fields {
            match name.to_ascii_lowercase().as_str() {
                "model_type" => key.model_type = Some(value),
                "bucket" => key.bucket = text(&name, value).map_err(wrong)?,
                "storage_key" => key.storage_key = text(&name, value).map_err(wrong)?,
                "schema_path" => key.schema_path = text(&name, value).map_err(wrong)?,
                "storage_params" => key.storage_params = params(&name, value).map_err(wrong)?,
                "disk_size_bytes" if !(value.is_i64() || value.is_null()) => {
                    return Err(wrong(format!("{name} is not an integer")));
                }
                _ => {}
            }
        }
        Ok(key)
    }

    /// The key for the model server: without storage fields, with what the files on disk are.
    pub(crate) fn for_server(&self, disk_size_bytes: u64, schema_path: Option<&str>) -> String {
        let key = ServerKey { model_type: self.model_type.as_ref(), disk_size_bytes, schema_path };
        serde_json::to_string(&key).expect("a key of JSON values and texts is JSON")
    }
}

/// A text; nothing where it is null or empty.
fn text(name: &str, value: Value) -> Result<Option<String>, String> {
    match value {
        Value::String(text) => Ok((!text.is_empty()).then_some(text)),
        Value::Null => Ok(None),
        _ => Err(format!("{name} is not a string")),
    }
}

fn params(name: &str, value: Value) -> Result<BTreeMap<String, String>, String> {
    match value {
        Value::Object(fields) => fields
            .into_iter()
            .map(|(path, value)| match value {
                Value::String(value) => Ok((path, value)),
                _ => Err(format!("{name}.{path} is not a string")),
            })
            .collect(),
        Value::Null => Ok(BTreeMap::new()),
        _ => Err(format!("{name} is not an object")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn storage_fields_go_and_the_rest_reaches_the_server() {
        let key = ModelKey::parse(
            r#"{"storage_params":{"bucket":"bucket1"},"storage_key":"myStorage","model_type":{"name":"tensorflow"},"Schema_Path":"s.json","other":1}"#,
        )
        .unwrap();
        assert_eq!(key.storage_key.as_deref(), Some("myStorage"));
        assert_eq!(key.storage_params["bucket"], "bucket1");
        assert_eq!(key.schema_path.as_deref(), Some("s.json"));
        assert_eq!(key.for_server(60, None), r#"{"model_type":{"name":"tensorflow"},"disk_size_bytes":60}"#);
        assert_eq!(
            key.for_server(0, Some("/m/s.json")),
            r#"{"model_type":{"name":"tensorflow"},"disk_size_bytes":0,"schema_path":"/m/s.json"}"#
        );
    }

    #[test]
    fn an_empty_key_says_nothing_and_a_broken_one_is_refused_for_good() {
        assert_eq!(ModelKey::parse("").unwrap(), ModelKey::default());
        for broken in [
            "{",
            "[]",
            "null",
            r#"{"storage_key":1}"#,
            r#"{"storage_params":{"a":1}}"#,
            r#"{"storage_params":"a"}"#,
            r#"{"disk_size_bytes":"1"}"#,
        ] {
            let error = ModelKey::parse(broken).unwrap_err();
            assert!(error.text.starts_with("Invalid modelKey in LoadModelRequest"), "{}", error.text);
            assert!(!error.passing);
        }
    }
}
