//! The forms in which a manifest says where a model is, all turned into one.

use std::collections::BTreeMap;

use crate::{convert::ConvertError, crd::StorageSpec};

/// Where a model is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Location {
    /// Path in the storage.
    pub(super) path: String,
    /// Overlays the entry of the storage Secret.
    pub(super) parameters: BTreeMap<String, String>,
    /// Entry of the storage Secret.
    pub(super) key: Option<String>,
    /// Path of a schema file.
    pub(super) schema_path: Option<String>,
}

/// Parts of a URI, as far as storage needs them.
struct Uri<'a> {
    scheme: String,
    host: &'a str,
    path: String,
    query: Option<&'a str>,
}

// === impl Location ===

impl Location {
    pub(super) fn resolve(
        uri: Option<&str>,
        storage: Option<&StorageSpec>,
        key_annotation: Option<&str>,
        schema_annotation: Option<&str>,
    ) -> Result<Self, ConvertError> {
        let path = storage.and_then(|storage| storage.path.clone());
        let (path, generated) = match (uri, path) {
            (None, None) => return Err(ConvertError::NoLocation),
            (Some(_), Some(_)) => return Err(ConvertError::BothLocations),
            (None, Some(path)) => (path, Vec::new()),
            (Some(uri), None) => from_uri(uri)?,
        };
        let mut parameters = storage.and_then(|storage| storage.parameters.clone()).unwrap_or_default();
        parameters.extend(generated.into_iter().map(|(name, value)| (name.to_owned(), value)));
        let pick = |field: Option<&String>, annotation: Option<&str>| field.cloned().or(annotation.map(str::to_owned));
        Ok(Self {
            path,
            parameters,
            key: pick(storage.and_then(|storage| storage.key.as_ref()), key_annotation),
            schema_path: pick(storage.and_then(|storage| storage.schema_path.as_ref()), schema_annotation),
        })
    }
}

// === impl Uri ===

impl<'a> Uri<'a> {
    fn parse(text: &'a str) -> Result<Self, ConvertError> {
        let bad = |reason| ConvertError::Uri { uri: text.to_owned(), text: reason };
        if text.chars().any(|c| c.is_ascii_control()) {
            return Err(bad("it has a control character"));
        }
        let rest = text.split('#').next().unwrap_or_default();
        let (rest, query) = match rest.split_once('?') {
            Some((rest, query)) => (rest, Some(query)),
            None => (rest, None),
        };
        let Some((scheme, rest)) = rest.split_once(':').filter(|(scheme, _)| !scheme.contains('/')) else {
            return Err(ConvertError::Scheme(String::new()));
        };
        let letters = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
        if !scheme.starts_with(|c: char| c.is_ascii_alphabetic()) || !scheme.chars().all(letters) {
            return Err(bad("it does not begin with a scheme"));
        }
        let (authority, path) = match rest.strip_prefix("//") {
            Some(rest) => rest.split_at(rest.find('/').unwrap_or(rest.len())),
            None => ("", rest),
        };
        let host = authority.rsplit('@').next().unwrap_or_default();
        if host.contains(|c: char| c.is_whitespace() || "<>\"%".contains(c)) {
            return Err(bad("its host has a character that no host has"));
        }
        let path = percent_decode(path).ok_or_else(|| bad("its path has a broken %-escape"))?;
        Ok(Self { scheme: scheme.to_ascii_lowercase(), host, path, query })
    }
}

/// Parameters that a URI stands for.
type Parameters = Vec<(&'static str, String)>;

/// The path and the generated parameters of a `storageUri`.
fn from_uri(text: &str) -> Result<(String, Parameters), ConvertError> {
    let uri = Uri::parse(text)?;
    let path = uri.path.strip_prefix('/').unwrap_or(&uri.path);
    let host = uri.host.to_owned();
    let bucket = |kind: &str, field| (path.to_owned(), vec![("type", kind.to_owned()), (field, host.clone())]);
    match uri.scheme.as_str() {
        "s3" => Ok(bucket("s3", "bucket")),
        "gs" => Ok(bucket("gcs", "bucket")),
        "pvc" => Ok(bucket("pvc", "name")),
        "http" | "https" if uri.host.ends_with("blob.core.windows.net") => {
            let account = uri.host.split('.').next().unwrap_or_default();
            let (container, path) = path.split_once('/').unwrap_or((path, ""));
            let parameters = vec![
                ("type", "azure".to_owned()),
                ("account_name", account.to_owned()),
                ("container", container.to_owned()),
            ];
            Ok((path.to_owned(), parameters))
        }
        "http" | "https" => {
            let query = uri.query.map(|query| format!("?{query}")).unwrap_or_default();
            let url = format!("{}://{}{query}", uri.scheme, uri.host);
            Ok((path.to_owned(), vec![("type", "http".to_owned()), ("url", url)]))
        }
        _ => Err(ConvertError::Scheme(uri.scheme)),
    }
}

fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        if byte == b'%' {
            let hex = std::str::from_utf8(after.get(..2)?).ok().filter(|hex| !hex.starts_with('+'))?;
            bytes.push(u8::from_str_radix(hex, 16).ok()?);
            rest = &after[2..];
        } else {
            bytes.push(byte);
            rest = after;
        }
    }
    String::from_utf8(bytes).ok()
}
