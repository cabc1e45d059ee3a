//! The server's beginning and end.

use std::{sync::atomic::Ordering, time::Duration};

use modelring_proxy::net::Settings;

use crate::{
    support::{Proxy, connect, eventually, infer, start, target},
    upstream::Upstream,
};

#[tokio::test]
async fn a_port_that_is_taken_is_named_with_what_can_be_done() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
    let rest = taken.local_addr().expect("is bound");
    let error = start(&Settings { rest, ..Settings::loopback() }).err().expect("the port is taken").to_string();
    assert!(error.starts_with(&format!("cannot listen on {rest} for REST: ")), "{error}");
    assert!(error.ends_with("stop the process that uses the port, or choose another one with `--rest`"), "{error}");
}

#[tokio::test]
async fn what_is_in_flight_at_the_end_finishes_and_new_connections_are_refused() {
    let upstream = Upstream::start().await;
    let mut proxy = Proxy::before(&upstream).await;
    let address = proxy.grpc();
    let mut client = proxy.client().await;
    let call = tokio::spawn(async move { client.model_infer(infer("cold", "last", "")).await });
    eventually("it is held", || proxy.policy.held.load(Ordering::SeqCst) == 1).await;
    let stopping = tokio::spawn(proxy.server.take().expect("runs").stop());
    eventually("nobody accepts", || std::net::TcpStream::connect(address).is_err()).await;
    proxy.policy.gate.send_replace(true);
    assert_eq!(call.await.expect("ends").expect("is answered").into_inner().id, "last");
    stopping.await.expect("ends");
    assert_eq!(proxy.policy.leases(), 0);
}

#[tokio::test]
async fn an_old_connection_is_asked_to_leave_and_its_calls_are_not_lost() {
    let upstream = Upstream::start().await;
    let settings = Settings { max_connection_age: Duration::from_millis(50), ..Settings::loopback() };
    let proxy = Proxy::with(settings, 1 << 20, [("echo", vec![target("one", upstream.address)])]).await;
    let mut client = connect(proxy.grpc()).await;
    let until = tokio::time::Instant::now() + Duration::from_millis(400);
    let mut calls = 0;
    while tokio::time::Instant::now() < until {
        client.model_infer(infer("echo", "", "")).await.expect("connects anew");
        calls += 1;
    }
    assert_eq!(upstream.calls(), calls);
    proxy.stop().await;
}
