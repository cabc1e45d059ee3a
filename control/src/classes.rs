//! Which runtimes may serve a type of model. A runtime has labels; a type string is a list of labels that it must have.

use std::collections::{BTreeMap, BTreeSet};

use crate::{crd::RuntimeSpec, source::Desired};

/// Labels of the runtimes that may be used, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuntimeLabels(BTreeMap<String, BTreeSet<String>>);

// === impl RuntimeLabels ===

impl RuntimeLabels {
    /// The labels of all runtimes of a desired state, and of `built_in` ones where it has none of that name. A
    /// namespaced runtime hides the cluster's one of its name, even if it cannot be used itself.
    #[must_use]
    pub fn of(desired: &Desired, built_in: &BTreeMap<String, RuntimeSpec>, rest: bool) -> Self {
        let mut specs: BTreeMap<&str, &RuntimeSpec> =
            built_in.iter().map(|(name, spec)| (name.as_str(), spec)).collect();
        specs.extend(desired.cluster_runtimes.iter().map(|(name, runtime)| (name.as_str(), &runtime.spec.0)));
        specs.extend(desired.runtimes.iter().map(|(name, runtime)| (name.as_str(), &runtime.spec.0)));
        let usable = specs.into_iter().filter(|(_, spec)| spec.takes_models());
        Self(usable.map(|(name, spec)| (name.to_owned(), labels(name, spec, rest))).collect())
    }

    /// The runtimes that may serve models of a type, sorted; empty if none.
    #[must_use]
    pub fn serving(&self, model_type: &str) -> Vec<String> {
        let fits = |labels: &BTreeSet<String>| model_type.split('|').all(|label| labels.contains(label));
        self.0.iter().filter(|(_, labels)| fits(labels)).map(|(name, _)| name.clone()).collect()
    }
}

fn labels(name: &str, spec: &RuntimeSpec, rest: bool) -> BTreeSet<String> {
    let mut labels = BTreeSet::from([format!("rt:{name}")]);
    for format in spec.supported_model_formats.iter().filter(|format| format.auto_select == Some(true)) {
        labels.insert(format!("mt:{}", format.name));
        if let Some(version) = &format.version {
            labels.insert(format!("mt:{}:{version}", format.name));
        }
    }
    for protocol in &spec.protocol_versions {
        labels.insert(format!("pv:{protocol}"));
        if rest && protocol == "grpc-v2" {
            labels.insert("pv:v2".to_owned());
        }
    }
    labels
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;
    use crate::crd::{ClusterServingRuntime, ClusterServingRuntimeSpec, ServingRuntime, ServingRuntimeSpec};

    fn spec(extra: Value) -> RuntimeSpec {
        let mut spec = json!({
            "multiModel": true,
            "containers": [],
            "protocolVersions": ["grpc-v2"],
            "supportedModelFormats": [
                {"name": "onnx", "version": "1", "autoSelect": true},
                {"name": "keras", "version": "2"},
            ],
        });
        spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        serde_json::from_value(spec).unwrap()
    }

    fn desired(namespaced: &[(&str, Value)], cluster: &[(&str, Value)]) -> Desired {
        let mut desired = Desired::default();
        for (name, extra) in namespaced {
            let runtime = ServingRuntime::new(name, ServingRuntimeSpec(spec(extra.clone())));
            desired.runtimes.insert((*name).to_owned(), Arc::new(runtime));
        }
        for (name, extra) in cluster {
            let runtime = ClusterServingRuntime::new(name, ClusterServingRuntimeSpec(spec(extra.clone())));
            desired.cluster_runtimes.insert((*name).to_owned(), Arc::new(runtime));
        }
        desired
    }

    #[test]
    fn a_type_matches_by_exact_labels_and_an_explicit_runtime_by_name_alone() {
        let labels = RuntimeLabels::of(&desired(&[("triton", json!({}))], &[]), &BTreeMap::new(), true);
        for model_type in ["mt:onnx", "mt:onnx:1", "mt:onnx|pv:grpc-v2", "mt:onnx:1|pv:v2", "rt:triton"] {
            assert_eq!(labels.serving(model_type), ["triton"], "{model_type}");
        }
        for model_type in ["mt:onnx:1.15", "mt:keras", "mt:onnx|pv:v1", "rt:other", "", "mt:onnx|"] {
            assert!(labels.serving(model_type).is_empty(), "{model_type}");
        }
        let grpc_only = RuntimeLabels::of(&desired(&[("triton", json!({}))], &[]), &BTreeMap::new(), false);
        assert!(grpc_only.serving("mt:onnx|pv:v2").is_empty());
    }

    #[test]
    fn disabled_and_single_model_runtimes_take_nothing() {
        for extra in [json!({"disabled": true}), json!({"multiModel": false}), json!({"multiModel": null})] {
            let labels = RuntimeLabels::of(&desired(&[("r", extra)], &[]), &BTreeMap::new(), true);
            assert!(labels.serving("mt:onnx").is_empty());
        }
    }

    #[test]
    fn all_runtimes_that_fit_serve_whatever_their_priority() {
        let format =
            |priority| json!({"supportedModelFormats": [{"name": "onnx", "autoSelect": true, "priority": priority}]});
        let labels = RuntimeLabels::of(
            &desired(&[("first", format(9)), ("second", format(1))], &[("third", format(5))]),
            &BTreeMap::new(),
            true,
        );
        assert_eq!(labels.serving("mt:onnx"), ["first", "second", "third"]);
    }

    #[test]
    fn a_namespaced_runtime_hides_the_cluster_one_and_both_hide_the_built_in_one() {
        let built_in = BTreeMap::from([("r".to_owned(), spec(json!({})))]);
        let of = |desired| RuntimeLabels::of(&desired, &built_in, true).serving("mt:onnx");
        assert_eq!(of(desired(&[], &[])), ["r"]);
        assert_eq!(of(desired(&[], &[("r", json!({})), ("s", json!({}))])), ["r", "s"]);
        for extra in [json!({"disabled": true}), json!({"multiModel": false})] {
            assert!(of(desired(&[("r", extra)], &[("r", json!({}))])).is_empty());
        }
        assert!(of(desired(&[], &[("r", json!({"multiModel": false}))])).is_empty());
    }
}
