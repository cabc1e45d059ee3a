//! Deployments of runtimes: golden files for those that we bring and for custom ones, and what is refused.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;

use modelring_control::{
    crd::ServingRuntime,
    deployment::{Metrics, PodSettings, Runtime, deployment},
};
use serde_json::{Value, json};

fn settings() -> PodSettings {
    PodSettings {
        service: "modelmesh-serving".to_owned(),
        image: "modelring:test".to_owned(),
        resources: json!({"requests": {"cpu": "20m", "memory": "32Mi"}, "limits": {"cpu": "1", "memory": "256Mi"}}),
        server_types: ["triton", "mlserver", "ovms", "torchserve"].map(str::to_owned).to_vec(),
        metrics: Some(Metrics { port: 2112, scheme: "http".to_owned() }),
        storage_secret: "storage-config".to_owned(),
        service_account: String::new(),
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        pull_secrets: Vec::new(),
        environment: BTreeMap::from([("MODELRING_DRAIN_TIMEOUT".to_owned(), "30s".to_owned())]),
    }
}

fn made(manifest: &Value, settings: &PodSettings, claims: &[&str]) -> Result<Value, String> {
    let runtime: ServingRuntime = serde_json::from_value(manifest.clone()).unwrap();
    let owner = json!({"apiVersion": "serving.kserve.io/v1alpha1", "kind": "ServingRuntime", "name": runtime.metadata.name,
        "uid": "9cc0", "controller": true, "blockOwnerDeletion": true});
    let name = runtime.metadata.name.clone().unwrap();
    let annotations = runtime.metadata.annotations.clone().unwrap_or_default();
    let claims: Vec<String> = claims.iter().map(|claim| (*claim).to_owned()).collect();
    let runtime =
        Runtime { name: &name, namespace: "team-a", spec: &runtime.spec.0, annotations: &annotations, owner: &owner };
    deployment(runtime, settings, &claims).map_err(|invalid| invalid.to_string())
}

fn yaml(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap()
}

fn shipped(name: &str) -> Value {
    let path = format!("{}/../config/runtimes/{name}.yaml", env!("CARGO_MANIFEST_DIR"));
    yaml(&std::fs::read_to_string(path).unwrap())
}

fn custom(extra: &str) -> Value {
    let head = "apiVersion: serving.kserve.io/v1alpha1\nkind: ServingRuntime\nmetadata: {name: custom}\nspec:\n  multiModel: true\n  supportedModelFormats: [{name: own, version: '1', autoSelect: true}]\n";
    yaml(&format!("{head}{extra}"))
}

fn pretty(value: &Value) -> String {
    serde_saphyr::to_string(value).unwrap()
}

#[test]
fn the_runtimes_that_we_bring_have_these_deployments() {
    for name in ["modelring-onnx", "mlserver-1.x", "triton-2.x", "ovms-1.x", "torchserve-0.x"] {
        let deployment = made(&shipped(name), &settings(), &[]).unwrap();
        insta::assert_snapshot!(format!("shipped_{}", name.replace('.', "_")), pretty(&deployment));
    }
}

#[test]
fn a_custom_runtime_has_its_models_pulled_and_its_claims_mounted() {
    let manifest = custom(
        "  grpcEndpoint: port:8011\n  grpcDataEndpoint: port:8001\n  containers: [{name: server, image: own:1, resources: {limits: {memory: 1Gi}}, volumeMounts: [{name: scratch, mountPath: /scratch}]}]\n  volumes: [{name: scratch, emptyDir: {}}]\n",
    );
    insta::assert_snapshot!(pretty(&made(&manifest, &settings(), &["claim-a", "claim-b"]).unwrap()));
}

#[test]
fn a_custom_runtime_that_fetches_models_by_itself_has_no_storage_secret() {
    let manifest = custom(
        "  grpcEndpoint: port:8011\n  storageHelper: {disabled: true}\n  containers: [{name: server, image: own:1}]\n",
    );
    insta::assert_snapshot!(pretty(&made(&manifest, &settings(), &[]).unwrap()));
}

#[test]
fn unix_sockets_lie_in_a_folder_that_server_and_agent_share() {
    let manifest = custom(
        "  grpcEndpoint: unix:/run/own/management.sock\n  grpcDataEndpoint: unix:///run/own/data.sock\n  containers: [{name: server, image: own:1}]\n",
    );
    insta::assert_snapshot!(pretty(&made(&manifest, &settings(), &[]).unwrap()));
}

#[test]
fn what_is_nearer_to_the_runtime_wins_but_never_what_the_deployment_selects_by() {
    let mut settings = settings();
    settings.labels =
        BTreeMap::from([("Team".to_owned(), "config".to_owned()), ("name".to_owned(), "stolen".to_owned())]);
    settings.annotations = BTreeMap::from([("prometheus.io/port".to_owned(), "1".to_owned())]);
    settings.pull_secrets = vec!["a".to_owned(), "b".to_owned()];
    settings.service_account = "models".to_owned();
    let manifest = custom(
        "  grpcEndpoint: port:8011\n  labels: {Team: runtime}\n  annotations: {own: 'yes'}\n  imagePullSecrets: [{name: b}, {name: c}]\n  nodeSelector: {disk: ssd}\n  tolerations: [{key: gpu, operator: Exists}]\n  containers: [{name: server, image: own:1}]\n",
    );
    let deployment = made(&manifest, &settings, &[]).unwrap();
    let template = &deployment["spec"]["template"];
    assert_eq!(template["metadata"]["labels"]["Team"], "runtime");
    assert_eq!(template["metadata"]["labels"]["name"], "modelmesh-serving-custom");
    assert_eq!(template["metadata"]["annotations"]["prometheus.io/port"], "1");
    assert_eq!(template["metadata"]["annotations"]["own"], "yes");
    assert_eq!(template["spec"]["imagePullSecrets"], json!([{"name": "a"}, {"name": "b"}, {"name": "c"}]));
    assert_eq!(template["spec"]["serviceAccountName"], "models");
    assert_eq!(template["spec"]["nodeSelector"], json!({"disk": "ssd"}));
    assert_eq!(template["spec"]["tolerations"][0]["key"], "gpu");
    assert!(deployment["spec"].get("replicas").is_none());
}

#[test]
fn a_runtime_that_breaks_a_rule_is_refused_with_its_text() {
    let server = |rest: &str| {
        custom(&format!("  grpcEndpoint: port:8011\n  containers: [{{name: server, image: own:1, {rest}}}]\n"))
    };
    let named =
        |name: &str| custom(&format!("  grpcEndpoint: port:8011\n  containers: [{{name: {name}, image: own:1}}]\n"));
    let endpoints = |lines: &str| custom(&format!("{lines}  containers: [{{name: server, image: own:1}}]\n"));
    let adapter = |server: &str, container: &str| {
        custom(&format!(
            "  builtInAdapter: {{serverType: {server}, runtimeManagementPort: 8001}}\n  containers: [{{name: {container}, image: own:1}}]\n"
        ))
    };
    let cases = [
        (adapter("tfserving", "tfserving"), "unrecognized built-in runtime server type tfserving"),
        (adapter("triton", "server"), "must include runtime container with name triton"),
        (named("mm"), "container spec for mm is invalid: "),
        (named("rest-proxy"), "container spec for rest-proxy is invalid: "),
        (named("puller"), "container spec for puller is invalid: "),
        (named("mm-agent"), "container spec for mm-agent is invalid: "),
        (server("readinessProbe: {exec: {command: [a]}}"), "container spec for server is invalid: readinessProbe"),
        (server("lifecycle: {preStop: {}}"), "container spec for server is invalid: lifecycle"),
        (server("volumeMounts: [{name: etcd-config, mountPath: /x}]"), "volume name etcd-config is reserved"),
        (server("volumeMounts: [{name: mm-x, mountPath: /x}]"), "volume name mm-x is reserved"),
        (server("ports: [{name: grpc, containerPort: 9}]"), "port name grpc is reserved"),
        (server("ports: [{name: mm-x, containerPort: 9}]"), "port name mm-x is reserved"),
        (server("ports: [{containerPort: 8085}]"), "port 8085 is reserved"),
        (server("ports: [{containerPort: 11899}]"), "port 11899 is reserved"),
        (
            endpoints("  volumes: [{name: models-dir, emptyDir: {}}]\n  grpcEndpoint: port:8011\n"),
            "volume name models-dir is reserved",
        ),
        (
            endpoints("  volumes: [{name: tc-config, emptyDir: {}}]\n  grpcEndpoint: port:8011\n"),
            "volume name tc-config is reserved",
        ),
        (endpoints(""), "grpcEndpoint is not set"),
        (endpoints("  grpcEndpoint: port:http\n"), "grpcEndpoint `port:http` names no port"),
        (endpoints("  grpcEndpoint: localhost\n"), "grpcEndpoint `localhost` is no endpoint"),
        (endpoints("  grpcEndpoint: unix:../x/y\n"), "is not the absolute path"),
        (
            endpoints("  grpcEndpoint: unix:/a/x.sock\n  grpcDataEndpoint: unix:/b/y.sock\n"),
            "Only one unix domain socket path is allowed",
        ),
        (custom("  grpcEndpoint: port:8011\n  containers: []\n"), "containers is empty"),
    ];
    for (manifest, text) in cases {
        let refused = made(&manifest, &settings(), &[]).expect_err(text);
        assert!(refused.starts_with("Invalid runtime Spec: "), "{refused}");
        assert!(refused.contains(text), "{refused}");
    }
}

#[test]
fn what_is_allowed_is_not_refused() {
    let manifest = custom(
        "  grpcEndpoint: port:8011\n  containers: [{name: server, image: own:1, livenessProbe: {exec: {command: [a]}}, startupProbe: {exec: {command: [a]}}, ports: [{name: own, containerPort: 11880}], volumeMounts: [{name: models-dir, mountPath: /elsewhere}]}]\n",
    );
    made(&manifest, &settings(), &[]).unwrap();
    let with_adapter = custom(
        "  builtInAdapter: {serverType: mlserver, runtimeManagementPort: 8001}\n  containers: [{name: mlserver, image: own:1}]\n",
    );
    made(&with_adapter, &settings(), &[]).unwrap();
}
