//! The Deployment of a runtime in a namespace: a pure function of the runtime, the settings and the claims to mount.
//!
//! A pod has the runtime's own containers as they are written, with a few additions, and one container of ours, `mm-agent`.
//! The object is made for server-side apply: it has what is meant to be so and nothing else. Replicas are never in it (an
//! autoscaler may own them), so they are set through `/scale`.

mod agent;
mod endpoint;
mod names;
mod quantity;
mod scheduling;
mod servers;
mod validate;
mod volumes;

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

pub use endpoint::Endpoint;
pub use names::{AGENT, deployment_name};
pub use validate::Invalid;

use crate::crd::RuntimeSpec;

/// Seconds that a pod gets to hand over and end.
const GRACE_SECONDS: u32 = 90;
/// Value of the labels that ModelMesh's controller put on all that it made. Dashboards and policies select by it.
const MANAGER: &str = "modelmesh-controller";

/// What the settings say of runtime pods.
#[derive(Clone, Debug, PartialEq)]
pub struct PodSettings {
    /// `inferenceServiceName`: name of the Service, and first part of the Deployments' names.
    pub service: String,
    /// `agent.image`.
    pub image: String,
    /// `agent.resources`, as Kubernetes has them.
    pub resources: Value,
    /// `builtInServerTypes`.
    pub server_types: Vec<String>,
    /// `metrics`; `None` where they are off.
    pub metrics: Option<Metrics>,
    /// `storageSecretName`.
    pub storage_secret: String,
    /// `serviceAccountName`; empty = the namespace's default.
    pub service_account: String,
    /// `runtimePodLabels`.
    pub labels: BTreeMap<String, String>,
    /// `runtimePodAnnotations`.
    pub annotations: BTreeMap<String, String>,
    /// `imagePullSecrets`.
    pub pull_secrets: Vec<String>,
    /// Settings of the agent, as the environment that it reads: `agent.minChurnAge` and its like.
    pub environment: BTreeMap<String, String>,
}

/// How agents are scraped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metrics {
    /// `metrics.port`.
    pub port: u16,
    /// `metrics.scheme`.
    pub scheme: String,
}

/// A runtime in a namespace.
#[derive(Clone, Copy, Debug)]
pub struct Runtime<'a> {
    /// Its name.
    pub name: &'a str,
    /// Namespace of the Deployment, which for a ClusterServingRuntime is not its own.
    pub namespace: &'a str,
    /// What it is.
    pub spec: &'a RuntimeSpec,
    /// Annotations of the runtime object.
    pub annotations: &'a BTreeMap<String, String>,
    /// The runtime object, as an owner reference.
    pub owner: &'a Value,
}

/// The Deployment of a runtime, with `claims` (sorted) mounted read-only into its pods.
///
/// # Errors
///
/// [`Invalid`] names the first rule that the runtime breaks.
pub fn deployment(runtime: Runtime<'_>, settings: &PodSettings, claims: &[String]) -> Result<Value, Invalid> {
    let endpoints = validate::check(&runtime, settings)?;
    let spec = runtime.spec;
    let name = deployment_name(&settings.service, runtime.name);
    let selector = json!({"modelmesh-service": settings.service, "name": name});
    let mut labels = object(&selector);
    for key in ["instance", "managed-by", "name"] {
        labels.insert(format!("app.kubernetes.io/{key}"), json!(MANAGER));
    }

    let mut pod_labels = labels.clone();
    pod_labels.extend(text_map(&settings.labels));
    pod_labels.extend(text_map(&spec.labels));
    // What the Deployment selects by is not for anyone to change: it would never see its pods again.
    pod_labels.extend(object(&selector));
    let mut annotations = scraping(settings);
    annotations.extend(text_map(&settings.annotations));
    annotations.extend(text_map(&spec.annotations));

    let mut containers = servers::containers(spec, &endpoints, claims);
    containers.push(agent::container(&runtime, settings, &endpoints, claims));
    let mut pod = json!({
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "containers": containers,
        "volumes": volumes::volumes(&runtime, settings, &endpoints, claims),
        "affinity": scheduling::affinity(spec.affinity.as_ref()),
        // Agents have no business with the Kubernetes API.
        "automountServiceAccountToken": false,
    });
    let optional = [
        ("nodeSelector", non_empty(text_map(&spec.node_selector).into())),
        ("tolerations", non_empty(spec.tolerations.clone().into())),
        ("imagePullSecrets", non_empty(pull_secrets(settings, spec))),
        ("serviceAccountName", non_empty(settings.service_account.clone().into())),
    ];
    for (key, value) in optional.into_iter().filter_map(|(key, value)| Some((key, value?))) {
        pod[key] = value;
    }

    Ok(json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": name,
            "namespace": runtime.namespace,
            "labels": labels,
            "ownerReferences": [runtime.owner],
        },
        "spec": {
            "selector": {"matchLabels": selector},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "75%", "maxUnavailable": "15%"}},
            "template": {"metadata": {"labels": pod_labels, "annotations": annotations}, "spec": pod},
        },
    }))
}

fn scraping(settings: &PodSettings) -> Map<String, Value> {
    let Some(Metrics { port, scheme }) = &settings.metrics else { return Map::new() };
    object(&json!({
        "prometheus.io/path": "/metrics",
        "prometheus.io/port": port.to_string(),
        "prometheus.io/scheme": scheme,
        "prometheus.io/scrape": "true",
    }))
}

/// Those of the settings, then those of the runtime, each name once.
fn pull_secrets(settings: &PodSettings, spec: &RuntimeSpec) -> Value {
    let mut names: Vec<&str> = Vec::new();
    let own = spec.image_pull_secrets.iter().filter_map(|secret| secret["name"].as_str());
    for name in settings.pull_secrets.iter().map(String::as_str).chain(own) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names.into_iter().map(|name| json!({"name": name})).collect()
}

fn object(value: &Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap_or_default()
}

fn text_map(map: &BTreeMap<String, String>) -> Map<String, Value> {
    map.iter().map(|(key, value)| (key.clone(), json!(value))).collect()
}

fn non_empty(value: Value) -> Option<Value> {
    let empty = match &value {
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::String(text) => text.is_empty(),
        _ => false,
    };
    (!empty).then_some(value)
}
