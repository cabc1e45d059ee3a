//! A whole proxy: ports, engine, policy and fleet, among a scripted control and agent and a model server.

use std::{sync::Arc, time::Duration};

use modelring_proto::{
    inference::{
        InferParameter, ModelInferRequest, ModelReadyRequest, ServerLiveRequest, ServerReadyRequest,
        grpc_inference_service_client::GrpcInferenceServiceClient, infer_parameter::ParameterChoice,
    },
    v1::routes_update::Kind,
};
use modelring_proxy::{
    config::{AccessLog, Config},
    start::{Proxy, Running},
};
use tokio::sync::Barrier;
use tonic::{Code, transport::Channel};

use crate::{
    scripted::{KServe, ScriptedAgent, ScriptedControl, endpoint, soon},
    world::{change, update},
};

type Client = GrpcInferenceServiceClient<Channel>;

struct Whole {
    _control: ScriptedControl,
    agent: ScriptedAgent,
    _server: KServe,
    proxy: Running,
    client: Client,
}

async fn whole() -> Whole {
    let (server, agent) = (KServe::start().await, ScriptedAgent::start("a").await);
    agent.introduce(|hello| hello.endpoints = vec![endpoint(&server.address.to_string())]);
    let control = ScriptedControl::start(vec![update(1, 1, Kind::SnapshotEnd, change(&[&agent]))]).await;
    let free = ([127, 0, 0, 1], 0).into();
    let proxy = Proxy::start(Config {
        grpc: free,
        rest: free,
        control: control.address.clone(),
        tls: None,
        namespace: "ns".into(),
        threads: 2,
        memory_budget: 64 << 20,
        drain_delay: Duration::ZERO,
        access_log: AccessLog::Off,
        metrics: Default::default(),
        state_dir: None,
        limits: Default::default(),
    })
    .expect("a proxy");
    let client = Client::connect(format!("http://{}", proxy.grpc_addr)).await.expect("a connection");
    soon("readiness", proxy.watch_ready().wait_for(|ready| *ready)).await.expect("the proxy lives");
    Whole { _control: control, agent, _server: server, proxy, client }
}

fn request(name: &str) -> ModelInferRequest {
    ModelInferRequest { model_name: name.into(), id: "7".into(), ..Default::default() }
}

fn text(parameter: &InferParameter) -> &str {
    match &parameter.parameter_choice {
        Some(ParameterChoice::StringParam(text)) => text,
        _ => "",
    }
}

#[tokio::test]
async fn a_cold_model_is_loaded_and_answers_by_the_name_that_was_asked_for() {
    let whole = whole().await;
    let mut client = whole.client.clone();
    let agents = async {
        let load = whole.agent.asked().await;
        load.accept();
        whole.agent.finish(&load).await;
    };
    let (answer, ()) = soon("the answer", async { tokio::join!(client.model_infer(request("v")), agents) }).await;
    let answer = answer.expect("an answer");
    assert_eq!(answer.metadata().get("mm-model-id").expect("the id"), "m");
    let answer = answer.into_inner();
    assert_eq!((answer.model_name.as_str(), answer.id.as_str()), ("v", "7"));
    assert_eq!((text(&answer.parameters["name"]), text(&answer.parameters["header"])), ("m", "m"));
    whole.proxy.shutdown(Duration::from_secs(1)).await;
}

#[tokio::test]
async fn many_callers_of_a_cold_model_are_one_load() {
    let whole = whole().await;
    let start = Arc::new(Barrier::new(50));
    let callers: Vec<_> = (0..50)
        .map(|_| {
            let (mut client, start) = (whole.client.clone(), start.clone());
            tokio::spawn(async move {
                start.wait().await;
                client.model_infer(request("v")).await
            })
        })
        .collect();
    let load = whole.agent.asked().await;
    whole.agent.finish(&load).await;
    for caller in callers {
        soon("an answer", caller).await.expect("no panic").expect("an answer");
    }
    assert_eq!(whole.agent.times_asked(), 1);
    whole.proxy.shutdown(Duration::from_secs(1)).await;
}

#[tokio::test]
async fn an_unknown_model_gets_its_reason() {
    let whole = whole().await;
    let mut client = whole.client.clone();
    let status = client.model_infer(request("nobody")).await.expect_err("no such model");
    assert_eq!((status.code(), status.message()), (Code::NotFound, "vmodel not found"));
    assert_eq!(status.metadata().get("modelring-reason").expect("a reason"), "NM");
    whole.proxy.shutdown(Duration::from_secs(1)).await;
}

#[tokio::test]
async fn the_proxy_says_that_it_lives_and_is_ready_and_a_cold_model_too() {
    let whole = whole().await;
    let mut client = whole.client.clone();
    assert!(client.server_live(ServerLiveRequest {}).await.expect("an answer").into_inner().live);
    assert!(client.server_ready(ServerReadyRequest {}).await.expect("an answer").into_inner().ready);
    let mut ready = async |name: &str| {
        let request = ModelReadyRequest { name: name.into(), ..Default::default() };
        client.model_ready(request).await.expect("an answer").into_inner().ready
    };
    assert!(ready("v").await);
    assert!(!ready("nobody").await);
    assert_eq!(whole.agent.times_asked(), 0);
    whole.proxy.shutdown(Duration::from_secs(1)).await;
}

#[tokio::test]
async fn health_says_serving_once_the_proxy_is_ready() {
    use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
    let whole = whole().await;
    let channel = Channel::from_shared(format!("http://{}", whole.proxy.grpc_addr)).expect("an address");
    let mut health = HealthClient::new(channel.connect().await.expect("a connection"));
    let answer = health.check(HealthCheckRequest::default()).await.expect("an answer");
    assert_eq!(answer.into_inner().status(), ServingStatus::Serving);
    whole.proxy.shutdown(Duration::from_secs(1)).await;
}
