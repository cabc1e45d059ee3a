//! The model's name, wherever it stands and however it arrives.

use std::{io::Write, sync::atomic::Ordering};

use bytes::Bytes;
use modelring_proto::inference::{ModelInferRequest, ModelInferResponse};
use modelring_proxy::{config::Limits, net::Settings};
use prost::Message;

use crate::{
    raw::{Raw, framed},
    support::{INFER, Proxy, eventually, infer, target},
    upstream::Upstream,
};

async fn setting() -> (Upstream, Proxy, Raw) {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    let raw = Raw::connect(proxy.grpc()).await;
    (upstream, proxy, raw)
}

/// A message whose name stands behind all other fields.
fn with_late_name(name: &str, raw: &'static [u8]) -> Vec<u8> {
    let first = ModelInferRequest { model_name: String::new(), ..infer("", "late", raw) };
    let second = ModelInferRequest { model_name: name.into(), ..ModelInferRequest::default() };
    [first.encode_to_vec(), second.encode_to_vec()].concat()
}

#[tokio::test]
async fn a_name_split_at_every_byte_of_prefix_and_field_reaches_the_server_as_the_concrete_id() {
    let (upstream, proxy, raw) = setting().await;
    let wire = framed(0, &infer("echo", "split", "tensor").encode_to_vec());
    let mut ways: Vec<Vec<Bytes>> = (1..wire.len()).map(|at| vec![wire.slice(..at), wire.slice(at..)]).collect();
    ways.push((0..wire.len()).map(|at| wire.slice(at..=at)).collect());
    let count = ways.len();
    for frames in ways {
        let answered = raw.grpc(INFER, &[], frames).await;
        assert_eq!(answered.code(), "0");
        let response = ModelInferResponse::decode(answered.message()).expect("is a response");
        assert_eq!((&*response.model_name, &*response.id), ("echo", "split"));
        assert_eq!(response.raw_output_contents, [Bytes::from_static(b"tensor")]);
    }
    assert_eq!(upstream.names(), vec!["echo__id"; count]);
    proxy.stop().await;
}

#[tokio::test]
async fn a_name_that_stands_late_twice_or_not_at_all_reaches_the_server_as_the_concrete_id() {
    let (upstream, proxy, raw) = setting().await;
    let late = with_late_name("echo", b"tensor");
    let twice = [late.clone(), infer("other", "", "").encode_to_vec()].concat();
    let absent = infer("", "absent", "tensor").encode_to_vec();
    for (message, header) in [(late, vec![]), (twice, vec![]), (absent, vec![("mm-model-id", "echo")])] {
        let answered = raw.grpc(INFER, &header, vec![framed(0, &message)]).await;
        assert_eq!(answered.code(), "0");
        assert_eq!(ModelInferResponse::decode(answered.message()).expect("is a response").model_name, "echo");
    }
    assert_eq!(upstream.names(), vec!["echo__id"; 3]);
    proxy.stop().await;
}

#[tokio::test]
async fn a_name_beyond_32_kib_counts_as_absent() {
    let (upstream, proxy, raw) = setting().await;
    let message = framed(0, &with_late_name("echo", &[7; 40_000]));
    let answered = raw.grpc(INFER, &[], vec![message.clone()]).await;
    assert_eq!((answered.code(), answered.reason()), ("3", "BR"));
    let answered = raw.grpc(INFER, &[("mm-model-id", "echo")], vec![message]).await;
    assert_eq!(answered.code(), "0");
    assert_eq!(upstream.names(), ["echo__id"]);
    proxy.stop().await;
}

#[tokio::test]
async fn truncated_and_hostile_messages_are_refused_and_nothing_is_lost() {
    let (upstream, proxy, raw) = setting().await;
    let valid = framed(0, &infer("echo", "", "tensor").encode_to_vec());
    let hostile: Vec<Vec<Bytes>> = vec![
        vec![],
        vec![Bytes::from_static(b"\0\0")],
        vec![valid.slice(..8)],
        // The name is known, the rest does not come.
        vec![valid.slice(..valid.len() - 1)],
        // A wrong type, a group, a field longer than its message, a number without end, field number 0.
        vec![framed(0, b"\x08\x01")],
        vec![framed(0, b"\x13\x14")],
        vec![framed(0, b"\x0a\xff\xff\xff\xff\x0f")],
        vec![framed(0, &[0xff; 12])],
        vec![framed(0, &[0x02, 0x00])],
        vec![framed(1, b"compressed without an encoding")],
    ];
    for frames in hostile {
        let answered = raw.grpc(INFER, &[], frames.clone()).await;
        assert_eq!((answered.code(), answered.reason()), ("3", "BR"), "{frames:?}");
        assert!(answered.last().contains_key("grpc-message"));
    }
    let answered = raw.grpc(INFER, &[], vec![valid]).await;
    assert_eq!(answered.code(), "0");
    eventually("no call is left", || upstream.seen.running.load(Ordering::SeqCst) == 0).await;
    proxy.stop().await;
}

#[tokio::test]
async fn a_compressed_message_is_inflated_and_forwarded_plain() {
    let (upstream, proxy, raw) = setting().await;
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(&infer("echo", "packed", vec![7; 300_000]).encode_to_vec()).expect("packs");
    let packed = framed(1, &gzip.finish().expect("packs"));
    let frames: Vec<_> = packed.chunks(100).map(Bytes::copy_from_slice).collect();
    let headers = [("grpc-encoding", "gzip"), ("grpc-accept-encoding", "gzip")];
    let answered = raw.grpc(INFER, &headers, frames).await;
    assert_eq!(answered.code(), "0");
    let response = ModelInferResponse::decode(answered.message()).expect("is a plain response");
    assert_eq!((response.id.as_str(), response.raw_output_contents[0].len()), ("packed", 300_000));
    assert_eq!(upstream.names(), ["echo__id"]);
    let seen = upstream.seen.headers.lock().clone();
    assert!(!seen.contains_key("grpc-encoding") && !seen.contains_key("grpc-accept-encoding"));

    let answered = raw.grpc(INFER, &[("grpc-encoding", "snappy")], vec![packed]).await;
    assert_eq!((answered.code(), answered.reason()), ("12", "MN"));
    proxy.stop().await;
}

#[tokio::test]
async fn a_passed_deadline_is_answered_and_cancelled_on_the_server() {
    let (upstream, proxy, raw) = setting().await;
    let message = framed(0, &infer("echo", "wait", "").encode_to_vec());
    let answered = raw.grpc(INFER, &[("grpc-timeout", "300m")], vec![message.clone()]).await;
    assert_eq!((answered.code(), answered.reason()), ("4", "DE"));
    eventually("the server sees it", || upstream.seen.cancelled.load(Ordering::SeqCst) == 1).await;
    let left = upstream.seen.headers.lock()["grpc-timeout"].to_str().expect("ascii").to_owned();
    let micros: u64 = left.strip_suffix('u').expect("microseconds").parse().expect("a number");
    assert!((100_000..=310_000).contains(&micros), "{left}");

    let answered = raw.grpc(INFER, &[("grpc-timeout", "soon")], vec![message]).await;
    assert_eq!((answered.code(), answered.reason()), ("3", "BR"));
    proxy.stop().await;
}

#[tokio::test]
async fn headers_over_the_limit_are_refused_with_431() {
    let (_upstream, proxy, raw) = setting().await;
    let long = "x".repeat(9_000);
    let answered = raw.grpc(INFER, &[("x-long", &long)], vec![]).await;
    assert_eq!(answered.status.as_u16(), 431);
    proxy.stop().await;
}

#[tokio::test]
async fn headers_up_to_a_higher_limit_pass() {
    let upstream = Upstream::start().await;
    let limits = Limits { max_headers: 16 * 1024, ..Limits::default() };
    let settings = Settings { limits, ..Settings::loopback() };
    let proxy = Proxy::with(settings, 1 << 20, [("echo", vec![target("one", upstream.address)])]).await;
    let raw = Raw::connect(proxy.grpc()).await;
    let message = framed(0, &infer("echo", "long", "").encode_to_vec());
    let answered = raw.grpc(INFER, &[("x-long", &"x".repeat(9_000))], vec![message]).await;
    assert_eq!(answered.code(), "0");
    assert_eq!(raw.grpc(INFER, &[("x-long", &"x".repeat(17_000))], vec![]).await.status.as_u16(), 431);
    proxy.stop().await;
}
