//! What lies in a model's folder afterwards.

use std::os::unix::fs::symlink;

use super::*;

struct Fixture {
    dir: tempfile::TempDir,
}

impl Fixture {
    fn new(files: &[(&str, &str)]) -> Self {
        let fixture = Self { dir: tempfile::tempdir().unwrap() };
        fs::create_dir(fixture.out()).unwrap();
        for (name, text) in files {
            let path = fixture.path(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        fixture
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().canonicalize().unwrap().join(name)
    }

    fn out(&self) -> std::path::PathBuf {
        self.path("out")
    }

    fn lay_out(&self, path: &str, key: &str) -> Result<LaidOut, LoadError> {
        let key = AdapterKey::read(&key.replace("$", self.path("").to_str().unwrap()), "").unwrap();
        lay_out(&self.out(), &"a__isvc-0123456789".into(), &self.path(path), &key)
    }

    fn settings(&self) -> Value {
        serde_json::from_slice(&fs::read(self.out().join(SETTINGS)).unwrap()).unwrap()
    }
}

const SCHEMA: (&str, &str) = ("m/schema.json", r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[-1,64]}]}"#);

#[test]
fn a_file_is_linked_and_gets_settings() {
    let fixture = Fixture::new(&[("m/svm.joblib", "weights"), SCHEMA]);
    let laid_out =
        fixture.lay_out("m/svm.joblib", r#"{"model_type":{"name":"SKLearn"},"schema_path":"$m/schema.json"}"#).unwrap();
    assert!(laid_out.implementation_is_known);
    let link = fixture.out().join("svm.joblib");
    assert_eq!(fs::read_link(&link).unwrap(), fixture.path("m/svm.joblib"), "absolute");
    let expected = json!({
        "name": "a__isvc-0123456789",
        "implementation": "mlserver_sklearn.SKLearnModel",
        "parameters": {"uri": link},
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 64]}],
    });
    assert_eq!(fixture.settings(), expected);
    assert_eq!(fs::metadata(fixture.out().join(SETTINGS)).unwrap().permissions().mode() & 0o777, 0o664);
    assert_eq!(fs::read_dir(fixture.out()).unwrap().count(), 2, "nothing else is left");
}

#[test]
fn a_plain_folder_is_linked_as_a_whole() {
    let fixture = Fixture::new(&[("m/model/weights.bst", "w"), ("m/model/more", "m")]);
    fixture.lay_out("m/model", r#"{"model_type":"lightgbm"}"#).unwrap();
    assert_eq!(fs::read_link(fixture.out().join("model")).unwrap(), fixture.path("m/model"));
    assert_eq!(fixture.settings()["parameters"]["uri"], json!(fixture.out().join("model")));
    assert_eq!(fixture.settings()["implementation"], "mlserver_lightgbm.LightGBMModel");
}

#[test]
fn each_type_has_its_implementation_and_an_unknown_one_has_none() {
    for (model_type, implementation) in [
        ("sklearn", json!("mlserver_sklearn.SKLearnModel")),
        ("xgboost", json!("mlserver_xgboost.XGBoostModel")),
        ("lightgbm", json!("mlserver_lightgbm.LightGBMModel")),
        ("mllib", json!("mlserver_mllib.MLlibModel")),
        ("mine", Value::Null),
    ] {
        let fixture = Fixture::new(&[("m/f", "w")]);
        let laid_out = fixture.lay_out("m/f", &json!({"model_type": model_type}).to_string()).unwrap();
        assert_eq!(fixture.settings()["implementation"], implementation);
        assert_eq!(laid_out.implementation_is_known, !implementation.is_null());
    }
}

#[test]
fn given_settings_keep_all_but_name_place_and_described_tensors() {
    let given = r#"{"name":"mine","implementation":"my.Model","max_batch_size":5,"inputs":[],"outputs":[{"name":"y"}],
        "parameters":{"uri":"./weights/model.json","version":"v0.1.0","extra":{"a":1}}}"#;
    let fixture = Fixture::new(&[
        ("m/model/model-settings.json", given),
        ("m/model/weights/model.json", "w"),
        ("m/model/my.py", "code"),
        SCHEMA,
    ]);
    fixture.lay_out("m/model", r#"{"model_type":"sklearn","schema_path":"$m/schema.json"}"#).unwrap();
    let uri = fixture.out().join("weights/model.json");
    let expected = json!({
        "name": "a__isvc-0123456789",
        "implementation": "my.Model",
        "max_batch_size": 5,
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 64]}],
        "outputs": [{"name": "y"}],
        "parameters": {"uri": uri, "version": "v0.1.0", "extra": {"a": 1}},
    });
    assert_eq!(fixture.settings(), expected);
    assert_eq!(fs::read_to_string(uri).unwrap(), "w", "the place leads to the weights");
    for name in ["weights", "my.py"] {
        assert_eq!(fs::read_link(fixture.out().join(name)).unwrap(), fixture.path("m/model").join(name));
    }
}

#[test]
fn a_place_in_given_settings_is_meant_from_the_models_folder_and_cannot_leave_it() {
    let settings = |uri: &str| json!({"parameters": {"uri": uri}}).to_string();
    let fixture = Fixture::new(&[("m/model/model-settings.json", &settings("/weights"))]);
    fixture.lay_out("m/model", "{}").unwrap();
    assert_eq!(fixture.settings()["parameters"]["uri"], json!(fixture.out().join("weights")));
    let fixture = Fixture::new(&[("m/model/model-settings.json", &settings("a/../../../etc"))]);
    let error = fixture.lay_out("m/model", "{}").unwrap_err();
    assert!(error.text.contains("climbs out of"), "{}", error.text);
}

#[test]
fn odd_given_settings_fail_with_a_text() {
    for (given, complaint) in [
        (r#"{"parameters":5}"#, "parameters is not an object"),
        (r#"{"parameters":{"uri":5}}"#, "parameters.uri is not a string"),
    ] {
        let fixture = Fixture::new(&[("m/model/model-settings.json", given)]);
        let error = fixture.lay_out("m/model", "{}").unwrap_err();
        assert!(
            error.text.contains(complaint) && error.text.contains("model-settings.json' is wrong"),
            "{}",
            error.text
        );
        assert!(!error.passing);
    }
}

#[test]
fn given_settings_that_are_no_json_object_are_left_to_mlserver() {
    for given in ["{", "[]", "no json"] {
        let fixture = Fixture::new(&[("m/model/model-settings.json", given)]);
        fixture.lay_out("m/model", "{}").unwrap();
        assert_eq!(fs::read_to_string(fixture.out().join(SETTINGS)).unwrap(), given);
    }
}

#[test]
fn a_model_that_is_not_there_or_is_a_settings_file_is_refused_and_the_source_untouched() {
    let fixture = Fixture::new(&[("m/model-settings.json", "{}")]);
    assert!(fixture.lay_out("m/none", "{}").unwrap_err().text.contains("m/none'"));
    let error = fixture.lay_out("m/model-settings.json", r#"{"model_type":"sklearn"}"#).unwrap_err();
    assert!(error.text.contains("is no model"), "{}", error.text);
    assert_eq!(fs::read_to_string(fixture.path("m/model-settings.json")).unwrap(), "{}");
}

#[test]
fn a_wrong_schema_fails_the_load() {
    let fixture = Fixture::new(&[("m/f", "w"), ("m/schema.json", "{")]);
    let error = fixture.lay_out("m/f", r#"{"schema_path":"$m/schema.json"}"#).unwrap_err();
    assert!(error.text.contains("schema.json' is wrong"), "{}", error.text);
}

#[test]
fn what_was_pulled_may_itself_be_a_link() {
    let fixture = Fixture::new(&[("elsewhere/model-settings.json", "{}"), ("elsewhere/w", "w")]);
    symlink(fixture.path("elsewhere"), fixture.path("model")).unwrap();
    fixture.lay_out("model", "{}").unwrap();
    assert_eq!(fs::read_to_string(fixture.out().join("w")).unwrap(), "w");
}

#[test]
fn settings_of_further_models_below_a_models_folder_are_refused() {
    let nested = "m/model/extra/deep/model-settings.json";
    for top in [Some("m/model/model-settings.json"), None] {
        let files = [("m/model/weights", "w"), (nested, r#"{"name":"other__isvc-0123456789"}"#)];
        let fixture = Fixture::new(&files.into_iter().chain(top.map(|top| (top, "{}"))).collect::<Vec<_>>());
        let error = fixture.lay_out("m/model", r#"{"model_type":"sklearn"}"#).unwrap_err();
        assert!(error.text.contains(nested) && error.text.contains("as a further model"), "{}", error.text);
        assert!(!error.passing);
        assert_eq!(fs::read_dir(fixture.out()).unwrap().count(), 0, "nothing is there for MLServer to find");
    }
    let fixture = Fixture::new(&[("elsewhere/model-settings.json", "{}"), ("m/model/w", "w")]);
    symlink(fixture.path("elsewhere"), fixture.path("m/model/link")).unwrap();
    assert!(fixture.lay_out("m/model", "{}").unwrap_err().text.contains("is a link to a folder"), "wherever it leads");
}
