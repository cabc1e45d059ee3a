//! Which entry of `storage-config` a load uses: the named one, or `default` / `default_<type>`, overlaid with the model's
//! parameters. Read from disk at each load, so that a changed Secret counts at once.

use std::{fs, io, path::Path};

use modelring_placement::pod::LoadError;
use serde_json::{Map, Value};
use tonic::Code;

use super::key::ModelKey;
use crate::failure::{file, permanent, prefixed};

/// Largest entry, bytes; a Secret holds at most 1 MiB.
const LARGEST: u64 = 1 << 20;

/// A merged entry.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    /// The kind of storage.
    pub(crate) kind: String,
    /// All fields, secrets among them: never logged.
    fields: Map<String, Value>,
}

// === impl Entry ===

impl Entry {
    /// Chooses and merges the entry of a model.
    pub(crate) fn choose(config_dir: Option<&Path>, key: &ModelKey) -> Result<Self, LoadError> {
        let mut fields = match &key.storage_key {
            Some(name) => read(config_dir, name)
                .and_then(|found| {
                    found.ok_or_else(|| {
                        permanent(Code::FailedPrecondition, format!("Storage secretKey not found: {name}"))
                    })
                })
                .map_err(|error| prefixed(&format!("Did not find storage config for key {name}: "), error))?,
            None => {
                let kind = key.storage_params.get("type").map(String::as_str).unwrap_or_default();
                let name = if kind.is_empty() { "default".to_owned() } else { format!("default_{kind}") };
                read(config_dir, &name)?.unwrap_or_default()
            }
        };
        if let Some(bucket) = &key.bucket
            && fields.get("bucket").is_some_and(|bucket| !bucket.is_null())
        {
            fields.insert("bucket".to_owned(), Value::String(bucket.clone()));
        }
        for (path, value) in &key.storage_params {
            overlay(&mut fields, path, value)?;
        }
        match fields.get("type") {
            Some(Value::String(kind)) => Ok(Self { kind: kind.clone(), fields }),
            _ => Err(permanent(Code::InvalidArgument, "Predictor Storage field missing")),
        }
    }

    /// A field that must be there, as text.
    pub(crate) fn required(&self, name: &str) -> Result<&str, LoadError> {
        self.fields
            .get(name)
            .and_then(Value::as_str)
            .ok_or_else(|| permanent(Code::InvalidArgument, format!("missing required string configuration '{name}'")))
    }

    /// A field that need not be there, as text; empty is absent.
    pub(crate) fn optional(&self, name: &str) -> Result<Option<&str>, LoadError> {
        match self.fields.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok((!text.is_empty()).then_some(text)),
            Some(_) => Err(permanent(Code::InvalidArgument, format!("configuration '{name}' is not a string"))),
        }
    }
}

/// The fields of an entry; `None` where there is no such entry.
fn read(config_dir: Option<&Path>, name: &str) -> Result<Option<Map<String, Value>>, LoadError> {
    // A key of a Secret is a plain name; whatever has path parts names nothing.
    let (Some(dir), true) = (config_dir, is_plain_name(name)) else { return Ok(None) };
    let path = dir.join(name);
    let json = match fs::metadata(&path) {
        Ok(found) if found.len() > LARGEST => {
            return Err(permanent(
                Code::FailedPrecondition,
                format!("storage config '{}' is larger than {LARGEST} bytes", path.display()),
            ));
        }
        Ok(_) => fs::read(&path).map_err(|error| file("read", &path, &error))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(file("read", &path, &error)),
    };
    // The parser's own text may quote the content, which is secret: line and column only.
    let mut fields: Map<String, Value> = serde_json::from_slice(&json).map_err(|error| {
        let place = format!("line {} column {}", error.line(), error.column());
        permanent(
            Code::FailedPrecondition,
            format!("storage config '{}' is not a JSON object: {place}", path.display()),
        )
    })?;
    if fields.get("type").and_then(Value::as_str) == Some("s3")
        && !fields.contains_key("bucket")
        && let Some(bucket) = fields.get("default_bucket").cloned()
    {
        fields.insert("bucket".to_owned(), bucket);
    }
    Ok(Some(fields))
}

/// Sets the text at a dot path. Objects on the way are made; only a text is replaced.
fn overlay(fields: &mut Map<String, Value>, path: &str, value: &str) -> Result<(), LoadError> {
    let wrong = |what: &str| permanent(Code::InvalidArgument, format!("invalid storage parameter '{path}': {what}"));
    let mut at = fields;
    let (parents, last) = match path.rsplit_once('.') {
        Some((parents, last)) => (Some(parents), last),
        None => (None, path),
    };
    for name in parents.into_iter().flat_map(|parents| parents.split('.')) {
        at = match at.entry(name).or_insert_with(|| Value::Object(Map::new())) {
            Value::Object(fields) => fields,
            _ => return Err(wrong(&format!("'{name}' is not an object"))),
        };
    }
    match at.get(last) {
        None | Some(Value::String(_)) => {
            at.insert(last.to_owned(), Value::String(value.to_owned()));
            Ok(())
        }
        Some(_) => Err(wrong("it would replace a value that is not a string")),
    }
}

/// Whether a name is a single part of a path.
pub(crate) fn is_plain_name(name: &str) -> bool {
    !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\\', '\0'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(files: &[(&str, &str)], key: &str) -> Result<Entry, LoadError> {
        let dir = tempfile::tempdir().unwrap();
        for (name, json) in files {
            fs::write(dir.path().join(name), json).unwrap();
        }
        Entry::choose(Some(dir.path()), &ModelKey::parse(key).unwrap())
    }

    fn field(entry: &Entry, pointer: &str) -> Value {
        Value::Object(entry.fields.clone()).pointer(pointer).cloned().unwrap_or_default()
    }

    #[test]
    fn the_named_entry_is_used_and_its_absence_is_said() {
        let files = [("localMinIO", r#"{"type":"local","path":"models"}"#)];
        let entry = choose(&files, r#"{"storage_key":"localMinIO"}"#).unwrap();
        assert_eq!((entry.kind.as_str(), entry.required("path").unwrap()), ("local", "models"));
        let error = choose(&files, r#"{"storage_key":"other"}"#).unwrap_err();
        assert_eq!(error.text, "Did not find storage config for key other: Storage secretKey not found: other");
        assert!(!error.passing);
    }

    #[test]
    fn a_key_with_path_parts_names_no_entry() {
        for name in ["../x", "/etc/passwd", "..", "a/b"] {
            let error = choose(&[], &format!(r#"{{"storage_key":"{name}"}}"#)).unwrap_err();
            assert!(error.text.starts_with("Did not find storage config for key"), "{}", error.text);
        }
    }

    #[test]
    fn without_a_key_the_default_of_the_type_is_used_or_the_parameters_alone() {
        let files =
            [("default", r#"{"type":"s3","default_bucket":"b"}"#), ("default_pvc", r#"{"type":"pvc","name":"claim"}"#)];
        assert_eq!(field(&choose(&files, "{}").unwrap(), "/bucket"), "b");
        assert_eq!(choose(&files, r#"{"storage_params":{"type":"pvc"}}"#).unwrap().required("name").unwrap(), "claim");
        let alone = choose(&files, r#"{"storage_params":{"type":"http","url":"http://x"}}"#).unwrap();
        assert_eq!((alone.kind.as_str(), alone.required("url").unwrap()), ("http", "http://x"));
        assert!(alone.fields.len() == 2, "plain default is not consulted when a type is given");
    }

    #[test]
    fn no_type_is_said_with_the_exact_text() {
        for files in [&[][..], &[("default", "{}")], &[("default", r#"{"type":1}"#)]] {
            assert_eq!(choose(files, "{}").unwrap_err().text, "Predictor Storage field missing");
        }
    }

    #[test]
    fn an_entry_that_is_no_json_object_is_named_without_its_content() {
        for json in ["hunter2", r#"{"type": hunter2}"#, r#"["hunter2"]"#] {
            let named = choose(&[("k", json)], r#"{"storage_key":"k"}"#).unwrap_err();
            assert!(
                named.text.starts_with("Did not find storage config for key k: storage config '")
                    && named.text.contains("/k'"),
                "{}",
                named.text
            );
            assert!(!named.text.contains("hunter2"));
            assert!(choose(&[("default", json)], "{}").unwrap_err().text.contains("/default'"));
        }
    }

    #[test]
    fn parameters_overlay_by_dot_path_and_replace_only_texts() {
        let files = [("k", r#"{"type":"http","url":"http://x","n":1,"headers":{"A":"1"}}"#)];
        let with = |params: &str| choose(&files, &format!(r#"{{"storage_key":"k","storage_params":{params}}}"#));
        let entry = with(r#"{"url":"http://y","headers.B":"2","new.deep.C":"3","headers.A":"4"}"#).unwrap();
        assert_eq!(field(&entry, "/url"), "http://y");
        assert_eq!(field(&entry, "/headers/B"), "2");
        assert_eq!(field(&entry, "/headers/A"), "4");
        assert_eq!(field(&entry, "/new/deep/C"), "3");
        assert!(with(r#"{"n":"2"}"#).unwrap_err().text.contains("'n'"));
        assert!(with(r#"{"headers":"x"}"#).unwrap_err().text.contains("not a string"));
        assert!(with(r#"{"url.x":"y"}"#).unwrap_err().text.contains("'url' is not an object"));
    }

    #[test]
    fn the_old_bucket_field_overrides_only_a_bucket_that_is_there() {
        let with = |json: &str| choose(&[("k", json)], r#"{"storage_key":"k","bucket":"mine"}"#).unwrap();
        assert_eq!(field(&with(r#"{"type":"s3","bucket":"theirs"}"#), "/bucket"), "mine");
        assert_eq!(field(&with(r#"{"type":"s3","default_bucket":"theirs"}"#), "/bucket"), "mine");
        assert_eq!(field(&with(r#"{"type":"s3"}"#), "/bucket"), Value::Null);
    }
}
