use std::os::unix::fs::symlink;

use super::*;

struct Fixture {
    dir: tempfile::TempDir,
    store: Arc<Store>,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("root/models/onnx/m.onnx", "12345"),
            ("root/models/onnx/schema.json", "{}"),
            ("root/models/other/m.onnx", "schema"),
            ("root/models/tree/1/a", "1"),
            ("root/models/tree/b", "22"),
            ("config/k", r#"{"type":"local","path":"models"}"#),
            ("config/s", r#"{"type":"gopher","bucket":"b"}"#),
        ] {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let store = Self::open(dir.path(), Some(dir.path().join("root")));
        Self { dir, store }
    }

    fn open(dir: &Path, local_root: Option<PathBuf>) -> Arc<Store> {
        fs::create_dir_all(dir.join("models")).unwrap();
        let places = Places { config_dir: Some(dir.join("config")), local_root, disk_limit: None };
        Arc::new(Store::open(&dir.join("models"), places).unwrap())
    }

    async fn pull(&self, id: &str, path: &str, key: &str) -> Result<Files, LoadError> {
        self.store.pull(&model(id, path, key), &|_, _| {}).await.map(|(files, _)| files)
    }

    fn unfinished(&self) -> usize {
        fs::read_dir(self.store.aside()).unwrap().count()
    }
}

fn model(id: &str, path: &str, key: &str) -> ModelRef {
    ModelRef {
        id: id.into(),
        model_type: "mt:onnx".to_owned(),
        path: path.to_owned(),
        key: key.to_owned(),
        size_hint: None,
        load_timeout: None,
    }
}

#[tokio::test]
async fn a_file_lies_below_the_model_id_and_the_key_tells_its_size() {
    let fixture = Fixture::new();
    let files = fixture.pull("m1", "onnx/m.onnx", r#"{"storage_key":"k","model_type":{"name":"onnx"}}"#).await.unwrap();
    assert_eq!(files.path, fixture.store.model_dir.join("m1/m.onnx"));
    assert!(files.path.is_absolute());
    assert_eq!(files.key, r#"{"model_type":{"name":"onnx"},"disk_size_bytes":5}"#);
    assert_eq!((files.bytes, fs::read_to_string(files.path).unwrap().as_str()), (5, "12345"));
    assert_eq!(fixture.unfinished(), 0);
}

#[tokio::test]
async fn what_is_looked_up_is_what_a_pull_brings() {
    let fixture = Fixture::new();
    for path in ["onnx/m.onnx", "tree", "tree/", ""] {
        let model = model("m1", path, r#"{"storage_key":"k"}"#);
        let looked_up = fixture.store.look_up(&model).await.unwrap();
        assert_eq!(looked_up, fixture.store.pull(&model, &|_, _| {}).await.unwrap().0, "{path}");
    }
}

#[tokio::test]
async fn a_folder_keeps_its_name_and_a_path_without_a_name_is_called_model() {
    let fixture = Fixture::new();
    assert_eq!(fixture.pull("m1", "tree/", r#"{"storage_key":"k"}"#).await.unwrap().bytes, 3);
    assert!(fixture.store.model_dir.join("m1/tree/1/a").is_file());
    fixture.pull("m1", "", r#"{"storage_key":"k"}"#).await.unwrap();
    assert!(fixture.store.model_dir.join("m1/_model/onnx/m.onnx").is_file());
    assert!(!fixture.store.model_dir.join("m1/tree").exists(), "a new pull replaces the files of the one before");
}

#[tokio::test]
async fn a_schema_is_brought_too_and_renamed_where_its_name_is_the_models() {
    let fixture = Fixture::new();
    let files =
        fixture.pull("m1", "onnx/m.onnx", r#"{"storage_key":"k","schema_path":"onnx/schema.json"}"#).await.unwrap();
    let schema = fixture.store.model_dir.join("m1/schema.json");
    assert_eq!(files.key, format!(r#"{{"disk_size_bytes":5,"schema_path":"{}"}}"#, schema.display()));
    assert!(schema.is_file());
    let files = fixture.pull("m1", "onnx/m.onnx", r#"{"storage_key":"k","schema_path":"other/m.onnx"}"#).await.unwrap();
    assert!(files.key.contains("m1/_schema.json"));
    assert_eq!(fs::read_to_string(fixture.store.model_dir.join("m1/_schema.json")).unwrap(), "schema");
}

#[tokio::test]
async fn a_failed_pull_leaves_nothing_and_says_why_with_the_known_words() {
    let fixture = Fixture::new();
    symlink("/etc", fixture.dir.path().join("root/models/out")).unwrap();
    for (path, key, text) in [
        (
            "onnx/none",
            r#"{"storage_key":"k"}"#,
            "Failed to pull model from storage due to error: no file or folder 'onnx/none'",
        ),
        ("../x", r#"{"storage_key":"k"}"#, "Failed to pull model from storage due to error: path '../x' climbs out of"),
        (
            "/etc/passwd",
            r#"{"storage_key":"k"}"#,
            "Failed to pull model from storage due to error: path '/etc/passwd' is absolute",
        ),
        (
            "out/passwd",
            r#"{"storage_key":"k"}"#,
            "Failed to pull model from storage due to error: path 'out/passwd' leads by a link out of",
        ),
        (
            "onnx/m.onnx",
            r#"{"storage_key":"k","schema_path":"none"}"#,
            "Failed to pull model from storage due to error: no file or folder 'none'",
        ),
        (
            "x",
            r#"{"storage_key":"s"}"#,
            "Failed to pull model from storage due to error: could not process pull command: no provider registered for repositories of type 'gopher'",
        ),
        (
            "x",
            r#"{"storage_key":"none"}"#,
            "Did not find storage config for key none: Storage secretKey not found: none",
        ),
        ("x", "{}", "Predictor Storage field missing"),
        ("x", "{", "Invalid modelKey in LoadModelRequest"),
    ] {
        let error = fixture.pull("m1", path, key).await.unwrap_err();
        assert!(error.text.starts_with(text), "{}", error.text);
        assert!(!error.passing, "{}", error.text);
        assert!(!fixture.store.model_dir.join("m1").exists(), "{path}");
        assert_eq!(fixture.unfinished(), 0, "{path}");
    }
}

#[tokio::test]
async fn local_is_an_unknown_type_without_a_root() {
    let fixture = Fixture::new();
    let store = Fixture::open(fixture.dir.path(), None);
    let error = store.look_up(&model("m1", "onnx/m.onnx", r#"{"storage_key":"k"}"#)).await.unwrap_err();
    assert!(error.text.ends_with("no provider registered for repositories of type 'local'"), "{}", error.text);
}

#[tokio::test]
async fn an_id_is_one_folder_of_the_model_directory_and_no_other() {
    let fixture = Fixture::new();
    let long = "x".repeat(256);
    for id in ["", ".", "..", "../m", "a/b", "/etc", "_modelring", ".hidden", &long] {
        let error = fixture.pull(id, "onnx/m.onnx", r#"{"storage_key":"k"}"#).await.unwrap_err();
        assert!(error.text.starts_with("invalid model id"), "{}", error.text);
        assert!(fixture.store.remove(&id.into()).await.is_err());
    }
}

#[tokio::test]
async fn models_are_listed_without_the_agents_own_folder_and_removed() {
    let fixture = Fixture::new();
    fixture.pull("m1", "tree", r#"{"storage_key":"k"}"#).await.unwrap();
    assert_eq!(fixture.store.models().await.unwrap(), ["m1".into()]);
    fixture.store.remove(&"m1".into()).await.unwrap();
    fixture.store.remove(&"m1".into()).await.unwrap();
    assert_eq!(fixture.store.models().await.unwrap(), []);
    assert!(fixture.dir.path().join("root/models/tree/b").is_file(), "the storage itself is left alone");
}

#[tokio::test]
async fn unfinished_pulls_of_an_earlier_start_are_removed() {
    let fixture = Fixture::new();
    fs::create_dir_all(fixture.store.aside().join("7/m")).unwrap();
    Fixture::open(fixture.dir.path(), None);
    assert_eq!(fixture.unfinished(), 0);
}
