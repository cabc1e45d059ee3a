//! The server's beginning and end.

use std::{sync::atomic::Ordering, time::Duration};

use modelring_proxy::{config::Limits, net::Settings};
use prost::Message;

use crate::{
    raw::{Raw, framed},
    support::{INFER, Proxy, eventually, infer, start, target},
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
    let settings = Settings {
        limits: Limits { connection_age: Duration::from_millis(400), ..Limits::default() },
        ..Settings::loopback()
    };
    let proxy = Proxy::with(settings, 1 << 20, [("cold", vec![target("one", upstream.address)])]).await;
    let raw = Raw::connect(proxy.grpc()).await;
    let held = framed(0, &infer("cold", "held", "").encode_to_vec());
    let held = raw.grpc(INFER, &[], vec![held]);
    let unknown = || framed(0, &infer("unknown", "", "").encode_to_vec());
    let others = async {
        // Each is answered, until the client hears that it should leave.
        while let Ok(answered) = raw.try_grpc(INFER, &[], vec![unknown()]).await {
            assert_eq!(answered.reason(), "NM");
        }
        proxy.policy.gate.send_replace(true);
    };
    let (held, ()) = tokio::time::timeout(Duration::from_secs(10), async { tokio::join!(held, others) })
        .await
        .expect("the client is asked to leave");
    assert_eq!(held.code(), "0");
    Raw::connect(proxy.grpc()).await.grpc(INFER, &[], vec![unknown()]).await;
    proxy.stop().await;
}

#[tokio::test]
async fn the_calls_of_an_old_connection_are_cut_off_where_a_grace_is_set_and_it_is_over() {
    let upstream = Upstream::start().await;
    let (connection_age, connection_grace) = (Duration::from_millis(200), Some(Duration::from_millis(200)));
    let limits = Limits { connection_age, connection_grace, ..Limits::default() };
    let settings = Settings { limits, ..Settings::loopback() };
    let proxy = Proxy::with(settings, 1 << 20, [("cold", vec![target("one", upstream.address)])]).await;
    let raw = Raw::connect(proxy.grpc()).await;
    let held = framed(0, &infer("cold", "held", "").encode_to_vec());
    let cut_off = tokio::time::timeout(Duration::from_secs(20), raw.try_grpc(INFER, &[], vec![held])).await;
    assert!(cut_off.expect("it ends").is_err(), "it was answered although nobody let it go");
    eventually("its call is given up", || proxy.policy.leases() == 0).await;
    proxy.stop().await;
}
