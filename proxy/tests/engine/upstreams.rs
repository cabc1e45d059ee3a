//! Connections to model servers.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use modelring_proxy::net::Settings;
use tokio::task::JoinSet;
use tonic::Code;

use crate::{
    support::{Proxy, confirmed, eventually, infer, target},
    upstream::Upstream,
};

#[tokio::test]
async fn many_first_calls_at_once_share_one_connection_of_their_thread() {
    let upstream = Upstream::start().await;
    let dials = Arc::new(AtomicUsize::new(0));
    let echo = ("echo", vec![confirmed("one", upstream.address, true, dials.clone())]);
    let proxy = Proxy::with(Settings::loopback(), 64 << 20, [echo]).await;
    let client = proxy.client().await;
    let mut calls = JoinSet::new();
    for _ in 0..200 {
        let mut client = client.clone();
        calls.spawn(async move { client.model_infer(infer("echo", "", "")).await });
    }
    while let Some(call) = calls.join_next().await {
        call.expect("ends").expect("is answered");
    }
    assert_eq!(dials.load(Ordering::SeqCst), 1);
    proxy.stop().await;
}

#[tokio::test]
async fn an_address_that_is_not_confirmed_gets_no_call() {
    let upstream = Upstream::start().await;
    let other = confirmed("one", upstream.address, false, Arc::default());
    let proxy = Proxy::of([("echo", vec![other])]).await;
    let status = proxy.client().await.model_infer(infer("echo", "", "")).await.expect_err("is not sent");
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(status.metadata().get("modelring-reason").expect("is set"), "UC");
    assert_eq!(upstream.calls(), 0);
    proxy.stop().await;
}

#[tokio::test]
async fn a_revoked_attempt_is_reset_and_its_caller_may_come_again() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::of([("echo", vec![target("one", upstream.address)])]).await;
    let mut client = proxy.client().await;
    let call = tokio::spawn(async move { client.model_infer(infer("echo", "wait", "")).await });
    eventually("the call runs", || upstream.seen.running.load(Ordering::SeqCst) == 1).await;
    proxy.policy.revoke.cancel();
    let status = call.await.expect("ends").expect_err("is reset");
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(status.metadata().get("modelring-reason").expect("is set"), "UR");
    assert!(status.metadata().get("grpc-retry-pushback-ms").is_some());
    eventually("the server sees it", || upstream.seen.cancelled.load(Ordering::SeqCst) == 1).await;
    assert_eq!(proxy.policy.leases(), 0);
    proxy.stop().await;
}

#[tokio::test]
async fn an_instance_that_left_gets_no_new_call_and_its_connection_closes_after_the_last() {
    let upstream = Upstream::start().await;
    let target = target("one", upstream.address);
    let proxy = Proxy::of([("echo", vec![target.clone()])]).await;
    let mut client = proxy.client().await;
    let (feed, messages) = tokio::sync::mpsc::channel(4);
    feed.send(infer("echo", "", "one")).await.expect("is taken");
    let answers = client.clone().model_stream_infer(tokio_stream::wrappers::ReceiverStream::new(messages)).await;
    let mut answers = answers.expect("begins").into_inner();
    answers.message().await.expect("comes").expect("is one");
    target.gone.cancel();
    let status = client.model_infer(infer("echo", "", "")).await.expect_err("is not sent");
    assert_eq!(status.metadata().get("modelring-reason").expect("is set"), "UC");
    feed.send(infer("echo", "", "two")).await.expect("is taken");
    answers.message().await.expect("comes").expect("the call that was on goes on");
    assert_eq!(upstream.connections(), 1);
    drop(feed);
    assert!(answers.message().await.expect("ends well").is_none());
    eventually("the connection closes", || upstream.connections() == 0).await;
    proxy.stop().await;
}
