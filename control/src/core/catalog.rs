//! The desired state, understood: what each InferenceService and Predictor asks for, the classes, the settings. What cannot be
//! understood is noted, and what was understood before stays.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
};

use crate::{
    Error,
    classes::RuntimeLabels,
    config::Config,
    convert::{self, ConvertError, Converted, Kind},
    crd::{
        ClusterServingRuntime, DEPLOYMENT_MODE, InferenceService, MODEL_MESH, Predictor, RuntimeSpec, ServingRuntime,
    },
    settings::Settings,
    source::{ActiveRecord, Desired, InstanceSpec, Notice},
};

/// The desired state, understood.
#[derive(Debug, Default)]
pub(super) struct Catalog {
    /// What each InferenceService or Predictor asks for, by its name.
    pub(super) services: BTreeMap<String, Arc<Converted>>,
    /// The manifests of those that were understood.
    understood: BTreeMap<String, Manifest>,
    pub(super) labels: RuntimeLabels,
    pub(super) settings: Settings,
    /// Agents to dial, by address.
    pub(super) instances: BTreeMap<String, InstanceSpec>,
    pub(super) notices: Vec<Notice>,
    pub(super) storage_changes: u64,
    /// The source cannot be believed: this is its last state.
    pub(super) frozen: bool,
    /// Services of a control before this one that no manifest has named yet; `None` before the first state.
    unread: Option<BTreeSet<String>>,
}

/// What says what is served under a name.
#[derive(Clone, Debug)]
enum Manifest {
    Service(Arc<InferenceService>),
    Predictor(Arc<Predictor>),
}

// === impl Catalog ===

impl Catalog {
    /// What a desired state says, given what the last one said.
    pub(super) fn next(
        &self,
        desired: &Desired,
        built_in: &BTreeMap<String, RuntimeSpec>,
        config: &Config,
        records: &BTreeMap<String, ActiveRecord>,
    ) -> Self {
        let mut notices = desired.notices.clone();
        let settings = match Settings::read(desired.config.as_deref().unwrap_or_default()) {
            Ok((settings, notes)) => {
                notices.extend(notes);
                settings
            }
            Err(text) => {
                let text = format!("config.yaml: {text}; the last good settings stay");
                notices.push(Notice { subject: "ConfigMap/model-serving-config".to_owned(), text });
                self.settings.clone()
            }
        };
        // What served before, also before a restart of control, is what serves on where a manifest is broken.
        let last_valid =
            |name: &str| self.services.get(name).cloned().or_else(|| Some(Arc::new(kept(records.get(name)?))));
        let (mut services, mut understood) = (BTreeMap::new(), BTreeMap::new());
        let (manifests, refused) = manifests(desired, |name| last_valid(name).map(|last| last.model.id.clone()));
        notices.extend(refused);
        for (name, manifest) in manifests {
            if let (Some(last), Some(converted)) = (self.understood.get(name), self.services.get(name))
                && last.is(&manifest)
            {
                services.insert(name.clone(), converted.clone());
                understood.insert(name.clone(), manifest);
                continue;
            }
            let subject = manifest.subject(name);
            match manifest.convert() {
                Ok(converted) => {
                    services.insert(name.clone(), Arc::new(converted));
                    understood.insert(name.clone(), manifest);
                }
                Err(error) => {
                    let last = last_valid(name);
                    let rest = if last.is_some() { "; the last valid model keeps serving" } else { "" };
                    notices.push(Notice { subject, text: format!("{error}{rest}") });
                    services.extend(last.map(|last| (name.clone(), last)));
                }
            }
        }
        let mut unread = self.unread.clone().unwrap_or_else(|| records.keys().cloned().collect());
        let is_said =
            |name: &str| desired.inference_services.contains_key(name) || desired.predictors.contains_key(name);
        unread.retain(|name| desired.incomplete && !is_said(name));
        services.extend(unread.iter().filter_map(|name| Some((name.clone(), last_valid(name)?))));
        let labels = RuntimeLabels::of(desired, built_in, settings.rest);
        let mut instances = desired.instances.clone();
        instances.extend(config.instances.iter().cloned());
        instances.retain(|address, _| {
            let may_dial = config.tls.is_some() || is_loopback(address);
            if !may_dial {
                let text =
                    "it is no loopback address, and is not dialled: that takes mTLS, give --tls-cert, --tls-key and --tls-ca"
                        .to_owned();
                notices.push(Notice { subject: format!("instance/{address}"), text });
            }
            may_dial
        });
        Self {
            services,
            understood,
            labels,
            settings,
            instances,
            notices,
            frozen: desired.frozen,
            storage_changes: desired.storage_changes,
            unread: Some(unread),
        }
    }

    /// A notice about what serves a name.
    pub(super) fn about(&self, name: &str, text: String) -> Notice {
        let kind = self.services.get(name).map_or(Kind::Service, |asked| Kind::of_model(&asked.model.id));
        Notice { subject: format!("{}/{name}", kind.name()), text }
    }
}

// === impl Manifest ===

impl Manifest {
    /// Whether it is the same object as another.
    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Service(one), Self::Service(other)) => Arc::ptr_eq(one, other),
            (Self::Predictor(one), Self::Predictor(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }

    fn kind(&self) -> Kind {
        match self {
            Self::Service(_) => Kind::Service,
            Self::Predictor(_) => Kind::Predictor,
        }
    }

    fn subject(&self, name: &str) -> String {
        format!("{}/{name}", self.kind().name())
    }

    fn convert(&self) -> Result<Converted, ConvertError> {
        match self {
            Self::Service(service) => convert::convert(service),
            Self::Predictor(predictor) => convert::convert_predictor(predictor),
        }
    }
}

/// The objects that count, one a name, and why others do not. Of an InferenceService and a Predictor of one name that one
/// counts of which the name's last model is; where there was none, the Predictor.
fn manifests(desired: &Desired, last: impl Fn(&str) -> Option<String>) -> (BTreeMap<&String, Manifest>, Vec<Notice>) {
    let predictors = desired.predictors.iter().map(|(name, it)| (name, Manifest::Predictor(it.clone())));
    let mut counting: BTreeMap<&String, Manifest> = predictors.collect();
    let mut refused = Vec::new();
    for (name, service) in &desired.inference_services {
        let mut other = Manifest::Service(service.clone());
        if !convert::is_ours(service) {
            let text = format!("it is not served: annotation `{DEPLOYMENT_MODE}: {MODEL_MESH}` is what asks for that");
            refused.push(Notice { subject: other.subject(name), text });
            continue;
        }
        if let Some(predictor) = counting.get_mut(name) {
            if last(name).is_some_and(|id| Kind::of_model(&id) == Kind::Service) {
                std::mem::swap(predictor, &mut other);
            }
            let text = ConvertError::OtherSource(counting[name].kind()).to_string();
            refused.push(Notice { subject: other.subject(name), text });
            continue;
        }
        counting.insert(name, other);
    }
    (counting, refused)
}

/// Names of the services that are another than before, or are there in one of both only.
pub(super) fn changed<'a>(before: &'a Catalog, after: &'a Catalog) -> impl Iterator<Item = &'a String> {
    let same = |name: &str, now: &Arc<Converted>| {
        before.services.get(name).is_some_and(|then| Arc::ptr_eq(then, now) || then == now)
    };
    let changed = after.services.iter().filter(move |(name, now)| !same(name, now)).map(|(name, _)| name);
    changed.chain(before.services.keys().filter(|name| !after.services.contains_key(*name)))
}

/// Whether an address `host:port` is on this machine alone.
fn is_loopback(address: &str) -> bool {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host == "localhost" || address.parse::<SocketAddr>().is_ok_and(|address| address.ip().to_canonical().is_loopback())
}

/// What a record says of an InferenceService that cannot be read.
fn kept(record: &ActiveRecord) -> Converted {
    Converted { model: record.active.clone(), min_copies: 0, max_copies: None, load_timeout: None, canary: None }
}

/// Reads runtimes that the binary brings.
pub(super) fn built_in(documents: &[String]) -> Result<BTreeMap<String, RuntimeSpec>, Error> {
    let bad = |text: String| Error::BuiltIn(text);
    let read = |document: &String| {
        let kind: serde_json::Value = serde_saphyr::from_str(document).map_err(|error| bad(error.to_string()))?;
        let (name, spec) = if kind["kind"] == "ClusterServingRuntime" {
            let runtime: ClusterServingRuntime =
                serde_saphyr::from_str(document).map_err(|error| bad(error.to_string()))?;
            (runtime.metadata.name, runtime.spec.0)
        } else {
            let runtime: ServingRuntime = serde_saphyr::from_str(document).map_err(|error| bad(error.to_string()))?;
            (runtime.metadata.name, runtime.spec.0)
        };
        let name = name.ok_or_else(|| bad("it has no metadata.name".to_owned()))?;
        Ok((name, spec))
    };
    documents.iter().map(read).collect()
}
