//! Calls that wait for their model.

use std::{sync::atomic::Ordering, time::Duration};

use modelring_proxy::net::Settings;
use tokio::task::JoinSet;
use tonic::Code;

use crate::{
    raw::{Raw, framed},
    support::{INFER, Proxy, eventually, infer, target},
    upstream::Upstream,
};
use prost::Message;

#[tokio::test]
async fn a_held_call_is_resumed_with_all_that_it_sent() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    let mut client = proxy.client().await;
    let large = vec![7; 3 << 20];
    let call = tokio::spawn(async move { client.model_infer(infer("cold", "", large)).await });
    eventually("it is held", || proxy.policy.held.load(Ordering::SeqCst) == 1).await;
    assert_eq!(upstream.calls(), 0);
    proxy.policy.gate.send_replace(true);
    let response = call.await.expect("ends").expect("is answered").into_inner();
    assert_eq!(response.raw_output_contents[0].len(), 3 << 20);
    assert!(proxy.policy.records.lock()[0].held > Duration::ZERO);
    proxy.stop().await;
}

#[tokio::test]
async fn five_hundred_held_calls_delay_no_other_and_are_all_answered() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    let client = proxy.client().await;
    let mut calls = JoinSet::new();
    for number in 0..500 {
        let mut client = client.clone();
        calls.spawn(async move { client.model_infer(infer("cold", &number.to_string(), "tensor")).await });
    }
    eventually("all are held", || proxy.policy.held.load(Ordering::SeqCst) == 500).await;
    client.clone().model_infer(infer("echo", "", "")).await.expect("is not delayed");
    proxy.policy.gate.send_replace(true);
    while let Some(call) = calls.join_next().await {
        call.expect("ends").expect("is answered");
    }
    assert_eq!(upstream.calls(), 501);
    proxy.stop().await;
}

#[tokio::test]
async fn of_held_calls_whose_callers_left_only_the_others_are_answered() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    let mut client = proxy.client().await;
    let mut calls = JoinSet::new();
    for _ in 0..20 {
        let mut client = client.clone();
        calls.spawn(async move { client.model_infer(infer("cold", "", "")).await });
    }
    let stays = tokio::spawn(async move { client.model_infer(infer("cold", "stays", "")).await });
    eventually("all are held", || proxy.policy.held.load(Ordering::SeqCst) == 21).await;
    calls.shutdown().await;
    eventually("one is held", || proxy.policy.held.load(Ordering::SeqCst) == 1).await;
    proxy.policy.gate.send_replace(true);
    assert_eq!(stays.await.expect("ends").expect("is answered").into_inner().id, "stays");
    assert_eq!(upstream.calls(), 1);
    proxy.stop().await;
}

#[tokio::test]
async fn a_held_call_is_answered_at_its_deadline() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    let raw = Raw::connect(proxy.grpc()).await;
    let message = framed(0, &infer("cold", "", "").encode_to_vec());
    let answered = raw.grpc(INFER, &[("grpc-timeout", "50m")], vec![message]).await;
    assert_eq!((answered.code(), answered.reason()), ("4", "DE"));
    assert_eq!(proxy.policy.held.load(Ordering::SeqCst), 0);
    proxy.stop().await;
}

#[tokio::test]
async fn a_held_call_over_the_memory_budget_is_refused() {
    let upstream = Upstream::start().await;
    let cold = ("cold", vec![target("one", upstream.address)]);
    let proxy = Proxy::with(Settings::loopback(), 100_000, [cold]).await;
    let status = proxy.client().await.model_infer(infer("cold", "", vec![7; 200_000])).await.expect_err("is refused");
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(status.metadata().get("modelring-reason").expect("is set"), "OM");
    assert!(status.metadata().get("grpc-retry-pushback-ms").is_some());
    proxy.stop().await;
}
