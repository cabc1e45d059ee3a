//! The agent and the embedded model server, with a real model: MNIST as ONNX.

use std::{fs, net::SocketAddr};

use modelring_proto::{
    inference::{
        ModelInferRequest, grpc_inference_service_client::GrpcInferenceServiceClient,
        model_infer_request::InferInputTensor,
    },
    v1::{ModelRef, agent_event, copy_state::State},
};
use modelring_runtime::{Config, Running, Runtime};
use tonic::{Code, Status};

use crate::fixture::{Fixture, Started, model};

pub(crate) const MNIST: &[u8] = include_bytes!("../data/mnist.onnx");
/// A handwritten 7, 28 x 28 little-endian FP32.
const DIGIT_7: &[u8] = include_bytes!("../data/digit-7.f32");

pub(crate) async fn runtime(listen: SocketAddr, capacity: u64) -> Running {
    Runtime::start(Config { listen, capacity, ..Config::default() }).await.unwrap()
}

fn fixture() -> Fixture {
    let fixture = Fixture::new(&[]);
    fs::create_dir_all(fixture.path("root/models/onnx")).unwrap();
    fs::write(fixture.path("root/models/onnx/mnist.onnx"), MNIST).unwrap();
    fixture.write("root/models/onnx/text.onnx", "this is no model");
    fixture
}

pub(crate) async fn start(fixture: &Fixture, server: &Running) -> Started {
    let mut config = fixture.config(&format!("http://{}", server.addr));
    config.data = server.addr.to_string();
    config.runtime = "modelring-onnx".to_owned();
    Started::of(config).await.unwrap()
}

pub(crate) fn mnist(name: &str) -> ModelRef {
    ModelRef {
        r#type: "mt:onnx".to_owned(),
        path: "onnx/mnist.onnx".to_owned(),
        key: r#"{"storage_key":"local","model_type":{"name":"onnx"}}"#.to_owned(),
        ..model(name)
    }
}

/// Asks the model server itself for the digit in the picture.
pub(crate) async fn infer(server: SocketAddr, name: &str) -> Result<usize, Status> {
    let mut client = GrpcInferenceServiceClient::connect(format!("http://{server}")).await.unwrap();
    let input = InferInputTensor {
        name: "Input3".to_owned(),
        datatype: "FP32".to_owned(),
        shape: vec![1, 1, 28, 28],
        ..Default::default()
    };
    let request = ModelInferRequest {
        model_name: model(name).id,
        inputs: vec![input],
        raw_input_contents: vec![DIGIT_7.into()],
        ..Default::default()
    };
    let answer = client.model_infer(request).await?.into_inner();
    let scores = answer.raw_output_contents[0].as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
    let (digit, _) = scores.enumerate().max_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
    Ok(digit)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_model_is_linked_loaded_and_knows_a_seven() {
    let server = runtime("127.0.0.1:0".parse().unwrap(), 64 << 20).await;
    let fixture = fixture();
    let started = start(&fixture, &server).await;
    let mut watcher = started.watch().await;
    match watcher.next().await.unwrap().1 {
        agent_event::Event::Hello(hello) => {
            let stream = hello.methods.iter().find(|method| method.name.ends_with("/ModelStreamInfer")).unwrap();
            assert_eq!((&stream.request_path[..], &stream.response_path[..]), (&[1][..], &[2, 1][..]));
            assert_eq!(hello.endpoints[0].address, server.addr.to_string());
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(infer(server.addr, "a").await.unwrap_err().code(), Code::NotFound);
    started.ensure(mnist("a")).await.loaded();
    let (_, ready) = watcher.copy("a", State::Ready).await;
    assert!(ready.bytes > MNIST.len() as u64 / 2, "{}", ready.bytes);
    let link = fixture.path("model-dir").join(model("a").id).join("mnist.onnx");
    assert!(fs::symlink_metadata(link).unwrap().is_symlink(), "linked, not copied");
    assert_eq!(infer(server.addr, "a").await.unwrap(), 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn models_that_do_not_fit_together_are_swapped_by_use_and_each_answers_while_it_is_there() {
    // Room for about three, by what one turns out to need.
    let probe = runtime("127.0.0.1:0".parse().unwrap(), 64 << 20).await;
    let fixture = fixture();
    let started = start(&fixture, &probe).await;
    started.ensure(mnist("probe")).await.loaded();
    let needs = started.watch().await.copy("probe", State::Ready).await.1.bytes;
    started.running.shutdown(std::time::Duration::ZERO).await;
    drop(probe);

    let server = runtime("127.0.0.1:0".parse().unwrap(), needs * 7 / 2).await;
    let fixture = self::fixture();
    let started = start(&fixture, &server).await;
    let mut watcher = started.watch_as(modelring_proto::v1::Role::Observer, "o").await;
    watcher.snapshot_end().await;
    let names = ["a", "b", "c", "d", "e"];
    for name in names.into_iter().chain(["a", "c", "e"]) {
        started.ensure(mnist(name)).await.loaded();
        assert_eq!(infer(server.addr, name).await.unwrap(), 7, "{name}");
    }
    let mut ready = std::collections::BTreeSet::new();
    let mut gone = 0;
    watcher
        .until("the last load", |_, event| match event {
            agent_event::Event::Copy(copy) => {
                match copy.state() {
                    State::Ready => drop(ready.insert(copy.model.clone())),
                    State::Draining => drop(ready.remove(&copy.model)),
                    State::Gone => gone += 1,
                    _ => {}
                }
                assert!(ready.len() <= 3, "{ready:?}");
                (gone >= 3 && ready.contains(&model("e").id)).then_some(())
            }
            agent_event::Event::Ledger(ledger) => {
                assert!(
                    ledger.loaded + ledger.reserved + ledger.unloading <= ledger.capacity + ledger.overrun,
                    "{ledger:?}"
                );
                None
            }
            _ => None,
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_no_model_fails_with_the_words_of_the_server() {
    let server = runtime("127.0.0.1:0".parse().unwrap(), 64 << 20).await;
    let fixture = fixture();
    let started = start(&fixture, &server).await;
    let ended = started.ensure(ModelRef { path: "onnx/text.onnx".to_owned(), ..mnist("text") }).await;
    let (_, text) = ended.failed();
    assert!(text.starts_with("Failed to load model due to model runtime error: "), "{text}");
    started.ensure(mnist("a")).await.loaded();
    assert_eq!(infer(server.addr, "a").await.unwrap(), 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_server_is_found_and_the_model_answers_again() {
    let server = runtime("127.0.0.1:0".parse().unwrap(), 64 << 20).await;
    let addr = server.addr;
    let fixture = fixture();
    let started = start(&fixture, &server).await;
    started.ensure(mnist("a")).await.loaded();
    let mut watcher = started.watch().await;
    watcher.copy("a", State::Ready).await;
    server.shutdown().await;
    watcher.copy("a", State::Gone).await;
    let _again = runtime(addr, 64 << 20).await;
    started.ensure(mnist("a")).await.loaded();
    watcher.copy("a", State::Ready).await;
    assert_eq!(infer(addr, "a").await.unwrap(), 7);
}
