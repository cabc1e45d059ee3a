//! A folder that changes while it is served: new, changed, broken and removed InferenceServices.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use harness::{Folder, Rest, Up};

const MODEL: &str = "example-onnx-mnist";

fn body() -> Vec<u8> {
    std::fs::read(Folder::checkout().join("config/quickstart/requests/example-onnx-mnist-7.json")).expect("it is there")
}

async fn infer(rest: std::net::SocketAddr, model: &str) -> Rest {
    Rest::send(rest, "POST", &format!("/v2/models/{model}/infer"), body()).await
}

fn id(answer: &Rest) -> String {
    answer.headers["mm-model-id"].to_str().expect("an id is text").to_owned()
}

/// Calls until the answer is as wanted.
async fn until(rest: std::net::SocketAddr, model: &str, wanted: impl Fn(&Rest) -> bool) -> Rest {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let answer = infer(rest, model).await;
        if wanted(&answer) {
            return answer;
        }
        assert!(Instant::now() < deadline, "still {}: {}", answer.status, answer.text());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Calls without pause until told to stop; every call must be answered.
fn steady_calls(rest: std::net::SocketAddr) -> (Arc<AtomicBool>, tokio::task::JoinHandle<usize>) {
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let calls = tokio::spawn(async move {
        let mut calls = 0;
        while !stopped.load(Ordering::Relaxed) {
            let answer = infer(rest, MODEL).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            calls += 1;
        }
        calls
    });
    (stop, calls)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_inference_service_is_served_within_a_second_or_two() {
    let folder = Folder::quickstart();
    let mut up = Up::start(folder.path(), &[]);
    up.line_with("ready:");
    folder.add_isvc("second", "onnx/mnist.onnx");
    let begin = Instant::now();
    until(up.rest, "second", |answer| answer.status == 200).await;
    assert!(begin.elapsed() < Duration::from_secs(3), "it took {:?}", begin.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_one_switches_when_the_new_model_is_ready_and_no_call_fails() {
    let folder = Folder::quickstart();
    folder.add_mnist("onnx/mnist-2.onnx");
    let up = Up::start(folder.path(), &[]);
    let old = id(&until(up.rest, MODEL, |answer| answer.status == 200).await);
    let (stop, calls) = steady_calls(up.rest);
    folder.write("mnist.yaml", Folder::isvc(MODEL, "onnx/mnist-2.onnx"));
    let new = id(&until(up.rest, MODEL, |answer| id(answer) != old).await);
    assert!(new.starts_with(&format!("{MODEL}__isvc-")), "{new}");
    stop.store(true, Ordering::Relaxed);
    assert!(calls.await.expect("every call was answered") > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_fails_to_load_leaves_the_old_model_answering_and_says_why() {
    let folder = Folder::quickstart();
    folder.write("models/onnx/broken.onnx", "no model");
    let mut up = Up::start(folder.path(), &[]);
    let old = id(&until(up.rest, MODEL, |answer| answer.status == 200).await);
    let (stop, calls) = steady_calls(up.rest);
    folder.write("mnist.yaml", Folder::isvc(MODEL, "onnx/broken.onnx"));
    let line = up.line_with("cannot be loaded");
    assert!(line.contains("answers on") && line.contains("ONNX"), "{line}");
    assert_eq!(id(&infer(up.rest, MODEL).await), old);

    // A second change, to a good one, goes through.
    folder.add_mnist("onnx/mnist-2.onnx");
    folder.write("mnist.yaml", Folder::isvc(MODEL, "onnx/mnist-2.onnx"));
    until(up.rest, MODEL, |answer| id(answer) != old).await;
    stop.store(true, Ordering::Relaxed);
    assert!(calls.await.expect("every call was answered") > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_one_is_not_found_and_one_made_again_is_served() {
    let folder = Folder::quickstart();
    let up = Up::start(folder.path(), &[]);
    until(up.rest, MODEL, |answer| answer.status == 200).await;
    folder.remove("mnist.yaml");
    until(up.rest, MODEL, |answer| answer.status == 404 && answer.reason() == "NM").await;
    folder.add_isvc(MODEL, "onnx/mnist.onnx");
    until(up.rest, MODEL, |answer| answer.status == 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_secret_clears_the_memory_of_failures() {
    let folder = Folder::quickstart();
    let secret = std::fs::read_to_string(folder.path().join("storage-config.yaml")).expect("it is there");
    folder.write("storage-config.yaml", secret.replace("\"models\"", "\"elsewhere\""));
    let up = Up::start(folder.path(), &[]);
    let failed = until(up.rest, MODEL, |answer| answer.status != 200).await;
    assert_eq!(failed.reason(), "LF", "{}", failed.text());
    folder.write("storage-config.yaml", secret);
    until(up.rest, MODEL, |answer| answer.status == 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_in_the_middle_of_a_failed_change_keeps_the_old_model() {
    let folder = Folder::quickstart();
    folder.write("models/onnx/broken.onnx", "no model");
    let mut up = Up::start(folder.path(), &[]);
    let old = id(&until(up.rest, MODEL, |answer| answer.status == 200).await);
    folder.write("mnist.yaml", Folder::isvc(MODEL, "onnx/broken.onnx"));
    up.line_with("cannot be loaded");
    assert!(up.terminate().success());
    let up = Up::start(folder.path(), &[]);
    assert_eq!(id(&until(up.rest, MODEL, |answer| answer.status == 200).await), old);
}
