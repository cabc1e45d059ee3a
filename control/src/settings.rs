//! The settings of ConfigMap `model-serving-config` that control needs by itself. Keys are case-insensitive, as they
//! were; every key that ModelMesh knew is taken, one that nobody knows is noted.

use std::time::Duration;

use serde_json::Value;

use crate::{convert::parse_duration, source::Notice};

/// Settings of the mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Largest request or response message, bytes (`grpcMaxMessageSizeBytes`).
    pub max_message_bytes: u64,
    /// How long a held call may wait for a place (`proxy.placeTimeout`).
    pub place_timeout: Duration,
    /// How long a drain may take (`agent.drainTimeout`), at least 3 s.
    pub drain_timeout: Duration,
    /// Whether REST is served (`restProxy.enabled`); decides on label `pv:v2`.
    pub rest: bool,
}

/// Keys of the first level. What is below them is checked only where it is read.
const KNOWN: [&str; 27] = [
    "inferenceservicename",
    "inferenceserviceport",
    "storagesecretname",
    "podsperruntime",
    "tls",
    "headlessservice",
    "grpcmaxmessagesizebytes",
    "enableaccesslogging",
    "serviceaccountname",
    "metrics",
    "scaletozero",
    "restproxy",
    "modelmeshimage",
    "modelmeshresources",
    "storagehelperimage",
    "storagehelperresources",
    "builtinservertypes",
    "payloadprocessors",
    "runtimepodlabels",
    "runtimepodannotations",
    "imagepullsecrets",
    "allowanypvc",
    "internalmodelmeshenvvars",
    "etcdsecretname",
    "modelmeshendpoint",
    "agent",
    "proxy",
];
const LEAST_DRAIN: Duration = Duration::from_secs(3);

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_message_bytes: 16 << 20,
            place_timeout: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(30),
            rest: true,
        }
    }
}

// === impl Settings ===

impl Settings {
    /// Reads the document `config.yaml`. An error names the key; notes are about keys that mean nothing.
    pub fn read(document: &str) -> Result<(Self, Vec<Notice>), String> {
        let text = document.trim();
        let root: Value = if text.is_empty() {
            Value::Object(serde_json::Map::new())
        } else {
            serde_saphyr::from_str(text).map_err(|error| error.without_snippet().to_string())?
        };
        let Value::Object(entries) = &root else {
            return Err("config.yaml is no map of keys".to_owned());
        };
        let unknown = |key: &str| !KNOWN.contains(&key.to_ascii_lowercase().as_str());
        let notes = entries.keys().filter(|key| unknown(key)).map(|key| Notice {
            subject: "ConfigMap/model-serving-config".to_owned(),
            text: format!("key `{key}` is not known and means nothing"),
        });

        let mut settings = Self::default();
        if let Some(bytes) = number(&root, "grpcMaxMessageSizeBytes")? {
            settings.max_message_bytes = bytes;
        }
        if let Some(timeout) = duration(&root, "proxy.placeTimeout")? {
            settings.place_timeout = timeout;
        }
        if let Some(timeout) = duration(&root, "agent.drainTimeout")? {
            settings.drain_timeout = timeout.max(LEAST_DRAIN);
        }
        if let Some(rest) = boolean(&root, "restProxy.enabled")? {
            settings.rest = rest;
        }
        Ok((settings, notes.collect()))
    }
}

/// The value at a dotted key, whatever the case of its parts.
fn at<'a>(root: &'a Value, key: &str) -> Option<&'a Value> {
    key.split('.')
        .try_fold(root, |value, part| {
            value.as_object()?.iter().find(|(name, _)| name.eq_ignore_ascii_case(part)).map(|(_, value)| value)
        })
        .filter(|value| !value.is_null())
}

fn number(root: &Value, key: &str) -> Result<Option<u64>, String> {
    at(root, key)
        .map(|value| {
            let read = value.as_u64().or_else(|| value.as_str()?.trim().parse().ok());
            read.filter(|number| *number > 0).ok_or_else(|| format!("{key}: {value} is not a whole number above 0"))
        })
        .transpose()
}

fn boolean(root: &Value, key: &str) -> Result<Option<bool>, String> {
    at(root, key)
        .map(|value| {
            let read = value.as_bool().or_else(|| value.as_str()?.trim().parse().ok());
            read.ok_or_else(|| format!("{key}: {value} is not true or false"))
        })
        .transpose()
}

fn duration(root: &Value, key: &str) -> Result<Option<Duration>, String> {
    at(root, key)
        .map(|value| {
            let read = value.as_str().and_then(parse_duration);
            read.ok_or_else(|| format!("{key}: {value} is not a duration such as `30s`"))
        })
        .transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_whatever_their_case_and_numbers_may_be_strings() {
        let document = "GRPCMAXMESSAGESIZEBYTES: \"33554432\"\nproxy:\n  placetimeout: 5s\nagent:\n  drainTimeout: 1s\nrestProxy:\n  enabled: false\n";
        let (settings, notes) = Settings::read(document).unwrap();
        assert_eq!(settings.max_message_bytes, 32 << 20);
        assert_eq!(settings.place_timeout, Duration::from_secs(5));
        assert_eq!(settings.drain_timeout, LEAST_DRAIN);
        assert!(!settings.rest);
        assert!(notes.is_empty());
    }

    #[test]
    fn an_empty_document_means_the_defaults() {
        assert_eq!(Settings::read(" \n").unwrap().0, Settings::default());
    }

    #[test]
    fn a_bad_value_is_named_by_its_key_and_an_unknown_key_is_noted() {
        assert!(Settings::read("proxy: {placeTimeout: soon}").unwrap_err().contains("proxy.placeTimeout"));
        assert!(Settings::read("grpcMaxMessageSizeBytes: none").unwrap_err().contains("grpcMaxMessageSizeBytes"));
        assert!(Settings::read("- a\n- b").unwrap_err().contains("no map"));
        assert!(Settings::read("podsPerRuntime: 3\nfoo: 1").unwrap().1[0].text.contains("`foo`"));
    }
}
