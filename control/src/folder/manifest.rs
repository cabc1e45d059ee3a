//! One file of manifests, read into objects. Each document stands for itself: one that is broken is a problem that names
//! file, line and field, and the others count.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use serde::{Deserialize, de::DeserializeOwned};

use super::field::field_at;
use crate::{
    crd::{ClusterServingRuntime, InferenceService, Predictor, ServingRuntime},
    source::{InstanceSpec, Notice},
};

/// Name of the Secret with the storages.
pub(super) const STORAGE_SECRET: &str = "storage-config";
/// Name of the ConfigMap with the settings.
pub(super) const CONFIG_MAP: &str = "model-serving-config";
/// The entry of it that counts.
const CONFIG_ENTRY: &str = "config.yaml";
/// The kinds that say what is served.
pub(super) const SERVED: [&str; 2] = ["InferenceService", "Predictor"];
/// The id of a model is the name, `__isvc-` and ten digits of a hash, and names a folder: 255 bytes.
const LONGEST_SERVICE: usize = 255 - 17;
const GROUP: &str = "serving.kserve.io/";

/// An object that control reads.
#[derive(Clone, Debug)]
pub(super) enum Object {
    Service(Box<InferenceService>),
    Predictor(Box<Predictor>),
    Runtime(Box<ServingRuntime>),
    ClusterRuntime(Box<ClusterServingRuntime>),
    /// The settings document.
    Settings(String),
    /// The entries of the storage Secret.
    Storage(BTreeMap<String, Vec<u8>>),
}

/// What makes an object this object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) kind: &'static str,
    pub(super) name: String,
}

/// What a file says.
#[derive(Clone, Debug, Default)]
pub(super) struct Parsed {
    /// Its objects, with the line where each begins.
    pub(super) objects: Vec<(Key, usize, Object)>,
    /// What is wrong with it.
    pub(super) problems: Vec<Notice>,
    /// Kinds that control does not read.
    pub(super) other_kinds: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Header {
    #[serde(default)]
    api_version: Option<String>,
    #[serde(default)]
    kind: Option<String>,
    #[serde(default)]
    metadata: Option<Meta>,
}

#[derive(Default, Deserialize)]
struct Meta {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    namespace: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InstanceEntry {
    address: String,
    runtime: String,
    #[serde(default)]
    node: String,
    #[serde(default)]
    zone: String,
}

/// A document of a file.
struct Document<'a> {
    file: &'a str,
    text: &'a str,
    /// Lines of the file before it.
    offset: usize,
}

/// Reads a file of manifests of `namespace`.
pub(super) fn parse(file: &str, text: &str, namespace: &str) -> Parsed {
    let mut parsed = Parsed::default();
    for document in documents(file, text).filter(|document| !document.is_blank()) {
        match document.items() {
            None => parsed.take(&document, namespace),
            Some(Ok(items)) => {
                for item in &items {
                    // Where an item begins is not known: all are said to be where the list is.
                    let offset = document.first_line() - 1;
                    parsed.take(&Document { file, text: item, offset }, namespace);
                }
            }
            Some(Err(problem)) => parsed.problems.push(problem),
        }
    }
    parsed
}

/// Reads `instances.yaml`: a list of `{address, runtime, node?, zone?}`.
pub(super) fn parse_instances(file: &str, text: &str) -> Result<BTreeMap<String, InstanceSpec>, Notice> {
    let document = Document { file, text, offset: 0 };
    if document.is_blank() {
        return Ok(BTreeMap::new());
    }
    let mut instances = BTreeMap::new();
    for InstanceEntry { address, runtime, node, zone } in document.read::<Vec<InstanceEntry>>()? {
        if instances.insert(address.clone(), InstanceSpec { runtime, node, zone }).is_some() {
            return Err(Notice { subject: file.to_owned(), text: format!("address `{address}` is listed twice") });
        }
    }
    Ok(instances)
}

// === impl Parsed ===

impl Parsed {
    fn take(&mut self, document: &Document<'_>, namespace: &str) {
        match document.object(namespace) {
            Ok(Read::Object(key, object)) => self.objects.push((key, document.first_line(), object)),
            Ok(Read::Other(kind)) => self.other_kinds.push(kind),
            Err(problem) => self.problems.push(problem),
        }
    }
}

enum Read {
    Object(Key, Object),
    Other(String),
}

// === impl Document ===

impl Document<'_> {
    fn is_blank(&self) -> bool {
        let blank = |line: &str| line.is_empty() || line.starts_with('#') || line.starts_with("---") || line == "...";
        self.text.lines().all(|line| blank(line.trim()))
    }

    /// The first line of the file that says something in this document.
    fn first_line(&self) -> usize {
        let says = |line: &str| !line.is_empty() && !line.starts_with('#') && !line.starts_with("---");
        self.offset + 1 + self.text.lines().position(|line| says(line.trim())).unwrap_or(0)
    }

    fn problem(&self, text: impl Into<String>) -> Notice {
        Notice { subject: format!("{}:{}", self.file, self.first_line()), text: text.into() }
    }

    /// The items of a list, as `kubectl get -o yaml` prints several objects, each as a document of its own.
    fn items(&self) -> Option<Result<Vec<String>, Notice>> {
        #[derive(Deserialize)]
        struct List {
            #[serde(default)]
            items: Vec<serde_json::Value>,
        }
        let header: Header = self.read().ok()?;
        let (api_version, kind) = (header.api_version?, header.kind?);
        let is_list = kind == "List" && api_version == "v1" || kind.ends_with("List") && api_version.starts_with(GROUP);
        is_list.then(|| Ok(self.read::<List>()?.items.iter().map(serde_json::Value::to_string).collect()))
    }

    fn object(&self, namespace: &str) -> Result<Read, Notice> {
        let header: Header = self.read()?;
        let meta = header.metadata.unwrap_or_default();
        let (Some(api_version), Some(kind)) = (header.api_version, header.kind) else {
            return Err(self.problem("it is no manifest: fields `apiVersion` and `kind` are needed"));
        };
        let read = |kind, name, object| Ok(Read::Object(Key { kind, name }, object));
        let cluster_scoped = kind == "ClusterServingRuntime";
        let ours = api_version.starts_with(GROUP) || matches!(kind.as_str(), "Secret" | "ConfigMap");
        if !ours {
            return Ok(Read::Other(kind));
        }
        let Some(name) = meta.name else {
            return Err(self.problem(format!("{kind} has no name: field `metadata.name` is needed")));
        };
        if let Some(other) = meta.namespace.filter(|other| other != namespace && !cluster_scoped) {
            return Err(self.problem(format!(
                "field `metadata.namespace`: {kind} `{name}` is of namespace `{other}`, but this folder stands for \
                 namespace `{namespace}`"
            )));
        }
        if !is_dns_name(&name) {
            return Err(self.problem(format!(
                "field `metadata.name`: `{name}` is no name of an object (lower case letters, digits, `-` and `.`, at \
                 most 253)"
            )));
        }
        if SERVED.contains(&kind.as_str()) && name.len() > LONGEST_SERVICE {
            return Err(self.problem(format!(
                "field `metadata.name`: `{name}` is longer than {LONGEST_SERVICE} bytes, it has no room in the id of a model"
            )));
        }
        match (api_version.as_str(), kind.as_str()) {
            ("serving.kserve.io/v1beta1", "InferenceService") => {
                read("InferenceService", name, Object::Service(Box::new(self.read()?)))
            }
            ("serving.kserve.io/v1alpha1", "Predictor") => {
                read("Predictor", name, Object::Predictor(Box::new(self.read()?)))
            }
            ("serving.kserve.io/v1alpha1", "ServingRuntime") => {
                read("ServingRuntime", name, Object::Runtime(Box::new(self.read()?)))
            }
            ("serving.kserve.io/v1alpha1", "ClusterServingRuntime") => {
                read("ClusterServingRuntime", name, Object::ClusterRuntime(Box::new(self.read()?)))
            }
            ("v1", "Secret") if name == STORAGE_SECRET => {
                read("Secret", name, Object::Storage(storage_entries(self.read()?)))
            }
            ("v1", "ConfigMap") if name == CONFIG_MAP => {
                let map: ConfigMap = self.read()?;
                let document = map.data.unwrap_or_default().remove(CONFIG_ENTRY).ok_or_else(|| {
                    self.problem(format!("field `data`: ConfigMap `{name}` has no entry `{CONFIG_ENTRY}`"))
                })?;
                read("ConfigMap", name, Object::Settings(document))
            }
            ("v1", "Secret" | "ConfigMap") => Ok(Read::Other(format!("{kind} `{name}`"))),
            (version, _) => Err(self.problem(format!("{kind} of {version} is not known here"))),
        }
    }

    fn read<T: DeserializeOwned>(&self) -> Result<T, Notice> {
        serde_saphyr::from_str(self.text).map_err(|error| {
            let Some(location) = error.location().filter(|location| location.line() > 0) else {
                return self.problem(error.without_snippet().to_string());
            };
            let line = usize::try_from(location.line()).unwrap_or(1);
            let message = strip_location(&error.without_snippet().to_string()).to_owned();
            let field = field_at(self.text, line);
            let text = if field.is_empty() { message } else { format!("field `{field}`: {message}") };
            Notice { subject: format!("{}:{}", self.file, self.offset + line), text }
        })
    }
}

/// The documents of a file. `---` at the begin of a line separates them wherever it stands.
fn documents<'a>(file: &'a str, text: &'a str) -> impl Iterator<Item = Document<'a>> {
    let mut starts = vec![(0, 0)];
    let mut at = 0;
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let separates =
            line.strip_prefix("---").is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace));
        if separates && at > 0 {
            starts.push((at, number));
        }
        at += line.len();
    }
    let ends: Vec<usize> = starts.iter().skip(1).map(|(start, _)| *start).chain([text.len()]).collect();
    starts.into_iter().zip(ends).map(move |((start, offset), end)| Document { file, text: &text[start..end], offset })
}

/// The text of an error without the place that the YAML library puts at its end: it is said in another form.
fn strip_location(text: &str) -> &str {
    text.rfind(" at line ").map_or(text, |at| &text[..at])
}

fn storage_entries(secret: Secret) -> BTreeMap<String, Vec<u8>> {
    let data = secret.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0));
    let strings = secret.string_data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.into_bytes()));
    data.chain(strings).collect()
}

/// A DNS subdomain, as Kubernetes asks of names.
fn is_dns_name(name: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(label)
}
