//! Many callers of one model that is not loaded.

use std::time::Duration;

use harness::{Folder, Habits, InProcess, Setup, grpc, mnist_request};
use tokio::task::JoinSet;

const MODEL: &str = "cold";
const MIB: u64 = 1 << 20;

/// A mesh in which the load of the model takes a second and a half: the callers come while it runs.
async fn mesh(folder: &Folder) -> InProcess {
    folder.add_mnist("onnx/cold.onnx");
    let setup = Setup {
        capacity: 64 * MIB,
        habits: Habits {
            load_delay: Duration::from_millis(1500),
            load_work: Duration::ZERO,
            size: MIB,
            predicted: MIB,
        },
        min_churn_age: Duration::ZERO,
    };
    InProcess::start(folder, setup).await
}

/// 500 calls over 10 connections, begun as soon as the model is in the table.
async fn callers(mesh: &InProcess, folder: &Folder) -> JoinSet<Result<(), tonic::Status>> {
    let mut clients = Vec::new();
    for _ in 0..10 {
        clients.push(grpc(mesh.grpc).await);
    }
    folder.add_isvc(MODEL, "onnx/cold.onnx");
    let mut probe = clients[0].clone();
    let known = async {
        let ready = || modelring_proto::inference::ModelReadyRequest { name: MODEL.to_owned(), ..Default::default() };
        while !probe.model_ready(ready()).await.is_ok_and(|answer| answer.into_inner().ready) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), known).await.expect("the model is known within 10 s");
    let mut calls = JoinSet::new();
    for number in 0..500 {
        let mut client = clients[number % 10].clone();
        calls.spawn(async move { client.model_infer(mnist_request(MODEL)).await.map(drop) });
    }
    calls
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_callers_of_one_cold_model_cause_one_load_and_are_all_answered() {
    let folder = Folder::with_storage();
    let mesh = mesh(&folder).await;
    let calls = callers(&mesh, &folder).await;
    let answers = tokio::time::timeout(Duration::from_secs(60), calls.join_all()).await.expect("all end within 60 s");
    let failed: Vec<_> = answers.iter().filter_map(|answer| answer.as_ref().err()).collect();
    assert!(failed.is_empty(), "{} failed, first {:?}", failed.len(), failed.first());
    assert_eq!(answers.len(), 500);
    assert_eq!(mesh.journal.loads(MODEL), 1);
    assert_eq!(mesh.journal.calls(), 500);
    mesh.journal.assert_no_call_outside_its_span();
    mesh.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_but_one_of_the_callers_are_cancelled_and_the_one_is_answered() {
    let folder = Folder::with_storage();
    let mesh = mesh(&folder).await;
    let mut calls = callers(&mesh, &folder).await;
    // One more, which stays.
    let mut client = grpc(mesh.grpc).await;
    let stays = tokio::spawn(async move { client.model_infer(mnist_request(MODEL)).await });
    // All of them wait: the proxy has held them, and none can be answered before the load is done.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(mesh.journal.loads(MODEL), 0, "the load still runs");
    calls.abort_all();
    while calls.join_next().await.is_some() {}
    let answer = tokio::time::timeout(Duration::from_secs(30), stays).await.expect("it ends").expect("it runs");
    assert_eq!(answer.expect("it is answered").into_inner().model_name, MODEL);
    assert_eq!(mesh.journal.loads(MODEL), 1);
    mesh.stop().await;
}
