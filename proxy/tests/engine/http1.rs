//! HTTP/1.1 requests that two servers could read in two ways are refused, and their connection ends.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{support::Proxy, upstream::Upstream};

async fn setting() -> (Upstream, Proxy) {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    (upstream, proxy)
}

/// Sends bytes on a connection of its own and reads to its end.
async fn exchange(address: SocketAddr, request: &str) -> String {
    let mut socket = TcpStream::connect(address).await.expect("connects");
    socket.write_all(request.as_bytes()).await.expect("is sent");
    let mut response = String::new();
    socket.read_to_string(&mut response).await.expect("is text");
    response
}

#[tokio::test]
async fn what_could_be_read_in_two_ways_is_refused_and_nothing_behind_it_is_read() {
    let (_upstream, proxy) = setting().await;
    let hidden = "POST /hidden HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 6\r\n\r\nhidden";
    for (what, status, request) in [
        ("no Host", "400", "POST / HTTP/1.1\r\ncontent-length: 0\r\n\r\n"),
        ("two Hosts", "400", "POST / HTTP/1.1\r\nhost: a\r\nhost: b\r\ncontent-length: 0\r\n\r\n"),
        ("lines that end with LF", "400", "POST / HTTP/1.1\nhost: a\ncontent-length: 0\n\n"),
        ("one line that ends with LF", "400", "POST / HTTP/1.1\r\nhost: a\ncontent-length: 0\r\n\r\n"),
        ("a blank line of LF", "400", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\n"),
        (
            "a coding beside chunked",
            "501",
            "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "a coding in a header of its own",
            "501",
            "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        ("chunked twice", "501", "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked, chunked\r\n\r\n0\r\n\r\n"),
        (
            "chunked that is not last",
            "400",
            "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked, x\r\n\r\n0\r\n\r\n",
        ),
        (
            "a length and chunks",
            "400",
            "POST / HTTP/1.1\r\nhost: a\r\nContent-Length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        ("two lengths", "400", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\ncontent-length: 5\r\n\r\n"),
        ("chunks in HTTP/1.0", "400", "POST / HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
        ("a folded header", "400", "POST / HTTP/1.1\r\nhost: a\r\nx: y\r\n z\r\ncontent-length: 0\r\n\r\n"),
        ("a blank before the colon", "400", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length : 0\r\n\r\n"),
    ] {
        let response = exchange(proxy.rest(), &format!("{request}{hidden}")).await;
        let head = response.to_lowercase();
        assert!(head.starts_with(&format!("http/1.1 {status}")), "{what}: {response}");
        assert!(head.contains("modelring-reason: ") && head.contains("connection: close"), "{what}: {response}");
        assert_eq!(head.matches("http/1.1 ").count(), 1, "{what}: {response}");
    }
    proxy.stop().await;
}

#[tokio::test]
async fn what_all_read_in_one_way_is_answered() {
    let (_upstream, proxy) = setting().await;
    for (what, request) in [
        (
            "chunks",
            "POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\nTransfer-Encoding: Chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        ),
        ("no Host in HTTP/1.0", "POST / HTTP/1.0\r\ncontent-length: 3\r\n\r\nabc"),
        ("an empty Host", "POST / HTTP/1.1\r\nhost:\r\nconnection: close\r\ncontent-length: 3\r\n\r\nabc"),
    ] {
        let response = exchange(proxy.rest(), request).await;
        assert!(response.contains(" 200 OK\r\n") && response.ends_with("\r\n\r\nabc"), "{what}: {response}");
    }
    proxy.stop().await;
}

#[tokio::test]
async fn a_caller_that_closes_its_half_is_answered() {
    let (_upstream, proxy) = setting().await;
    let mut socket = TcpStream::connect(proxy.rest()).await.expect("connects");
    let request = "POST /infer/echo HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc";
    socket.write_all(request.as_bytes()).await.expect("is sent");
    socket.shutdown().await.expect("is half closed");
    let mut response = String::new();
    socket.read_to_string(&mut response).await.expect("is text");
    assert!(response.ends_with("\r\n\r\necho abc echo__id"), "{response}");
    proxy.stop().await;
}
