//! Bad input: each gets an error that names the thing, the cause and the remedy, and nothing else is disturbed.

use std::{os::unix::fs::symlink, process::Command, time::Duration};

use harness::{Folder, Mesh, Rest, Up, binary};
use serde_json::{Value, json};

const MODEL: &str = "example-onnx-mnist";

fn infer_path(model: &str) -> String {
    format!("/v2/models/{model}/infer")
}

fn body() -> Vec<u8> {
    std::fs::read(Folder::checkout().join("config/quickstart/requests/example-onnx-mnist-7.json")).expect("it is there")
}

async fn infer(up: &Up, model: &str) -> Rest {
    Rest::send(up.rest, "POST", &infer_path(model), body()).await
}

#[track_caller]
fn assert_error(answer: &Rest, status: u16, reason: &str, text: &str) {
    let said = answer.json();
    assert_eq!((answer.status, answer.reason()), (status, reason), "{said}");
    let error = said["error"].as_str().expect("an error has a text");
    assert!(error.contains(text), "{error:?} does not say {text:?}");
    assert_eq!(said["message"], said["error"]);
    assert!(said["code"].is_u64());
}

/// The quickstart's model still answers.
async fn assert_undisturbed(up: &Up) {
    assert_eq!(infer(up, MODEL).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_model_is_not_found() {
    let folder = Folder::quickstart();
    let up = Up::start(folder.path(), &[]);
    assert_error(&infer(&up, "no-such-model").await, 404, "NM", "vmodel not found");
    assert_undisturbed(&up).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_whose_file_is_missing_fails_with_its_path() {
    let folder = Folder::quickstart();
    folder.add_isvc("missing", "onnx/not-there.onnx");
    let up = Up::start(folder.path(), &[]);
    assert_error(&infer(&up, "missing").await, 500, "LF", "onnx/not-there.onnx");
    assert_undisturbed(&up).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_no_model_fails_with_the_servers_text() {
    let folder = Folder::quickstart();
    folder.write("models/onnx/text.onnx", "this is no model");
    folder.add_isvc("text", "onnx/text.onnx");
    let mut up = Up::start(folder.path(), &[]);
    assert_error(&infer(&up, "text").await, 500, "LF", "ONNX");
    assert_undisturbed(&up).await;
    let line = up.line_with("text  cannot be loaded");
    assert!(line.contains("ONNX"), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storage_path_that_climbs_out_is_refused() {
    let outside = Folder::empty();
    outside.write("secret.onnx", "secret");
    let folder = Folder::quickstart();
    symlink(outside.path().join("secret.onnx"), folder.path().join("models/link.onnx")).expect("a link can be made");
    symlink(outside.path(), folder.path().join("models/linked")).expect("a link can be made");
    for (name, path) in [("dots", "../../secret.onnx"), ("link", "link.onnx"), ("linked", "linked/secret.onnx")] {
        folder.add_isvc(name, path);
    }
    let up = Up::start(folder.path(), &[]);
    for (name, path) in [("dots", "../../secret.onnx"), ("link", "link.onnx"), ("linked", "linked/secret.onnx")] {
        assert_error(&infer(&up, name).await, 500, "LF", path);
    }
    assert_undisturbed(&up).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn json_with_a_wrong_shape_datatype_or_size_is_a_bad_request() {
    let folder = Folder::quickstart();
    let up = Up::start(folder.path(), &[]);
    let good: Value = serde_json::from_slice(&body()).expect("the request is JSON");
    let with = |change: &dyn Fn(&mut Value)| {
        let mut body = good.clone();
        change(&mut body["inputs"][0]);
        serde_json::to_vec(&body).expect("it is JSON")
    };
    let cases = [
        ("no JSON", b"{\"inputs\": [".to_vec(), "unexpected end"),
        ("wrong shape", with(&|input| input["shape"] = json!([1, 28, 28])), "Input3"),
        ("negative shape", with(&|input| input["shape"] = json!([1, -1, 28, 28])), "Input3"),
        ("wrong datatype", with(&|input| input["datatype"] = json!("INT32")), "Input3"),
        ("unknown datatype", with(&|input| input["datatype"] = json!("FP12")), "unsupported datatype: FP12"),
        ("too few values", with(&|input| input["data"] = json!([1.0, 2.0])), "Input3"),
        ("text for numbers", with(&|input| input["data"] = json!(["a"])), "Input3"),
        ("unknown input", with(&|input| input["name"] = json!("Input4")), "Input4"),
        ("no input", b"{}".to_vec(), "Input3"),
    ];
    for (what, body, text) in cases {
        let answer = Rest::send(up.rest, "POST", &infer_path(MODEL), body).await;
        let said = answer.json();
        assert_eq!((answer.status, said["code"].as_u64()), (400, Some(3)), "{what}: {said}");
        assert!(said["error"].as_str().is_some_and(|error| error.contains(text)), "{what}: {said}");
    }
    assert_undisturbed(&up).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_17_mib_is_refused_with_the_limit() {
    let folder = Folder::quickstart();
    let up = Up::start(folder.path(), &[]);
    let answer = Rest::send(up.rest, "POST", &infer_path(MODEL), vec![b' '; 17 << 20]).await;
    assert_error(&answer, 413, "TL", "16777216");
    assert_undisturbed(&up).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_manifests_of_one_name_are_named_and_the_first_stays() {
    let folder = Folder::quickstart();
    let mut up = Up::start(folder.path(), &[]);
    up.line_with("ready:");
    folder.write("zz-copy.yaml", Folder::isvc(MODEL, "onnx/other.onnx"));
    let line = up.line_with("zz-copy.yaml");
    assert!(line.contains("mnist.yaml") && line.contains(MODEL), "{line}");
    assert_undisturbed(&up).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_of_another_namespace_is_named() {
    let folder = Folder::quickstart();
    let mut up = Up::start(folder.path(), &[]);
    up.line_with("ready:");
    folder.write(
        "elsewhere.yaml",
        Folder::isvc("elsewhere", "onnx/mnist.onnx").replace("metadata:\n", "metadata:\n  namespace: elsewhere\n"),
    );
    let line = up.line_with("elsewhere.yaml");
    assert!(line.contains("namespace") && line.contains("default"), "{line}");
    assert_error(&infer(&up, "elsewhere").await, 404, "NM", "vmodel not found");
    assert_undisturbed(&up).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_manifest_names_file_line_and_field_and_the_last_good_one_serves_on() {
    let folder = Folder::quickstart();
    let mut up = Up::start(folder.path(), &[]);
    up.line_with("ready:");
    let good = std::fs::read_to_string(folder.path().join("mnist.yaml")).expect("it is there");
    folder.write("mnist.yaml", good.replace("name: onnx", "name: [1]"));
    let line = up.line_with("mnist.yaml");
    assert!(line.contains("mnist.yaml:1") && line.contains("name"), "{line}");
    assert_undisturbed(&up).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_format_that_no_runtime_takes_says_so() {
    let folder = Folder::quickstart();
    folder.write("pmml.yaml", Folder::isvc("pmml", "pmml/x.pmml").replace("name: onnx", "name: pmml"));
    let up = Up::start(folder.path(), &[]);
    assert_error(&infer(&up, "pmml").await, 400, "NR", "mt:pmml");
    assert_undisturbed(&up).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_model_server_is_killed_and_models_reload_on_demand_when_it_is_back() {
    let folder = Folder::quickstart();
    let mut mesh = Mesh::start(&folder, &[], &[]);
    let call = |rest| async move { Rest::send(rest, "POST", &infer_path(MODEL), body()).await };
    assert_eq!(call(mesh.rest).await.status, 200);
    mesh.restart_runtime();
    // The call finds the copy gone, waits for the handshake and the load, and is answered.
    let answer = tokio::time::timeout(Duration::from_secs(30), async {
        loop {
            let answer = call(mesh.rest).await;
            if answer.status == 200 {
                break answer;
            }
            assert_eq!(answer.status, 503, "{}", answer.text());
        }
    })
    .await
    .expect("the model is back within 30 s");
    assert_eq!(answer.json()["model_name"], MODEL);
}

#[test]
fn a_folder_that_is_not_there_is_named() {
    let output = Command::new(binary()).args(["up", "/no/such/folder"]).output().expect("the binary starts");
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("/no/such/folder"));
}
