//! Changes of the folder, seen through the Routes service.

mod common;

use std::{fs, os::unix::fs::PermissionsExt};

use common::{Client, Mesh, service};
use modelring_proto::v1::Role;

#[tokio::test]
async fn a_service_of_the_folder_is_in_the_table_with_its_class_and_the_settings() {
    let config = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: model-serving-config\ndata:\n  config.yaml: |\n    grpcMaxMessageSizeBytes: 1048576\n    proxy:\n      placeTimeout: 7s\n";
    let mesh = Mesh::start(&[("a.yaml", &service("mnist", "onnx/mnist.onnx")), ("c.yaml", config)]).await;
    let mut client = mesh.client(Role::Proxy).await;
    let table = client.until("the service", |table| table.vmodels.contains_key("mnist") && table.proxies == 1).await;
    assert_eq!(table.vmodels["mnist"].active, "mnist__isvc-82e2bf7ea4");
    let model = &table.models["mnist__isvc-82e2bf7ea4"];
    assert_eq!(model.class, "mt:onnx");
    assert_eq!(table.classes["mt:onnx"].runtimes, ["small"]);
    assert_eq!(model.r#ref.as_ref().unwrap().key, r#"{"storage_key":"localMinIO","model_type":{"name":"onnx"}}"#);
    assert_eq!((table.tuning.max_message_bytes, table.tuning.place_timeout_millis), (1 << 20, 7000));
    assert_eq!(table.tuning.drain_timeout_millis, 30_000);
    assert_eq!(table.tuning.rpcs.len(), 7);
    assert_eq!(table.wanted["mnist__isvc-82e2bf7ea4"], 1, "a new model wants one copy");
}

#[tokio::test]
async fn changes_breaks_repairs_renames_and_removals_of_files_apply_in_turn() {
    let mesh = Mesh::start(&[("a.yaml", &service("a", "one"))]).await;
    let mut client = mesh.client(Role::Observer).await;
    client.until("the first state", |table| table.active_path("a") == Some("one")).await;

    mesh.write(
        "b.json",
        &serde_json::to_string(&serde_saphyr::from_str::<serde_json::Value>(&service("b", "two")).unwrap()).unwrap(),
    );
    client.until("an added file", |table| table.active_path("b") == Some("two")).await;

    mesh.write("a.yaml", &service("a", "three"));
    client
        .until("an edit", |table| table.active_path("a") == Some("one") && !table.vmodels["a"].target.is_empty())
        .await;

    mesh.write("a.yaml", &service("a", "one").replace("        path: one", "        path: [one]"));
    let table = client.until("a broken file", |table| !table.notices.is_empty()).await;
    assert!(table.notes("a.yaml:14", "field `spec.predictor.model.storage.path`"), "{:?}", table.notices);
    assert_eq!(table.active_path("a"), Some("one"), "the last good state stays");

    mesh.write("a.yaml", &service("a", "one"));
    client.until("the repair", |table| table.notices.is_empty() && table.vmodels["a"].target.is_empty()).await;

    fs::rename(mesh.file("a.yaml"), mesh.file("z.yaml")).unwrap();
    mesh.write("c.yaml", &service("c", "c"));
    client.until("a rename", |table| table.vmodels.contains_key("c")).await;
    assert_eq!(client.table.active_path("a"), Some("one"), "a renamed file says the same");

    fs::remove_file(mesh.file("z.yaml")).unwrap();
    let table = client.until("a removal", |table| !table.vmodels.contains_key("a")).await;
    assert!(table.models.keys().all(|id| !id.starts_with("a__")));
    assert!(!mesh.file(".modelring/active/a.json").exists());
    assert!(mesh.file(".modelring/active/c.json").exists());
}

#[tokio::test]
async fn syntax_errors_and_unknown_fields_name_file_line_and_field() {
    let mesh = Mesh::start(&[
        ("good.yaml", &service("good", "p")),
        ("syntax.yaml", "kind: [\n"),
        ("empty.yaml", "# nothing\n"),
        ("noise.yaml", "just text\n"),
        ("missing.yaml", &service("m", "p").replace("        name: onnx\n", "        nome: onnx\n")),
        ("instances.yaml", "- address: 127.0.0.1:1\n  runtime: small\n  rack: 7\n"),
        ("name.yaml", &service("../evil", "p")),
        ("long.yaml", &service(&format!("a{}", ".a".repeat(119)), "p")),
    ])
    .await;
    let mut client = mesh.client(Role::Observer).await;
    let table = client.until("the table", |table| table.vmodels.contains_key("good")).await;
    assert!(table.notices.iter().any(|notice| notice.subject.starts_with("syntax.yaml:")), "{:?}", table.notices);
    assert!(table.notices.iter().any(|notice| notice.subject.starts_with("noise.yaml:")), "{:?}", table.notices);
    assert!(
        table.notices.iter().any(|n| n.subject.starts_with("missing.yaml:") && n.text.contains("name")),
        "{:?}",
        table.notices
    );
    assert!(table.notes("instances.yaml:3", "rack"), "{:?}", table.notices);
    assert!(table.notes("name.yaml:1", "metadata.name"), "{:?}", table.notices);
    assert!(table.notes("long.yaml:1", "longer than 238"), "{:?}", table.notices);
    assert!(!table.notices.iter().any(|notice| notice.subject.starts_with("empty.yaml")));
}

#[tokio::test]
async fn what_is_no_file_is_named_and_disturbs_no_other() {
    let mesh = Mesh::start(&[("a.yaml", &service("a", "p"))]).await;
    let mut client = mesh.client(Role::Observer).await;
    client.until("the table", |table| table.vmodels.contains_key("a")).await;
    std::os::unix::fs::symlink("loop.yaml", mesh.file("loop.yaml")).unwrap();
    fs::create_dir(mesh.file("folder.yaml")).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(mesh.file("pipe.yaml")).status().unwrap().success());
    mesh.write("b.yaml", &service("b", "p"));
    let table = client.until("the other file", |table| table.vmodels.contains_key("b")).await;
    for file in ["loop.yaml", "folder.yaml", "pipe.yaml"] {
        assert!(table.notes(file, "cannot be read"), "{file}: {:?}", table.notices);
    }
}

#[tokio::test]
async fn of_two_manifests_of_one_name_the_first_stays_and_both_files_are_named() {
    let mesh = Mesh::start(&[("b.yaml", &service("twin", "first"))]).await;
    let mut client = mesh.client(Role::Observer).await;
    client.until("the first", |table| table.active_path("twin") == Some("first")).await;
    mesh.write("a.yaml", &service("twin", "second"));
    let table = client.until("the notice", |table| !table.notices.is_empty()).await;
    assert!(table.notes("a.yaml:1", "is in b.yaml and in a.yaml: the one in b.yaml counts"), "{:?}", table.notices);
    assert_eq!((table.active_path("twin"), table.vmodels["twin"].target.as_str()), (Some("first"), ""));
    fs::remove_file(mesh.file("b.yaml")).unwrap();
    let table = client.until("the other takes over", |table| table.notices.is_empty()).await;
    assert!(!table.vmodels["twin"].target.is_empty(), "it is a change of the same service");
}

#[tokio::test]
async fn an_object_of_another_namespace_is_refused_and_one_without_the_annotation_is_named() {
    let other = service("other", "p").replace("  name: other", "  name: other\n  namespace: elsewhere");
    let own = service("own", "p").replace("  name: own", "  name: own\n  namespace: default");
    let plain = service("plain", "p").replace("ModelMesh", "Serverless");
    let mesh = Mesh::start(&[("o.yaml", &format!("{own}---\n{other}---\n{plain}"))]).await;
    let mut client = mesh.client(Role::Observer).await;
    let table = client.until("the table", |table| table.vmodels.contains_key("own")).await;
    assert_eq!(table.vmodels.len(), 1);
    assert!(table.notes("o.yaml:17", "namespace `elsewhere`"), "{:?}", table.notices);
    assert!(
        table.notes("InferenceService/plain", "serving.kserve.io/deploymentMode: ModelMesh"),
        "{:?}",
        table.notices
    );
}

#[tokio::test]
async fn a_service_that_loses_the_annotation_goes_as_if_it_were_deleted() {
    let mesh = Mesh::start(&[("a.yaml", &service("a", "p"))]).await;
    let mut client = mesh.client(Role::Observer).await;
    client.until("the service", |table| table.vmodels.contains_key("a")).await;
    mesh.write("a.yaml", &service("a", "p").replace("ModelMesh", "Serverless"));
    client.until("it goes", |table| table.vmodels.is_empty() && table.models.is_empty()).await;
}

#[tokio::test]
async fn a_runtime_that_comes_later_takes_the_models_that_wait_for_one() {
    let mesh = Mesh::start(&[("a.yaml", &service("a", "p").replace("name: onnx", "name: keras"))]).await;
    let mut client = mesh.client(Role::Observer).await;
    let class = |table: &common::Table| table.classes.get("mt:keras").map(|class| class.runtimes.clone());
    client.until("no runtime", |table| class(table).is_some_and(|runtimes| runtimes.is_empty())).await;
    let later = common::RUNTIME.replace("name: small", "name: later").replace("name: onnx", "name: keras");
    mesh.write("later.yaml", &later);
    client.until("the runtime", |table| class(table).is_some_and(|runtimes| runtimes == ["later"])).await;
    mesh.write("runtime.yaml", &common::RUNTIME.replace("- name: onnx", "- name: keras"));
    client
        .until("a changed one too", |table| class(table).is_some_and(|runtimes| runtimes == ["later", "small"]))
        .await;
}

#[tokio::test]
async fn the_table_routes_the_methods_of_kserve_tensorflow_and_torchserve_by_the_name_in_the_message() {
    let mesh = Mesh::start(&[]).await;
    let mut client = mesh.client(Role::Proxy).await;
    let tuning = client.until("the table", |_| true).await.tuning.clone();
    assert_eq!(tuning.allow_other_rpcs, Some(true));
    let rules: Vec<_> = tuning.rpcs.iter().map(|rule| (rule.method.as_str(), &rule.id_path[..], rule.vmodel)).collect();
    assert_eq!(
        rules,
        [
            ("inference.GRPCInferenceService/ModelConfig", &[1][..], true),
            ("inference.GRPCInferenceService/ModelInfer", &[1], true),
            ("inference.GRPCInferenceService/ModelMetadata", &[1], true),
            ("inference.GRPCInferenceService/ModelStatistics", &[1], true),
            ("inference.GRPCInferenceService/ModelStreamInfer", &[1], true),
            ("org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions", &[1], true),
            ("tensorflow.serving.PredictionService/Predict", &[1, 1], true),
        ]
    );
}

#[tokio::test]
async fn the_storage_secret_is_written_beside_the_manifests_and_follows_them() {
    let secret = "apiVersion: v1\nkind: Secret\nmetadata:\n  name: storage-config\ndata:\n  one: eyJ0eXBlIjoiczMifQ==\nstringData:\n  two: '{\"type\": \"local\"}'\n  ../three: x\n";
    let longest = "k".repeat(253);
    let secret = format!("{secret}  {longest}: long\n");
    let mesh = Mesh::start(&[("s.yaml", &secret), ("a.yaml", &service("a", "p"))]).await;
    let mut client = mesh.client(Role::Observer).await;
    let table = client.until("the table", |table| !table.notices.is_empty()).await;
    assert!(table.notes("Secret/storage-config", "`../three`"), "{:?}", table.notices);
    let entry = |name: &str| fs::read_to_string(mesh.file(".modelring/storage-config").join(name));
    assert_eq!(entry("one").unwrap(), r#"{"type":"s3"}"#);
    assert_eq!(entry("two").unwrap(), r#"{"type": "local"}"#);
    assert_eq!(entry(&longest).unwrap(), "long");
    let mode = fs::metadata(mesh.file(".modelring/storage-config/one")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(!mesh.file(".modelring/three").exists());
    let changed = secret.replace("  one: eyJ0eXBlIjoiczMifQ==", "  four: e30=").replace("  ../three: x\n", "");
    mesh.write("s.yaml", &changed);
    client.until("the change", |table| table.notices.is_empty()).await;
    assert_eq!(entry("four").unwrap(), "{}");
    assert!(entry("one").is_err());
    fs::remove_file(mesh.file("s.yaml")).unwrap();
    mesh.write("b.yaml", &service("b", "p"));
    client.until("the removal", |table| table.vmodels.contains_key("b")).await;
    assert_eq!(fs::read_dir(mesh.file(".modelring/storage-config")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_folder_that_vanished_freezes_the_last_state() {
    let mesh = Mesh::start(&[("a.yaml", &service("a", "p"))]).await;
    let mut client = mesh.client(Role::Observer).await;
    client.until("the first state", |table| table.vmodels.contains_key("a")).await;
    let aside = mesh.path().with_extension("aside");
    fs::rename(mesh.path(), &aside).unwrap();
    let table = client.until("the notice", |table| !table.notices.is_empty()).await;
    assert!(table.notices[0].text.contains("the last state stays"), "{:?}", table.notices);
    assert!(table.vmodels.contains_key("a"));
    fs::create_dir(mesh.path()).unwrap();
    let table =
        client.until("the notice", |table| table.notices.iter().any(|n| n.text.contains("another folder"))).await;
    assert!(table.vmodels.contains_key("a"), "an empty folder in its place removes nothing");
    fs::remove_dir_all(mesh.path()).unwrap();
    fs::rename(&aside, mesh.path()).unwrap();
    client.until("the folder is back", |table| table.notices.is_empty()).await;
}

#[tokio::test]
async fn an_emptied_file_keeps_its_objects_and_a_bad_setting_keeps_the_last_good_ones() {
    let config = |body: &str| {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: model-serving-config}}\ndata:\n  config.yaml: |\n    {body}\n"
        )
    };
    let mesh = Mesh::start(&[("a.yaml", &service("a", "p")), ("c.yaml", &config("grpcMaxMessageSizeBytes: 5"))]).await;
    let mut client = mesh.client(Role::Observer).await;
    client.until("the first state", |table| table.vmodels.contains_key("a")).await;
    mesh.write("a.yaml", "");
    client.until("the notice", |table| table.notes("a.yaml", "the file is empty")).await;
    assert!(client.table.vmodels.contains_key("a"));
    mesh.write("c.yaml", &config("grpcMaxMessageSizeBytes: many"));
    client.until("the notice", |table| table.notes("ConfigMap/model-serving-config", "grpcMaxMessageSizeBytes")).await;
    assert_eq!(client.table.tuning.max_message_bytes, 5);
}

#[tokio::test]
async fn each_control_takes_a_higher_epoch_and_writes_where_it_is() {
    let mut mesh = Mesh::start(&[("a.yaml", &service("a", "p"))]).await;
    let mut client = mesh.client(Role::Proxy).await;
    client.until("the table", |table| table.vmodels.contains_key("a")).await;
    let first = client.version.epoch;
    let written = fs::read_to_string(mesh.file(".modelring/control")).unwrap();
    assert_eq!(written, mesh.control.as_ref().unwrap().addr().to_string());
    mesh.restart().await;
    let mut client = mesh.client(Role::Proxy).await;
    client.until("the table", |table| table.vmodels.contains_key("a")).await;
    assert!(client.version.epoch > first);
    mesh.stop().await;
    assert!(!mesh.file(".modelring/control").exists());
}

#[tokio::test]
async fn a_control_that_hears_of_a_lost_epoch_starts_over_above_it_and_one_that_was_superseded_stops() {
    let mut mesh = Mesh::start(&[("a.yaml", &service("a", "p"))]).await;
    let address = mesh.control.as_ref().unwrap().addr().to_string();
    let last = modelring_proto::v1::Version { epoch: 40, n: 3 };
    let mut client = Client::dial(&address, Role::Proxy, Some(last)).await.unwrap();
    client.until("the table", |table| table.vmodels.contains_key("a")).await;
    assert_eq!(client.version.epoch, 41);
    mesh.write(".modelring/epoch", "50");
    let last = modelring_proto::v1::Version { epoch: 50, n: 1 };
    let _ended = Client::dial(&address, Role::Proxy, Some(last)).await;
    let error = mesh.control.as_mut().unwrap().failed().await;
    assert!(error.to_string().contains("epoch 50"), "{error}");
}

#[tokio::test]
async fn of_two_controls_over_one_folder_the_older_ends() {
    let mut mesh = Mesh::start(&[("a.yaml", &service("a", "p"))]).await;
    let newer = modelring_control::Control::start(mesh.config()).await.unwrap();
    let error = mesh.control.as_mut().unwrap().failed().await;
    assert!(matches!(error, modelring_control::Error::Superseded { .. }), "{error}");
    mesh.stop().await;
    let written = fs::read_to_string(mesh.file(".modelring/control")).unwrap();
    assert_eq!(written, newer.addr().to_string(), "the address is that of the newer one");
    newer.shutdown().await;
}

#[tokio::test]
async fn a_list_of_objects_is_read_as_kubectl_prints_it() {
    let item = |text: &str| -> serde_json::Value { serde_saphyr::from_str(text).unwrap() };
    let broken = service("c", "p").replace("        name: onnx\n", "        nome: onnx\n");
    let items = [item(&service("a", "one")), item(&service("b", "two")), item(&broken)];
    let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": items});
    let mesh = Mesh::start(&[("list.json", &serde_json::to_string_pretty(&list).unwrap())]).await;
    let mut client = mesh.client(Role::Observer).await;
    let table = client.until("the table", |table| table.vmodels.len() == 2).await;
    assert_eq!((table.active_path("a"), table.active_path("b")), (Some("one"), Some("two")));
    assert!(
        table.notices.iter().any(|notice| notice.subject.starts_with("list.json:") && notice.text.contains("name"))
    );
    let empty = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": []});
    mesh.write("list.json", &empty.to_string());
    client.until("an emptied list", |table| table.vmodels.is_empty() && table.notices.is_empty()).await;
}

#[tokio::test]
async fn a_wrong_hello_is_refused_with_the_reason() {
    let mesh = Mesh::start(&[]).await;
    let address = mesh.control.as_ref().unwrap().addr().to_string();
    let error = Client::dial(&address, Role::Control, None).await.err().unwrap();
    assert!(error.message().contains("ROLE_PROXY"), "{error}");
}

#[tokio::test]
async fn control_refuses_plaintext_beyond_loopback_and_a_folder_that_is_not_there() {
    let dir = tempfile::tempdir().unwrap();
    let config = |dir: &std::path::Path, listen: &str| modelring_control::Config {
        dir: dir.to_owned(),
        listen: listen.parse().unwrap(),
        tls: None,
        namespace: "default".to_owned(),
        instances: Vec::new(),
        built_in_runtimes: Vec::new(),
        dataplane: Default::default(),
    };
    let error = modelring_control::Control::start(config(dir.path(), "0.0.0.0:0")).await.unwrap_err();
    assert!(error.to_string().contains("loopback"), "{error}");
    let error = modelring_control::Control::start(config(&dir.path().join("no"), "127.0.0.1:0")).await.unwrap_err();
    assert!(error.to_string().contains("cannot read the folder"), "{error}");
}
