//! What is not gRPC, in both versions of HTTP and on both ports.

use std::{net::SocketAddr, sync::atomic::Ordering};

use bytes::Bytes;
use http::{Method, Request};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    raw::Raw,
    support::{Proxy, eventually},
    upstream::Upstream,
};

async fn setting() -> (Upstream, Proxy) {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    (upstream, proxy)
}

/// Sends bytes on a connection of its own and reads to its end.
async fn http1(address: SocketAddr, request: &str) -> String {
    let mut socket = TcpStream::connect(address).await.expect("connects");
    socket.write_all(request.as_bytes()).await.expect("is sent");
    let mut response = String::new();
    socket.read_to_string(&mut response).await.expect("is text");
    response
}

#[tokio::test]
async fn http_1_is_served_on_both_ports() {
    let (_upstream, proxy) = setting().await;
    for address in [proxy.grpc(), proxy.rest()] {
        let request = "POST /infer/echo HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 3\r\n\r\nabc";
        let response = http1(address, request).await;
        assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
        assert!(response.ends_with("\r\n\r\necho abc echo__id"), "{response}");
    }
    proxy.stop().await;
}

#[tokio::test]
async fn a_request_shorter_than_http_2s_preface_is_answered() {
    let (_upstream, proxy) = setting().await;
    let response = http1(proxy.rest(), "GET / HTTP/1.0\r\n\r\n").await;
    assert!(response.starts_with("HTTP/1."), "{response}");
    assert!(response.contains(" 200 OK\r\n"), "{response}");
    proxy.stop().await;
}

#[tokio::test]
async fn http_2_serves_rest_on_both_ports() {
    let (_upstream, proxy) = setting().await;
    for address in [proxy.grpc(), proxy.rest()] {
        let raw = Raw::connect(address).await;
        let request =
            Request::builder().method(Method::POST).uri("http://modelring/infer/echo").body(()).expect("valid");
        let answered = raw.request(request, vec!["ab".into(), "c".into()]).await.expect("is answered");
        assert_eq!((answered.status.as_u16(), &answered.body[..]), (200, &b"echo abc echo__id"[..]));
        assert_eq!(answered.headers["content-length"], "17");
    }
    proxy.stop().await;
}

#[tokio::test]
async fn a_connection_is_kept_for_the_next_requests_piped_ones_too() {
    let (_upstream, proxy) = setting().await;
    let one = "POST /a HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc";
    let last = "POST /b HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 2\r\n\r\nde";
    let response = http1(proxy.rest(), &format!("{one}{one}{last}")).await;
    assert_eq!(response.matches("HTTP/1.1 200 OK").count(), 3, "{response}");
    assert_eq!(response.matches("\r\n\r\nabc").count(), 2, "{response}");
    assert!(response.ends_with("\r\n\r\nde"), "{response}");
    proxy.stop().await;
}

#[tokio::test]
async fn a_large_body_in_chunks_is_repeated_and_one_over_the_limit_is_refused() {
    let (_upstream, proxy) = setting().await;
    let chunk = format!("8000\r\n{}\r\n", "x".repeat(0x8000));
    let head = "POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n";
    let response = http1(proxy.rest(), &format!("{head}{}0\r\n\r\n", chunk.repeat(32))).await;
    assert!(response.starts_with("HTTP/1.1 200 OK"));
    assert_eq!(response.matches('x').count(), 1 << 20);
    let raw = Raw::connect(proxy.rest()).await;
    let request = Request::builder().method(Method::POST).uri("http://modelring/").body(()).expect("valid");
    let answered = raw.request(request, vec![Bytes::from(vec![7; (1 << 20) + 1])]).await.expect("is answered");
    assert_eq!((answered.status.as_u16(), answered.headers["modelring-reason"].as_bytes()), (413, &b"TL"[..]));
    proxy.stop().await;
}

#[tokio::test]
async fn after_a_broken_body_nothing_more_is_read_from_the_connection() {
    let (_upstream, proxy) = setting().await;
    let broken = "POST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nZZ\r\n";
    let next = "POST /b HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 2\r\n\r\nde";
    let response = http1(proxy.rest(), &format!("{broken}{next}")).await.to_lowercase();
    assert_eq!(response.matches("http/1.1").count(), 1, "{response}");
    assert!(response.starts_with("http/1.1 400") && response.contains("connection: close"), "{response}");
    proxy.stop().await;
}

#[tokio::test]
async fn errors_have_the_body_and_the_reason_that_rest_callers_know() {
    let (_upstream, proxy) = setting().await;
    let request = "POST /infer/nobody HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    let response = http1(proxy.rest(), request).await;
    assert!(response.starts_with("HTTP/1.1 404 Not Found\r\n"), "{response}");
    assert!(response.to_lowercase().contains("modelring-reason: nm"), "{response}");
    assert!(response.ends_with(r#"{"code":5,"error":"model nobody not found","message":"model nobody not found"}"#));
    let response = http1(proxy.rest(), "NONSENSE\r\n\r\n").await;
    assert!(response.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{response}");
    assert!(response.to_lowercase().contains("modelring-reason: br"), "{response}");
    proxy.stop().await;
}

#[tokio::test]
async fn a_caller_who_leaves_cancels_the_call_in_both_versions() {
    let (upstream, proxy) = setting().await;
    let mut socket = TcpStream::connect(proxy.rest()).await.expect("connects");
    let request = "POST /infer/echo HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nwait";
    socket.write_all(request.as_bytes()).await.expect("is sent");
    eventually("it runs", || upstream.seen.running.load(Ordering::SeqCst) == 1).await;
    drop(socket);
    eventually("the server sees it", || upstream.seen.cancelled.load(Ordering::SeqCst) == 1).await;

    let call = tokio::spawn({
        let raw = Raw::connect(proxy.rest()).await;
        let request =
            Request::builder().method(Method::POST).uri("http://modelring/infer/echo").body(()).expect("valid");
        async move { raw.request(request, vec!["wait".into()]).await }
    });
    eventually("it runs", || upstream.seen.running.load(Ordering::SeqCst) == 1).await;
    call.abort();
    eventually("the server sees it", || upstream.seen.cancelled.load(Ordering::SeqCst) == 2).await;
    proxy.stop().await;
}
