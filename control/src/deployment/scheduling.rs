//! Where pods may run.

use serde_json::{Value, json};

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";

/// The runtime's affinity, and that a node be of an architecture that our image is built for. The terms of a node selector
/// are alternatives, so the demand goes into each.
pub(super) fn affinity(own: Option<&Value>) -> Value {
    let demand = json!({"key": "kubernetes.io/arch", "operator": "In", "values": ["amd64", "arm64", "s390x"]});
    let mut affinity = own.cloned().unwrap_or_default();
    let terms = list(field(field(field(&mut affinity, "nodeAffinity"), REQUIRED), "nodeSelectorTerms"));
    if terms.is_empty() {
        terms.push(json!({}));
    }
    for term in terms {
        list(field(term, "matchExpressions")).push(demand.clone());
    }
    affinity
}

/// A field of what is made an object if it is none: what the user wrote there could not be meant.
fn field<'a>(value: &'a mut Value, key: &str) -> &'a mut Value {
    if !value.is_object() {
        *value = json!({});
    }
    &mut value[key]
}

fn list(value: &mut Value) -> &mut Vec<Value> {
    if !value.is_array() {
        *value = json!([]);
    }
    value.as_array_mut().expect("it was made an array")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_alternative_keeps_its_force_and_asks_for_the_architecture() {
        let own = json!({"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "gpu", "operator": "Exists"}]},
            {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]},
        ]}}, "podAntiAffinity": {"kept": true}});
        let affinity = affinity(Some(&own));
        let terms = affinity["nodeAffinity"][REQUIRED]["nodeSelectorTerms"].as_array().unwrap();
        assert_eq!(terms.len(), 2);
        assert_eq!(terms[0]["matchExpressions"].as_array().unwrap().len(), 2);
        assert_eq!(terms[1]["matchExpressions"][0]["key"], "kubernetes.io/arch");
        assert_eq!(terms[1]["matchFields"][0]["values"][0], "n1");
        assert_eq!(affinity["podAntiAffinity"]["kept"], true);
    }

    #[test]
    fn nonsense_is_no_affinity() {
        for own in
            [json!("x"), json!({"nodeAffinity": 1}), json!({"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": [7]}}})]
        {
            let affinity = affinity(Some(&own));
            let terms = &affinity["nodeAffinity"][REQUIRED]["nodeSelectorTerms"];
            assert_eq!(terms[0]["matchExpressions"][0]["key"], "kubernetes.io/arch", "{own}");
        }
    }
}
