//! The model key as an adapter reads it.

use std::path::PathBuf;

use modelring_placement::pod::LoadError;
use serde_json::Value;
use tonic::Code;

use crate::failure::permanent;

/// What the model key says to an adapter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AdapterKey {
    /// Name of the model's format: lower case, without what stands behind a `:`.
    pub(crate) model_type: String,
    /// Size on disk, bytes; none where the key does not say.
    pub(crate) on_disk: Option<u64>,
    /// File that describes inputs and outputs.
    pub(crate) schema: Option<PathBuf>,
}

// === impl AdapterKey ===

impl AdapterKey {
    /// Reads a key. `placed_by` is the type by which the model was placed (`mt:<format>:<version>|…` or `rt:<runtime>`);
    /// it counts where the key has none.
    ///
    /// # Errors
    ///
    /// The key is no JSON object, or has a schema path that is no text.
    pub(crate) fn read(key: &str, placed_by: &str) -> Result<Self, LoadError> {
        let wrong = |text: String| permanent(Code::InvalidArgument, format!("invalid model key: {text}"));
        let key: serde_json::Map<String, Value> =
            serde_json::from_str(key).map_err(|error| wrong(error.to_string()))?;
        let named = key.get("model_type").and_then(|value| match value {
            Value::Object(fields) => fields.get("name").and_then(Value::as_str),
            value => value.as_str(),
        });
        let placed_by = placed_by.split('|').next().unwrap_or_default();
        let model_type = named.unwrap_or_else(|| placed_by.strip_prefix("mt:").unwrap_or(placed_by)).to_lowercase();
        let schema = match key.get("schema_path") {
            None | Some(Value::Null) => None,
            Some(Value::String(path)) => Some(PathBuf::from(path)),
            Some(_) => return Err(wrong("schema_path is not a string".to_owned())),
        };
        Ok(Self {
            model_type: model_type.split(':').next().unwrap_or_default().to_owned(),
            on_disk: key.get("disk_size_bytes").and_then(Value::as_u64),
            schema,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model_type(key: &str, placed_by: &str) -> String {
        AdapterKey::read(key, placed_by).unwrap().model_type
    }

    #[test]
    fn the_type_is_lower_case_and_ends_at_the_first_colon() {
        assert_eq!(model_type(r#"{"model_type":{"name":"SKLearn:0","version":"1"}}"#, "mt:x"), "sklearn");
        assert_eq!(model_type(r#"{"model_type":"TensorFlow:1.5"}"#, "mt:x"), "tensorflow");
    }

    #[test]
    fn a_key_without_a_type_has_that_by_which_the_model_was_placed() {
        for key in ["{}", r#"{"model_type":5}"#, r#"{"model_type":{"version":"1"}}"#] {
            assert_eq!(model_type(key, "mt:XGBoost:1|pv:v2"), "xgboost");
            assert_eq!(model_type(key, "rt:triton"), "rt");
            assert_eq!(model_type(key, ""), "");
        }
    }

    #[test]
    fn size_and_schema_are_read_and_wrong_keys_refused() {
        let key = AdapterKey::read(r#"{"disk_size_bytes":54321,"schema_path":"/m/s.json"}"#, "").unwrap();
        assert_eq!((key.on_disk, key.schema), (Some(54321), Some("/m/s.json".into())));
        assert_eq!(AdapterKey::read(r#"{"disk_size_bytes":"5"}"#, "").unwrap().on_disk, None);
        for key in ["", "[]", r#"{"schema_path":1}"#] {
            assert!(AdapterKey::read(key, "").unwrap_err().text.starts_with("invalid model key"), "{key}");
        }
    }
}
