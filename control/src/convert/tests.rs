use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn service(spec: Value, annotations: &[(&str, &str)]) -> InferenceService {
    let annotations: BTreeMap<_, _> = annotations.iter().copied().collect();
    serde_json::from_value(json!({
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": "example", "annotations": annotations},
        "spec": {"predictor": spec},
    }))
    .unwrap()
}

fn model(storage: Value) -> Value {
    let mut model = json!({"modelFormat": {"name": "sklearn"}});
    model.as_object_mut().unwrap().extend(storage.as_object().unwrap().clone());
    json!({ "model": model })
}

fn converted(spec: Value) -> Converted {
    convert(&service(spec, &[])).unwrap()
}

fn error(spec: Value) -> String {
    convert(&service(spec, &[])).unwrap_err().to_string()
}

fn from_uri(uri: &str) -> (String, Value) {
    let model = converted(model(json!({"storageUri": uri}))).model;
    let key: Value = serde_json::from_str(&model.key).unwrap();
    (model.path, key["storage_params"].clone())
}

#[test]
fn the_ids_of_the_documented_inference_services_equal_the_golden_vectors() {
    let golden = [
        ("keras", "keras/mnist.h5", "f4b5d2a9d9"),
        ("lightgbm", "lightgbm/mushroom.bst", "2af13bcb6b"),
        ("onnx", "onnx/mnist.onnx", "82e2bf7ea4"),
        ("pytorch", "pytorch/cifar", "14566b8677"),
        ("tensorflow", "tensorflow/mnist.savedmodel", "ff5d3cbc6f"),
        ("xgboost", "xgboost/mushroom.json", "18d687e683"),
        ("sklearn", "sklearn/mnist-svm.joblib", "6b2eb0b8bf"),
    ];
    for (format, path, hash) in golden {
        let spec = json!({"model": {"modelFormat": {"name": format}, "storage": {"key": "localMinIO", "path": path}}});
        assert_eq!(converted(spec).model.id, format!("example__isvc-{hash}"), "{format}");
    }
    let uri = model(json!({"storageUri": "s3://modelmesh-example-models/sklearn/mnist-svm.joblib"}));
    let by_uri = convert(&service(uri, &[(crd::SECRET_KEY, "localMinIO")])).unwrap();
    assert_eq!(by_uri.model.id, "example__isvc-3642375d03");
}

#[test]
fn the_key_json_is_the_one_that_modelmesh_sent() {
    let spec = model(json!({"storage": {"key": "localMinIO", "path": "p"}}));
    assert_eq!(converted(spec).model.key, r#"{"storage_key":"localMinIO","model_type":{"name":"sklearn"}}"#);
    let spec = json!({"model": {
        "modelFormat": {"name": "onnx", "version": "1"},
        "storage": {"path": "p", "schemaPath": "s.json", "parameters": {"b": "<&>", "a": "1"}},
    }});
    assert_eq!(
        converted(spec).model.key,
        r#"{"storage_params":{"a":"1","b":"\u003c\u0026\u003e"},"model_type":{"name":"onnx","version":"1"},"schema_path":"s.json"}"#
    );
}

#[test]
fn the_type_string_names_the_runtime_or_else_format_version_and_protocol() {
    let of = |fields: Value| {
        let mut spec = json!({"storage": {"path": "p"}});
        spec.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        converted(json!({ "model": spec })).model.model_type
    };
    assert_eq!(of(json!({"modelFormat": {"name": "onnx"}})), "mt:onnx");
    assert_eq!(of(json!({"modelFormat": {"name": "onnx", "version": "1"}})), "mt:onnx:1");
    assert_eq!(of(json!({"modelFormat": {"name": "onnx"}, "protocolVersion": "v2"})), "mt:onnx|pv:v2");
    assert_eq!(of(json!({"modelFormat": {"name": "onnx"}, "protocolVersion": ""})), "mt:onnx");
    assert_eq!(of(json!({"modelFormat": {"name": "onnx"}, "protocolVersion": "v2", "runtime": "r"})), "rt:r");
}

#[test]
fn every_storage_uri_gives_its_path_and_parameters() {
    let cases = [
        ("s3://bucket/a/b", "a/b", json!({"type": "s3", "bucket": "bucket"})),
        ("gs://bucket/a/b", "a/b", json!({"type": "gcs", "bucket": "bucket"})),
        ("pvc://claim/a/b", "a/b", json!({"type": "pvc", "name": "claim"})),
        (
            "https://acct.blob.core.windows.net/container/a/b",
            "a/b",
            json!({"type": "azure", "account_name": "acct", "container": "container"}),
        ),
        ("https://host:8080/a/b?x=1&y=2", "a/b", json!({"type": "http", "url": "https://host:8080?x=1&y=2"})),
        ("http://host/a%20b", "a b", json!({"type": "http", "url": "http://host"})),
        ("S3://bucket", "", json!({"type": "s3", "bucket": "bucket"})),
    ];
    for (uri, path, parameters) in cases {
        assert_eq!(from_uri(uri), (path.to_owned(), parameters), "{uri}");
    }
}

#[test]
fn parameters_of_the_uri_win_over_those_of_the_manifest() {
    let spec = model(json!({"storageUri": "s3://b/p", "storage": {"parameters": {"bucket": "other", "region": "r"}}}));
    let key: Value = serde_json::from_str(&converted(spec).model.key).unwrap();
    assert_eq!(key["storage_params"], json!({"bucket": "b", "region": "r", "type": "s3"}));
}

#[test]
fn annotations_give_key_and_schema_only_where_the_spec_does_not() {
    let annotations = [(crd::SECRET_KEY, "by-annotation"), (crd::SCHEMA_PATH, "annotated.json")];
    let spec = model(json!({"storage": {"path": "p"}}));
    let key = convert(&service(spec, &annotations)).unwrap().model.key;
    assert!(key.contains("by-annotation") && key.contains("annotated.json"), "{key}");
    let spec = model(json!({"storage": {"path": "p", "key": "k", "schemaPath": "s"}}));
    let key = convert(&service(spec, &annotations)).unwrap().model.key;
    assert!(!key.contains("annotat"), "{key}");
}

#[test]
fn a_legacy_framework_names_the_format_and_the_annotation_its_runtime() {
    let spec = json!({
        "sklearn": {"storageUri": "s3://b/p", "protocolVersion": "v2"},
        "triton": {"storageUri": "s3://b/q"},
    });
    assert_eq!(converted(spec.clone()).model.model_type, "mt:sklearn|pv:v2");
    let explicit = convert(&service(spec, &[(crd::SERVING_RUNTIME, "mine")])).unwrap();
    assert_eq!((explicit.model.model_type.as_str(), explicit.model.path.as_str()), ("rt:mine", "p"));
}

#[test]
fn of_several_legacy_frameworks_the_first_of_the_known_order_counts() {
    let order = ["xgboost", "lightgbm", "sklearn", "tensorflow", "onnx", "pytorch", "triton", "pmml"];
    for first in 0..order.len() {
        let location = json!({"storage": {"key": "k", "path": "p", "schemaPath": "s"}});
        let spec: serde_json::Map<_, _> =
            order[first..].iter().rev().map(|name| ((*name).to_owned(), location.clone())).collect();
        let model = converted(spec.into()).model;
        assert_eq!((model.model_type, model.path.as_str()), (format!("mt:{}", order[first]), "p"));
        assert!(model.key.contains(r#""storage_key":"k""#) && model.key.contains(r#""schema_path":"s""#));
    }
}

#[test]
fn a_change_of_what_is_served_makes_a_new_model() {
    let spec = |fields: Value, storage: Value| {
        let mut spec = json!({"modelFormat": {"name": "onnx"}, "storage": {"path": "p"}});
        spec.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        spec["storage"].as_object_mut().unwrap().extend(storage.as_object().unwrap().clone());
        converted(json!({ "model": spec })).model.id
    };
    let ids = [
        spec(json!({}), json!({})),
        spec(json!({"modelFormat": {"name": "sklearn"}}), json!({})),
        spec(json!({"modelFormat": {"name": "onnx", "version": "1"}}), json!({})),
        spec(json!({"runtime": "r"}), json!({})),
        spec(json!({"protocolVersion": "v2"}), json!({})),
        spec(json!({}), json!({"path": "q"})),
        spec(json!({}), json!({"parameters": {"bucket": "b"}})),
        spec(json!({}), json!({"key": "k"})),
        spec(json!({}), json!({"schemaPath": "s"})),
    ];
    let distinct: std::collections::BTreeSet<_> = ids.iter().collect();
    assert_eq!(distinct.len(), ids.len(), "{ids:?}");
}

#[test]
fn fields_of_pod_scale_and_container_mean_nothing() {
    let plain = model(json!({"storage": {"path": "p"}}));
    let mut full = plain.clone();
    full.as_object_mut().unwrap().extend(
        json!({
            "nodeSelector": {"gpu": "yes"}, "serviceAccountName": "s", "tolerations": [{"key": "x"}],
            "minReplicas": 2, "maxReplicas": 9, "scaleTarget": 4, "scaleMetric": "cpu", "containerConcurrency": 3,
            "timeout": 60, "logger": {"mode": "all"}, "batcher": {"maxBatchSize": 8},
        })
        .as_object()
        .unwrap()
        .clone(),
    );
    full["model"].as_object_mut().unwrap().extend(
        json!({"runtimeVersion": "9", "image": "i", "env": [{"name": "A", "value": "b"}], "resources": {"limits": {"cpu": "1"}}})
            .as_object()
            .unwrap()
            .clone(),
    );
    let mut labelled = service(full, &[]);
    labelled.metadata.labels = Some(BTreeMap::from([("team".to_owned(), "x".to_owned())]));
    assert_eq!(convert(&labelled).unwrap(), converted(plain));
}

#[test]
fn each_conversion_error_says_what_is_wrong() {
    assert_eq!(error(model(json!({}))), "must have either the storageUri or the storage.path");
    assert!(error(model(json!({"storageUri": "s3://b/p", "storage": {"path": "p"}}))).starts_with("cannot have both"));
    for uri in ["hdfs://h/p", "file:///p", "models/p", "/models/p", ""] {
        assert!(error(model(json!({"storageUri": uri}))).starts_with("unsupported storageUri scheme"), "{uri}");
    }
    for uri in ["s3://b/%zz", "s3://a b/p", "1s3://b/p", "s3://b/\u{7f}"] {
        assert!(error(model(json!({"storageUri": uri}))).contains("cannot be parsed"), "{uri}");
    }
    let location = json!({"storageUri": "s3://b/p"});
    let mut both = model(location.clone());
    both.as_object_mut().unwrap().insert("onnx".into(), location.clone());
    assert!(error(both).contains("spec.predictor.onnx"));
    for unknown in ["paddle", "huggingface"] {
        assert!(error(json!({ unknown: location.clone() })).contains("neither"), "{unknown}");
    }
    let annotated = convert(&service(model(location), &[(crd::SERVING_RUNTIME, "r")])).unwrap_err();
    assert_eq!(annotated, ConvertError::ModelAndAnnotation);
}

#[test]
fn our_annotations_are_read_and_their_bad_values_named() {
    let of = |annotations: &[(&str, &str)]| convert(&service(model(json!({"storage": {"path": "p"}})), annotations));
    let good = of(&[(crd::MIN_COPIES, "1"), (crd::MAX_COPIES, "3"), (crd::LOAD_TIMEOUT, "2m")]).unwrap();
    assert_eq!((good.min_copies, good.max_copies, good.load_timeout), (1, Some(3), Some(Duration::from_secs(120))));
    for bad in [
        [(crd::MIN_COPIES, "-1")].as_slice(),
        &[(crd::MAX_COPIES, "0")],
        &[(crd::LOAD_TIMEOUT, "90")],
        &[(crd::MIN_COPIES, "3"), (crd::MAX_COPIES, "2")],
    ] {
        let text = of(bad).unwrap_err().to_string();
        assert!(text.contains(bad[0].0), "{text}");
    }
}

#[test]
fn a_change_of_labels_or_other_annotations_makes_no_new_model() {
    let spec = model(json!({"storage": {"path": "p"}}));
    let plain = convert(&service(spec.clone(), &[])).unwrap();
    assert_eq!(convert(&service(spec, &[("team", "x"), (crd::MIN_COPIES, "0")])).unwrap(), plain);
}

proptest! {
    #[test]
    fn no_storage_uri_makes_the_conversion_panic(uri in "\\PC*|[a-z0-9:/%?#@. ]*") {
        let _ = convert(&service(model(json!({"storageUri": uri})), &[]));
    }
}
