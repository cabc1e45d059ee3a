//! A Predictor, turned into the model that serves it.

use super::{Asked, ConvertError, Converted, id, storage::Location};
use crate::crd::{Predictor, PredictorSpec};

/// Turns a Predictor into what it asks for.
///
/// # Errors
///
/// Why it cannot be served, in ModelMesh's words.
pub fn convert_predictor(predictor: &Predictor) -> Result<Converted, ConvertError> {
    let name = predictor.metadata.name.as_deref().unwrap_or_default();
    let spec = &predictor.spec;
    let location = location(spec)?;
    let asked = Asked::of(&predictor.metadata)?;
    let runtime = spec.runtime.as_ref().map(|runtime| runtime.name.as_str());
    let id = id::of_predictor(name, spec);
    Ok(asked.converted(id, &spec.model_type, location, runtime, spec.protocol_version.as_deref()))
}

/// Where the model is. Without `storage` nothing of it is said, which fails the load.
fn location(spec: &PredictorSpec) -> Result<Location, ConvertError> {
    let Some(storage) = &spec.storage else { return Ok(Location::default()) };
    if storage.path.is_some() && !spec.path.is_empty() {
        return Err(ConvertError::BothPaths);
    }
    if storage.schema_path.is_some() && spec.schema_path.is_some() {
        return Err(ConvertError::BothSchemaPaths);
    }
    if storage.persistent_volume_claim.is_some() {
        return Err(ConvertError::PersistentVolumeClaim);
    }
    let others = storage.path.is_some()
        || storage.schema_path.is_some()
        || storage.parameters.is_some()
        || storage.key.is_some();
    if storage.s3.is_some() && others {
        return Err(ConvertError::S3AndOthers);
    }
    let s3 = storage.s3.as_ref();
    let bucket = || s3?.bucket.clone().map(|bucket| [("bucket".to_owned(), bucket)].into());
    Ok(Location {
        path: storage.path.clone().unwrap_or_else(|| spec.path.clone()),
        schema_path: storage.schema_path.clone().or_else(|| spec.schema_path.clone()),
        key: storage.key.clone().or_else(|| s3.map(|s3| s3.secret_key.clone())),
        parameters: storage.parameters.clone().or_else(bucket).unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use kube::CustomResourceExt;
    use serde_json::{Value, json};

    use super::*;
    use crate::crd::PredictorStatus;

    fn predictor(spec: Value) -> Predictor {
        serde_json::from_value(json!({
            "apiVersion": "serving.kserve.io/v1alpha1",
            "kind": "Predictor",
            "metadata": {"name": "example"},
            "spec": spec,
        }))
        .unwrap()
    }

    fn converted(spec: Value) -> Converted {
        convert_predictor(&predictor(spec)).unwrap()
    }

    #[test]
    fn the_ids_of_the_documented_predictors_equal_the_golden_vectors() {
        for (format, path, hash) in [
            ("sklearn", "sklearn/mnist-svm.joblib", "7702c1b55a"),
            ("xgboost", "xgboost/mushroom.json", "f624b27e99"),
            ("pytorch", "pytorch/cifar", "d2b754f2bf"),
            ("tensorflow", "tensorflow/mnist.savedmodel", "c3597b719f"),
            ("lightgbm", "lightgbm/mushroom.bst", "297b372253"),
        ] {
            let spec = json!({
                "modelType": {"name": format},
                "path": path,
                "storage": {"s3": {"secretKey": "localMinIO"}},
            });
            let model = converted(spec).model;
            assert_eq!(model.id, format!("example__ksp-{hash}"), "{format}");
            assert_eq!((model.path.as_str(), model.model_type), (path, format!("mt:{format}")));
            assert_eq!(model.key, format!(r#"{{"storage_key":"localMinIO","model_type":{{"name":"{format}"}}}}"#));
        }
    }

    #[test]
    fn the_current_form_of_the_storage_names_path_schema_key_and_parameters() {
        let spec = json!({
            "modelType": {"name": "onnx", "version": "1"},
            "storage": {"path": "p", "schemaPath": "s.json", "key": "k", "parameters": {"bucket": "b"}},
        });
        let model = converted(spec).model;
        assert_eq!((model.path.as_str(), model.model_type.as_str()), ("p", "mt:onnx:1"));
        let key = r#"{"storage_key":"k","storage_params":{"bucket":"b"},"model_type":{"name":"onnx","version":"1"},"schema_path":"s.json"}"#;
        assert_eq!(model.key, key);
    }

    #[test]
    fn the_older_form_of_the_storage_counts_where_the_current_one_is_not_used() {
        let spec = json!({
            "modelType": {"name": "onnx"}, "path": "p", "schemaPath": "s.json",
            "storage": {"s3": {"secretKey": "k", "bucket": "b"}},
        });
        let older = converted(spec).model;
        let key = r#"{"storage_key":"k","storage_params":{"bucket":"b"},"model_type":{"name":"onnx"},"schema_path":"s.json"}"#;
        assert_eq!((older.path.as_str(), older.key.as_str()), ("p", key));
        let mixed =
            json!({"modelType": {"name": "onnx"}, "path": "p", "schemaPath": "s.json", "storage": {"key": "k"}});
        let mixed = converted(mixed).model;
        assert_eq!(mixed.path, "p");
        assert_eq!(mixed.key, r#"{"storage_key":"k","model_type":{"name":"onnx"},"schema_path":"s.json"}"#);
    }

    #[test]
    fn without_a_storage_nothing_of_the_place_is_told() {
        let model = converted(json!({"modelType": {"name": "onnx"}, "path": "p", "schemaPath": "s.json"})).model;
        assert_eq!((model.path.as_str(), model.key.as_str()), ("", r#"{"model_type":{"name":"onnx"}}"#));
    }

    #[test]
    fn an_explicit_runtime_and_a_protocol_choose_the_runtimes() {
        let of = |more: Value| {
            let mut spec = json!({"modelType": {"name": "onnx"}, "storage": {"path": "p"}});
            spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            converted(spec).model.model_type
        };
        assert_eq!(of(json!({"runtime": {"name": "r"}, "protocolVersion": "v2"})), "rt:r");
        assert_eq!(of(json!({"runtime": {"name": ""}})), "mt:onnx");
        assert_eq!(of(json!({"protocolVersion": "grpc-v2"})), "mt:onnx|pv:grpc-v2");
        assert_eq!(of(json!({"protocolVersion": ""})), "mt:onnx");
    }

    #[test]
    fn gpu_and_service_account_change_nothing_but_the_id() {
        let plain = json!({"modelType": {"name": "onnx"}, "storage": {"path": "p"}});
        let before = converted(plain.clone()).model;
        for (field, value) in [("gpu", "required"), ("gpu", "preferred"), ("serviceAccountName", "a")] {
            let mut spec = plain.clone();
            spec[field] = json!(value);
            let after = converted(spec).model;
            assert_ne!(after.id, before.id, "{field}");
            assert_eq!(crate::source::KeptModel { id: before.id.clone(), ..after }, before);
        }
    }

    #[test]
    fn what_contradicts_itself_is_refused_in_the_order_and_words_of_modelmesh() {
        let mut spec = json!({
            "modelType": {"name": "onnx"}, "path": "p", "schemaPath": "s",
            "storage": {
                "path": "p", "schemaPath": "s", "persistentVolumeClaim": {"claimName": "c"}, "s3": {"secretKey": "k"},
            },
        });
        let refused = |spec: &Value| convert_predictor(&predictor(spec.clone())).unwrap_err().to_string();
        assert_eq!(refused(&spec), "Only one of spec.path and spec.storage.path can be specified");
        spec["path"] = json!("");
        assert_eq!(refused(&spec), "Only one of spec.schemaPath and spec.storage.schemaPath can be specified");
        spec.as_object_mut().unwrap().remove("schemaPath");
        assert_eq!(refused(&spec), "spec.storage.PersistentVolumeClaim is not supported");
        spec["storage"].as_object_mut().unwrap().remove("persistentVolumeClaim");
        for other in [json!({"path": "p"}), json!({"schemaPath": "s"}), json!({"parameters": {}}), json!({"key": "k"})]
        {
            spec["storage"] = other;
            spec["storage"]["s3"] = json!({"secretKey": "k"});
            assert_eq!(refused(&spec), "spec.storage.s3 cannot be specified with any other keys in spec.storage");
        }
    }

    #[test]
    fn the_resource_has_the_columns_and_the_status_that_users_tools_read() {
        let crd = serde_json::to_value(Predictor::crd()).unwrap();
        let version = &crd["spec"]["versions"][0];
        assert_eq!(
            (&crd["metadata"]["name"], &version["name"]),
            (&json!("predictors.serving.kserve.io"), &json!("v1alpha1"))
        );
        let columns: Vec<_> =
            version["additionalPrinterColumns"].as_array().unwrap().iter().map(|it| &it["name"]).collect();
        assert_eq!(columns, ["Type", "Available", "ActiveModel", "TargetModel", "Transition", "Age"]);
        let schema = &version["schema"]["openAPIV3Schema"]["properties"];
        assert_eq!(schema["spec"]["required"], json!(["modelType"]));
        let fresh = json!({
            "available": false, "transitionStatus": "UpToDate", "activeModelState": "Pending", "targetModelState": "",
            "httpEndpoint": "", "grpcEndpoint": "", "totalCopies": 0, "failedCopies": 0,
        });
        assert_eq!(serde_json::to_value(PredictorStatus::default()).unwrap(), fresh);
        let failure = &schema["status"]["properties"]["lastFailureInfo"]["properties"];
        for field in ["location", "reason", "message", "modelId", "time"] {
            assert!(failure[field].is_object(), "{field}: {failure}");
        }
    }
}
