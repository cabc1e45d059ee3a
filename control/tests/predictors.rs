//! Predictors in a folder: served as InferenceServices are, under names that are theirs alone.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod common;

use common::{Mesh, service};
use modelring_proto::v1::Role;

/// A Predictor of a path.
fn predictor(name: &str, path: &str) -> String {
    format!(
        "apiVersion: serving.kserve.io/v1alpha1
kind: Predictor
metadata:
  name: {name}
spec:
  modelType:
    name: onnx
  path: {path}
  storage:
    s3:
      secretKey: localMinIO
"
    )
}

const OTHER_SOURCE: &str = "Predictor already exists with the same name from a different source";

#[tokio::test]
async fn a_predictor_of_the_folder_is_in_the_table_and_follows_its_manifest() {
    let mesh = Mesh::start(&[("a.yaml", &predictor("mnist", "onnx/mnist.onnx"))]).await;
    let mut client = mesh.client(Role::Observer).await;
    let table = client.until("the predictor", |table| table.vmodels.contains_key("mnist")).await;
    let id = table.vmodels["mnist"].active.clone();
    assert!(id.starts_with("mnist__ksp-"), "{id}");
    let model = &table.models[&id];
    assert_eq!((model.class.as_str(), model.r#ref.as_ref().unwrap().path.as_str()), ("mt:onnx", "onnx/mnist.onnx"));
    assert_eq!(table.classes["mt:onnx"].runtimes, ["small"]);
    assert_eq!(table.wanted[&id], 1, "a new model wants one copy");

    mesh.write("a.yaml", &predictor("mnist", "onnx/other.onnx"));
    client
        .until("the change", |table| {
            table.models.values().any(|it| it.r#ref.as_ref().unwrap().path == "onnx/other.onnx")
        })
        .await;
    std::fs::remove_file(mesh.file("a.yaml")).unwrap();
    client.until("it goes", |table| table.vmodels.is_empty() && table.models.is_empty()).await;
}

#[tokio::test]
async fn what_is_wrong_with_a_predictor_is_said_and_its_last_valid_model_keeps_serving() {
    let mesh = Mesh::start(&[("a.yaml", &predictor("p", "good"))]).await;
    let mut client = mesh.client(Role::Observer).await;
    client.until("the predictor", |table| table.vmodels.contains_key("p")).await;
    let before = client.active("p").to_owned();
    let both = predictor("p", "good").replace("    s3:\n      secretKey: localMinIO", "    path: other");
    mesh.write("a.yaml", &both);
    let text = "Only one of spec.path and spec.storage.path can be specified; the last valid model keeps serving";
    client
        .until("the notice", |table| table.notices.iter().any(|it| it.subject == "Predictor/p" && it.text == text))
        .await;
    assert_eq!(client.active("p"), before);
}

#[tokio::test]
async fn a_name_is_held_by_the_object_that_had_it_first() {
    let mut mesh = Mesh::start(&[("a.yaml", &predictor("twin", "p")), ("b.yaml", &service("other", "p"))]).await;
    let mut client = mesh.client(Role::Observer).await;
    client.until("both", |table| table.vmodels.len() == 2).await;
    mesh.write("c.yaml", &service("twin", "s"));
    mesh.write("d.yaml", &predictor("other", "q"));
    client
        .until("the second service is refused", |table| {
            table.notices.iter().any(|it| it.subject == "InferenceService/twin" && it.text == OTHER_SOURCE)
        })
        .await;
    client
        .until("the second predictor is refused", |table| {
            let text = "InferenceService already exists with the same name from a different source";
            table.notices.iter().any(|it| it.subject == "Predictor/other" && it.text == text)
        })
        .await;
    assert!(client.active("twin").starts_with("twin__ksp-") && client.active("other").starts_with("other__isvc-"));

    // Over a restart too: the record says whose it is.
    mesh.restart().await;
    let mut client = mesh.client(Role::Observer).await;
    client.until("both, as before", |table| table.vmodels.len() == 2 && table.notices.len() >= 2).await;
    assert!(client.active("twin").starts_with("twin__ksp-") && client.active("other").starts_with("other__isvc-"));

    // What stood behind takes over as a change does: the old model answers until the new one is ready.
    std::fs::remove_file(mesh.file("a.yaml")).unwrap();
    client
        .until("the other one is served", |table| {
            table.vmodels["twin"].target.starts_with("twin__isvc-")
                || table.vmodels["twin"].active.starts_with("twin__isvc-")
        })
        .await;
}
