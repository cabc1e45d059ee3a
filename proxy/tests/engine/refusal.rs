//! Servers that refuse calls which they certainly did not run.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use modelring_proxy::engine::policy::{Cause, Ran};
use prost::Message;
use tokio::net::TcpListener;

use crate::{
    raw::{Raw, framed},
    support::{INFER, Proxy, infer, target},
};

/// How a scripted server treats its first calls.
#[derive(Clone, Copy)]
enum First {
    /// REFUSED_STREAM.
    Reset,
    /// GOAWAY before any call, then the end of the connection.
    GoAway,
}

/// Refuses the first two calls, answers the others with an empty message.
async fn refusing(first: First) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = listener.local_addr().expect("is bound");
    let calls = Arc::new(AtomicUsize::new(0));
    let count = calls.clone();
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.expect("accepts");
            let count = count.clone();
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(socket).await.expect("handshakes");
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    match (count.fetch_add(1, Ordering::SeqCst), first) {
                        (0 | 1, First::Reset) => respond.send_reset(h2::Reason::REFUSED_STREAM),
                        (0, First::GoAway) => connection.abrupt_shutdown(h2::Reason::NO_ERROR),
                        _ => {
                            let head = http::Response::builder().header("content-type", "application/grpc");
                            let mut out = respond.send_response(head.body(()).expect("valid"), false).expect("sends");
                            out.send_data(Bytes::from_static(&[0; 5]), false).expect("sends");
                            let trailers = [("grpc-status", "0"), ("x-cost", "3")]
                                .map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value")));
                            out.send_trailers(http::HeaderMap::from_iter(trailers)).expect("sends");
                        }
                    }
                }
            });
        }
    });
    (address, calls)
}

#[tokio::test]
async fn a_refused_stream_is_tried_again() {
    let (address, calls) = refusing(First::Reset).await;
    let proxy = Proxy::of([("echo", vec![target("one", address)])]).await;
    proxy.client().await.model_infer(infer("echo", "", "tensor")).await.expect("the third attempt is answered");
    assert_eq!(calls.load(Ordering::SeqCst), 3);
    let attempts = proxy.policy.attempts.lock().clone();
    assert_eq!(attempts.len(), 2);
    assert!(attempts.iter().all(|it| (it.ran, it.cause, it.replayable) == (Ran::No, Cause::Refused, true)));
    proxy.stop().await;
}

#[tokio::test]
async fn a_server_that_leaves_gets_no_more_calls_on_that_connection() {
    let (address, _) = refusing(First::GoAway).await;
    let proxy = Proxy::of([("echo", vec![target("one", address)])]).await;
    let mut client = proxy.client().await;
    // The first call meets the GOAWAY and may have run; the next ones have a new connection.
    let _ = client.model_infer(infer("echo", "", "")).await;
    for _ in 0..5 {
        client.model_infer(infer("echo", "", "tensor")).await.expect("a new connection answers");
    }
    proxy.stop().await;
}

#[tokio::test]
async fn trailers_of_a_server_are_trailers_of_the_answer() {
    let (address, _) = refusing(First::Reset).await;
    let proxy = Proxy::of([("echo", vec![target("one", address)])]).await;
    let message = framed(0, &infer("echo", "", "tensor").encode_to_vec());
    let answered = Raw::connect(proxy.grpc()).await.grpc(INFER, &[], vec![message]).await;
    let trailers = answered.trailers.as_ref().expect("there are trailers");
    assert_eq!((answered.code(), trailers["x-cost"].as_bytes()), ("0", &b"3"[..]));
    assert!(!answered.headers.contains_key("x-cost"));
    proxy.stop().await;
}
