//! Unary calls of an ordinary client.

use std::{sync::atomic::Ordering, time::Duration};

use bytes::Bytes;
use modelring_proto::inference::{ServerLiveRequest, ServerReadyRequest};
use modelring_proxy::{engine::answer::Reason, net::Settings};
use tonic::{Code, Request};

use crate::{
    support::{Proxy, eventually, infer, target},
    upstream::Upstream,
};

#[tokio::test]
async fn a_unary_call_reaches_the_server_with_the_concrete_id_and_answers_with_the_callers_name() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    let mut request = Request::new(infer("echo", "seven", "tensor"));
    request.metadata_mut().insert("mm-balanced", "true".parse().expect("ascii"));
    request.metadata_mut().insert("x-trace", "abc".parse().expect("ascii"));
    request.set_timeout(Duration::from_secs(20));
    let response = proxy.client().await.model_infer(request).await.expect("answers");
    assert_eq!(response.metadata().get("mm-model-id").expect("is set"), "echo__id");
    assert_eq!(response.metadata().get("x-server").expect("passes"), "was here");
    let response = response.into_inner();
    assert_eq!(response.model_name, "echo");
    assert_eq!(response.id, "seven");
    assert_eq!(response.raw_output_contents, [Bytes::from_static(b"tensor")]);
    let headers = upstream.seen.headers.lock().clone();
    assert_eq!(headers.get("mm-model-id").expect("is set"), "echo__id");
    assert_eq!(headers.get("x-trace").expect("passes"), "abc");
    assert!(!headers.contains_key("mm-balanced"));
    assert!(headers["user-agent"].to_str().expect("ascii").starts_with("modelring/"));
    assert!(headers.contains_key("grpc-timeout"));
    proxy.stop().await;
}

#[tokio::test]
async fn a_message_of_16_mib_passes_and_one_of_17_is_refused() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    let mut client = proxy.client().await;
    let raw = Bytes::from(vec![7; (16 << 20) - 1024]);
    let response = client.model_infer(infer("echo", "", raw.clone())).await.expect("passes").into_inner();
    assert_eq!(response.raw_output_contents, [raw]);
    let status = client.model_infer(infer("echo", "", vec![7; 17 << 20])).await.expect_err("is too large");
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(status.metadata().get("modelring-reason").expect("is set"), "TL");
    client.model_infer(infer("echo", "", "after")).await.expect("the connection lives");
    proxy.stop().await;
}

#[tokio::test]
async fn an_unknown_model_is_answered_by_the_proxy_with_its_reason() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    let status = proxy.client().await.model_infer(infer("Größe", "", "")).await.expect_err("is unknown");
    assert_eq!((status.code(), status.message()), (Code::NotFound, "model Größe not found"));
    assert_eq!(status.metadata().get("modelring-reason").expect("is set"), "NM");
    assert_eq!(upstream.calls(), 0);
    let record = proxy.policy.records.lock()[0].clone();
    assert_eq!((record.code, record.reason, record.tries), (5, Some(Reason::NM), 0));
    proxy.stop().await;
}

#[tokio::test]
async fn a_status_of_the_server_passes_unchanged_with_its_trailers() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    let status = proxy.client().await.model_infer(infer("echo", "refused", "")).await.expect_err("is refused");
    assert_eq!((status.code(), status.message()), (Code::InvalidArgument, "größer als 100 %\n"));
    assert_eq!(status.metadata().get("x-detail").expect("passes"), "kept");
    assert_eq!(status.metadata().get("mm-model-id").expect("is set"), "echo__id");
    assert!(status.metadata().get("modelring-reason").is_none());
    proxy.stop().await;
}

#[tokio::test]
async fn unavailable_is_tried_again_and_passed_on_at_last() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    let mut client = proxy.client().await;
    client.model_infer(infer("echo", "unavailable first", "")).await.expect("the second attempt answers");
    assert_eq!(upstream.calls(), 2);
    let status = client.model_infer(infer("echo", "unavailable", "")).await.expect_err("is unavailable");
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "not now"));
    assert_eq!(upstream.calls(), 5);
    proxy.stop().await;
}

#[tokio::test]
async fn a_request_too_large_to_be_kept_is_not_tried_again_and_gets_the_servers_status() {
    let upstream = Upstream::start().await;
    let echo = ("echo", vec![crate::support::target("one", upstream.address)]);
    let proxy = Proxy::with(Settings::loopback(), 1 << 20, [echo]).await;
    let status = proxy.client().await.model_infer(infer("echo", "unavailable", vec![7; 3 << 20])).await;
    let status = status.expect_err("is unavailable");
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "not now"));
    assert_eq!(upstream.calls(), 1);
    assert!(!proxy.policy.attempts.lock()[0].replayable);
    proxy.stop().await;
}

#[tokio::test]
async fn an_answer_over_the_limit_is_refused_and_the_connection_lives() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    let mut client = proxy.client().await;
    let status = client.model_infer(infer("echo", "large", "")).await.expect_err("is too large");
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(status.metadata().get("modelring-reason").expect("is set"), "TL");
    client.model_infer(infer("echo", "", "")).await.expect("the connection lives");
    proxy.stop().await;
}

#[tokio::test]
async fn a_server_that_refuses_connections_is_passed_over() {
    let upstream = Upstream::start().await;
    let closed = std::net::TcpListener::bind("127.0.0.1:0").expect("binds").local_addr().expect("is bound");
    let dead = target("dead", closed);
    let proxy = Proxy::of([("echo", vec![dead.clone(), target("one", upstream.address)]), ("gone", vec![dead])]).await;
    let mut client = proxy.client().await;
    client.model_infer(infer("echo", "", "")).await.expect("the second target answers");
    let status = client.model_infer(infer("gone", "", "")).await.expect_err("no target is left");
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(status.metadata().get("modelring-reason").expect("is set"), "UC");
    assert!(status.metadata().get("grpc-retry-pushback-ms").is_some());
    proxy.stop().await;
}

#[tokio::test]
async fn a_cancel_reaches_the_server_and_gives_the_lease_back() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    let mut client = proxy.client().await;
    let call = tokio::spawn(async move { client.model_infer(infer("echo", "wait", "")).await });
    eventually("the call runs", || upstream.seen.running.load(Ordering::SeqCst) == 1).await;
    assert_eq!(proxy.policy.leases(), 1);
    call.abort();
    eventually("the server sees it", || upstream.seen.cancelled.load(Ordering::SeqCst) == 1).await;
    eventually("the lease is back", || proxy.policy.leases() == 0).await;
    eventually("it is told", || proxy.policy.records.lock().iter().any(|it| it.reason == Some(Reason::CC))).await;
    proxy.stop().await;
}

#[tokio::test]
async fn a_lost_connection_is_answered_unavailable_and_not_tried_again() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    let mut client = proxy.client().await;
    // Cuts the connection in the middle of the call.
    let (cut, address) = crate::upstream::cutting(upstream.address).await;
    let through = Proxy::of([("echo", vec![target("cut", address)])]).await;
    client.model_infer(infer("echo", "", "")).await.expect("the server is well");
    let mut client = through.client().await;
    let call = tokio::spawn(async move { client.model_infer(infer("echo", "wait", "")).await });
    eventually("the call runs", || upstream.seen.running.load(Ordering::SeqCst) == 1).await;
    cut.abort();
    let status = call.await.expect("ends").expect_err("is lost");
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(status.metadata().get("modelring-reason").expect("is set"), "UR");
    assert!(status.metadata().get("grpc-retry-pushback-ms").is_some());
    assert_eq!(through.policy.attempts.lock().len(), 1);
    through.stop().await;
    proxy.stop().await;
}

#[tokio::test]
async fn a_service_of_the_process_answers_beside_the_others() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    let mut client = proxy.client().await;
    assert!(client.server_live(ServerLiveRequest {}).await.expect("answers").into_inner().live);
    let status = client.server_ready(ServerReadyRequest {}).await.expect_err("is not offered");
    assert_eq!(status.code(), Code::Unimplemented);
    proxy.stop().await;
}
