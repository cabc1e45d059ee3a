//! The files of a folder, merged into one desired state. What is wrong is noted, and what was right before stays:
//!
//! - a file with a broken document keeps, for all that it no longer says, the objects that it last had;
//! - of two manifests of one kind and name the one that was there first stays.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use modelring_placement::rules::static_stability;

use super::manifest::{self, Key, Object, Parsed, SERVED};
use crate::{
    crd::{ClusterServingRuntime, InferenceService, Predictor, ServingRuntime},
    source::{Desired, InstanceSpec, Notice},
};

/// Name of the file that lists the agents.
const INSTANCES: &str = "instances.yaml";

/// What the files of a folder say.
#[derive(Debug, Default)]
pub(super) struct Files {
    namespace: String,
    files: BTreeMap<String, File>,
    /// The file that each object is taken from.
    owners: BTreeMap<Key, String>,
    instances: BTreeMap<String, InstanceSpec>,
    instances_problem: Option<Notice>,
}

/// One file: its objects with the line of each, and what is wrong.
#[derive(Debug, Default)]
struct File {
    objects: BTreeMap<Key, (usize, Shared)>,
    problems: Vec<Notice>,
    /// It was read without a problem once: what it says no more is gone.
    was_whole: bool,
}

/// A desired state, and the storage entries that go beside it.
#[derive(Debug, Default)]
pub(super) struct Merged {
    pub(super) desired: Desired,
    pub(super) storage: BTreeMap<String, Vec<u8>>,
}

/// An object that is the same `Arc` for as long as its file says the same.
#[derive(Clone, Debug)]
enum Shared {
    Service(Arc<InferenceService>),
    Predictor(Arc<Predictor>),
    Runtime(Arc<ServingRuntime>),
    ClusterRuntime(Arc<ClusterServingRuntime>),
    Settings(String),
    Storage(BTreeMap<String, Vec<u8>>),
}

// === impl Files ===

impl Files {
    pub(super) fn new(namespace: &str) -> Self {
        Self { namespace: namespace.to_owned(), ..Self::default() }
    }

    /// Takes in the content of a file, new or changed.
    pub(super) fn read(&mut self, name: &str, text: &str) {
        if name == INSTANCES {
            match manifest::parse_instances(name, text) {
                Ok(instances) => (self.instances, self.instances_problem) = (instances, None),
                Err(problem) => self.instances_problem = Some(problem),
            }
            return;
        }
        let file = self.files.entry(name.to_owned()).or_default();
        if text.trim().is_empty() && !file.objects.is_empty() {
            // Most editors empty a file before they write it.
            let text = "the file is empty: its objects stay until it says something else or is removed".to_owned();
            file.problems = vec![Notice { subject: name.to_owned(), text }];
            return;
        }
        let Parsed { objects, problems, other_kinds } = manifest::parse(name, text, &self.namespace);
        for kind in other_kinds {
            tracing::info!(file = name, kind, "a manifest of this kind is not read");
        }
        file.replace(name, objects, problems);
    }

    /// A file that cannot be read keeps its objects.
    pub(super) fn unreadable(&mut self, name: &str, error: &std::io::Error) {
        let problem = Notice { subject: name.to_owned(), text: format!("cannot be read: {error}") };
        if name == INSTANCES {
            self.instances_problem = Some(problem);
        } else {
            self.files.entry(name.to_owned()).or_default().problems = vec![problem];
        }
    }

    /// A file is gone, with all that it said.
    pub(super) fn removed(&mut self, name: &str) {
        if name == INSTANCES {
            (self.instances, self.instances_problem) = (BTreeMap::new(), None);
        }
        self.files.remove(name);
    }

    /// Whether a file could not be read, now and before.
    pub(super) fn is_incomplete(&self) -> bool {
        self.files.values().any(|file| !file.was_whole)
    }

    /// Whether there is any InferenceService or Predictor.
    pub(super) fn has_services(&self) -> bool {
        self.files.values().any(|file| file.objects.keys().any(|key| SERVED.contains(&key.kind)))
    }

    /// The kind of which nothing is left without these files, if there is one.
    pub(super) fn would_vanish(&self, gone: &BTreeSet<String>) -> Option<&'static str> {
        if gone.is_empty() {
            return None;
        }
        if gone.contains(INSTANCES) && !self.instances.is_empty() {
            return Some("instances.yaml");
        }
        let kinds = |of_gone: bool| {
            let files = self.files.iter().filter(move |(name, _)| gone.contains(name.as_str()) == of_gone);
            files.flat_map(|(_, file)| file.objects.keys().map(|key| key.kind))
        };
        let rest: BTreeSet<&str> = kinds(false).collect();
        // Of a Secret or ConfigMap there is one: its removal is a change like any other.
        kinds(true).find(|kind| !rest.contains(kind) && !matches!(*kind, "Secret" | "ConfigMap"))
    }

    /// The desired state that the files say together.
    pub(super) fn merge(&mut self) -> Merged {
        let mut claims: BTreeMap<&Key, Vec<&String>> = BTreeMap::new();
        for (name, file) in &self.files {
            for key in file.objects.keys() {
                claims.entry(key).or_default().push(name);
            }
        }
        let mut notices: Vec<Notice> = self.files.values().flat_map(|file| file.problems.clone()).collect();
        notices.extend(self.instances_problem.clone());
        let mut owners = BTreeMap::new();
        for (key, files) in claims {
            let first = files[0];
            let owner = self.owners.get(key).filter(|owner| files.contains(owner)).unwrap_or(first);
            for other in files.iter().filter(|file| **file != owner) {
                let line = self.files[*other].objects[key].0;
                notices.push(Notice {
                    subject: format!("{other}:{line}"),
                    text: format!(
                        "{} `{}` is in {owner} and in {other}: the one in {owner} counts",
                        key.kind, key.name
                    ),
                });
            }
            owners.insert(key.clone(), owner.clone());
        }
        debug_assert!(static_stability::only_what_was_seen_to_go(
            self.owners.keys(),
            |key| owners.contains_key(*key),
            |key| self.owners.get(*key).is_some_and(|owner| self.lost(owner, key)),
        ));
        self.owners = owners;

        let mut merged = Merged::default();
        for (Key { name, .. }, object) in
            self.owners.iter().map(|(key, owner)| (key, &self.files[owner].objects[key].1))
        {
            let (desired, name) = (&mut merged.desired, name.clone());
            match object {
                Shared::Service(service) => drop(desired.inference_services.insert(name, service.clone())),
                Shared::Predictor(predictor) => drop(desired.predictors.insert(name, predictor.clone())),
                Shared::Runtime(runtime) => drop(desired.runtimes.insert(name, runtime.clone())),
                Shared::ClusterRuntime(runtime) => drop(desired.cluster_runtimes.insert(name, runtime.clone())),
                Shared::Settings(document) => desired.config = Some(document.clone()),
                Shared::Storage(entries) => merged.storage.clone_from(entries),
            }
        }
        merged.desired.instances.clone_from(&self.instances);
        merged.desired.notices = notices;
        merged.desired.incomplete = self.is_incomplete();
        merged
    }

    /// Whether a file no longer says an object, or is gone.
    fn lost(&self, file: &str, key: &Key) -> bool {
        self.files.get(file).is_none_or(|file| !file.objects.contains_key(key))
    }
}

// === impl File ===

impl File {
    fn replace(&mut self, name: &str, objects: Vec<(Key, usize, Object)>, mut problems: Vec<Notice>) {
        let mut kept = if problems.is_empty() { BTreeMap::new() } else { self.objects.clone() };
        let mut said: BTreeMap<Key, usize> = BTreeMap::new();
        for (key, line, object) in objects {
            if let Some(first) = said.get(&key) {
                problems.push(Notice {
                    subject: format!("{name}:{line}"),
                    text: format!(
                        "{} `{}` is in {name}:{first} and in {name}:{line}: the first counts",
                        key.kind, key.name
                    ),
                });
                continue;
            }
            said.insert(key.clone(), line);
            let shared = match self.objects.get(&key) {
                Some((_, before)) => before.clone().unless_changed(object),
                None => Shared::from(object),
            };
            kept.insert(key, (line, shared));
        }
        self.was_whole |= problems.is_empty();
        self.objects = kept;
        self.problems = problems;
    }
}

// === impl Shared ===

impl From<Object> for Shared {
    fn from(object: Object) -> Self {
        match object {
            Object::Service(service) => Self::Service(Arc::from(service)),
            Object::Predictor(predictor) => Self::Predictor(Arc::from(predictor)),
            Object::Runtime(runtime) => Self::Runtime(Arc::from(runtime)),
            Object::ClusterRuntime(runtime) => Self::ClusterRuntime(Arc::from(runtime)),
            Object::Settings(document) => Self::Settings(document),
            Object::Storage(entries) => Self::Storage(entries),
        }
    }
}

impl Shared {
    fn unless_changed(self, object: Object) -> Self {
        match (&self, &object) {
            (Self::Service(before), Object::Service(now)) if **before == **now => self,
            (Self::Predictor(before), Object::Predictor(now)) if **before == **now => self,
            (Self::Runtime(before), Object::Runtime(now)) if **before == **now => self,
            (Self::ClusterRuntime(before), Object::ClusterRuntime(now)) if **before == **now => self,
            _ => object.into(),
        }
    }
}
