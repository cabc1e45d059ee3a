//! The small HTTP server.

use std::{net::SocketAddr, time::Duration};

use http::StatusCode;
use modelring_process::{
    Error,
    http::{Routes, Server, text},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

const FREE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// Sends one request; status line, headers and body as they came.
pub(crate) async fn ask(addr: SocketAddr, head: &str) -> String {
    let mut socket = TcpStream::connect(addr).await.unwrap();
    socket.write_all(format!("{head} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(Duration::from_secs(20), socket.read_to_string(&mut answer)).await.expect("it closes").unwrap();
    answer
}

async fn serve() -> Server {
    let routes =
        Routes::new().get("/hello", async |head| text(StatusCode::OK, head.uri.query().unwrap_or("").to_owned()));
    Server::start(FREE, "a test", "--test", routes).await.unwrap()
}

#[tokio::test]
async fn a_route_gets_the_head_and_its_answer_goes_out_and_the_connection_closes() {
    let server = serve().await;
    for path in ["/hello?name=x", "/hello/?name=x"] {
        let answer = ask(server.addr(), &format!("GET {path}")).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.ends_with("\r\n\r\nname=x"), "{answer}");
    }
    let head = ask(server.addr(), "HEAD /hello?x").await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.ends_with("\r\n\r\n"), "{head}");
}

#[tokio::test]
async fn other_paths_are_404_and_other_methods_405() {
    let server = serve().await;
    let answer = ask(server.addr(), "GET /other").await;
    assert!(answer.starts_with("HTTP/1.1 404") && answer.contains("there is /hello"), "{answer}");
    assert!(ask(server.addr(), "POST /hello").await.starts_with("HTTP/1.1 405"));
    assert!(ask(server.addr(), &format!("GET /{}", "x".repeat(10_000))).await.starts_with("HTTP/1.1 4"));
}

#[tokio::test]
async fn a_port_that_is_taken_names_the_flag() {
    let server = serve().await;
    let error = Server::start(server.addr(), "probes", "--probes", Routes::new()).await.unwrap_err();
    let text = error.to_string();
    assert!(
        matches!(error, Error::Listen { .. }) && text.contains("--probes") && text.contains("for probes"),
        "{text}"
    );
    assert!(error.is_retryable());
}

#[tokio::test]
async fn dropped_it_ends_with_its_connections() {
    let (started, mut entered) = tokio::sync::mpsc::channel(1);
    let routes = Routes::new().get("/slow", move |_| {
        let started = started.clone();
        async move {
            let _ = started.send(()).await;
            std::future::pending().await
        }
    });
    let server = Server::start(FREE, "a test", "--test", routes).await.unwrap();
    let mut socket = TcpStream::connect(server.addr()).await.unwrap();
    socket.write_all(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    entered.recv().await.unwrap();
    drop(server);
    let mut rest = Vec::new();
    let end = timeout(Duration::from_secs(20), socket.read_to_end(&mut rest)).await.expect("it closes");
    assert!(end.is_err() || rest.is_empty());
}
