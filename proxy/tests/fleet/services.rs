//! Services other than KServe's through a whole proxy: where the id is found, and what the server reads in its place.

use std::{collections::HashMap, io::Write};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use modelring_proto::v1;
use prost::Message;

use crate::{
    raw::{Answered, Raw, framed},
    rig::Rig,
    scripted::{AnyService, soon},
};

const PREDICT: &str = "/tensorflow.serving.PredictionService/Predict";
const PREDICTIONS: &str = "/org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions";
const OWN: &str = "/pkg.Own/Call";

/// The messages of TensorFlow Serving and TorchServe, as far as they matter here.
#[derive(Clone, PartialEq, Message)]
struct ModelSpec {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "3")]
    signature_name: String,
}

#[derive(Clone, PartialEq, Message)]
struct PredictRequest {
    #[prost(message, optional, tag = "1")]
    model_spec: Option<ModelSpec>,
    #[prost(map = "string, bytes", tag = "2")]
    inputs: HashMap<String, Vec<u8>>,
    #[prost(string, repeated, tag = "3")]
    output_filter: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct PredictionsRequest {
    #[prost(string, tag = "1")]
    model_name: String,
    #[prost(string, tag = "2")]
    model_version: String,
    #[prost(map = "string, bytes", tag = "3")]
    input: HashMap<String, Vec<u8>>,
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comes {
    /// It reaches the server, which reads the id of model `m`.
    Through,
    /// It is answered with this code and reason, and a text that has this in it.
    Back(&'static str, &'static str, &'static str),
}

/// What it is, the message, the headers, and what becomes of it.
type Case<'a> = (&'a str, Vec<u8>, &'a [(&'a str, &'a str)], Comes);

fn predict(name: &str) -> PredictRequest {
    PredictRequest {
        model_spec: Some(ModelSpec { name: name.into(), signature_name: "serving_default".into() }),
        inputs: HashMap::from([("x".into(), vec![1, 2, 3])]),
        output_filter: vec!["y".into(), "z".into()],
    }
}

/// A request without its spec, as large as this.
fn inputs(bytes: usize) -> Vec<u8> {
    let inputs = HashMap::from([("x".into(), vec![7; bytes])]);
    PredictRequest { inputs, ..PredictRequest::default() }.encode_to_vec()
}

fn spec(spec: ModelSpec) -> Vec<u8> {
    PredictRequest { model_spec: Some(spec), ..PredictRequest::default() }.encode_to_vec()
}

fn gzip(message: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(message).expect("it writes");
    framed(1, &encoder.finish().expect("it ends"))
}

/// A server that runtime `r` says these methods of, and a proxy with these rules.
async fn offering(methods: &[(&str, &[u32], &[u32])], tuning: Option<v1::Tuning>) -> (AnyService, Rig, Raw) {
    let answer = PredictionsRequest { model_name: "m".into(), model_version: "1".into(), ..Default::default() };
    let server = AnyService::start(vec![answer.encode_to_vec()]).await;
    let tell = |hello: &mut v1::Hello| {
        let method = |(name, request, response): &(&str, &[u32], &[u32])| v1::Method {
            name: name.trim_start_matches('/').into(),
            request_path: request.to_vec(),
            response_path: response.to_vec(),
        };
        hello.methods = methods.iter().map(method).collect();
    };
    let rig = Rig::with(&[server.address], 64 << 20, tell, |table| table.tuning = tuning).await;
    let raw = Raw::connect(rig.proxy.grpc_addr).await;
    (server, rig, raw)
}

fn said(answered: &Answered) -> (&str, &str, &str) {
    let text = answered.last().get("grpc-message").map_or("", |text| text.to_str().expect("ascii"));
    (answered.code(), answered.reason(), text)
}

/// Ways to put the same bytes into frames.
fn framings(wire: &Bytes) -> Vec<Vec<Bytes>> {
    let halves = |at: usize| vec![wire.slice(..at), wire.slice(at..)];
    let mut ways = vec![vec![wire.clone()], halves(wire.len() / 2)];
    if wire.len() < 200 {
        ways.push((0..wire.len()).map(|at| wire.slice(at..=at)).collect());
    }
    ways
}

#[tokio::test]
async fn the_id_of_a_nested_path_is_found_however_the_message_is_made_and_arrives() {
    let named = ModelSpec { name: "v".into(), ..ModelSpec::default() };
    let signed = ModelSpec { signature_name: "s".into(), ..ModelSpec::default() };
    let none = &[][..];
    let header = &[("mm-vmodel-id", "v")][..];
    let no_header = Comes::Back("3", "BR", "must include mm-model-id header");
    let (wrong_type, too_long) = ("not a string", "longer than its message");
    let malformed = |text| Comes::Back("3", "BR", text);
    let (server, rig, raw) = offering(&[(PREDICT, &[1, 1], &[])], None).await;
    let cases: Vec<Case<'_>> = vec![
        ("as a client sends it", predict("v").encode_to_vec(), none, Comes::Through),
        ("behind small inputs", [inputs(100), spec(named.clone())].concat(), none, Comes::Through),
        ("a spec in two parts", [spec(named.clone()), spec(signed.clone())].concat(), none, Comes::Through),
        ("the name wins over headers", spec(named.clone()), &[("mm-model-id", "nobody")], Comes::Through),
        (
            "two names, the first counts",
            [spec(named.clone()), predict("w").encode_to_vec()].concat(),
            none,
            Comes::Through,
        ),
        (
            "the first of two names is unknown",
            [predict("w").encode_to_vec(), spec(named.clone())].concat(),
            none,
            Comes::Back("5", "NM", "vmodel not found"),
        ),
        ("the name in the second part only", [spec(signed.clone()), spec(named.clone())].concat(), none, no_header),
        ("no name", spec(signed.clone()), none, no_header),
        ("no name but a header", spec(signed), header, Comes::Through),
        ("no spec but a header", inputs(10), header, Comes::Through),
        ("an empty name and a header", predict("").encode_to_vec(), header, Comes::Through),
        ("an empty message and a header", vec![], header, Comes::Through),
        ("an empty message", vec![], none, no_header),
        (
            "behind 40 KiB of inputs",
            [inputs(40 << 10), spec(named.clone())].concat(),
            none,
            Comes::Back("3", "BR", "32 KiB"),
        ),
        (
            "behind 40 KiB of inputs, with a header",
            [inputs(40 << 10), spec(named.clone())].concat(),
            header,
            Comes::Through,
        ),
        ("behind 31 KiB of inputs", [inputs(31 << 10), spec(named)].concat(), none, Comes::Through),
        ("a number for a spec", b"\x08\x01".to_vec(), header, malformed(wrong_type)),
        ("a number for a name", b"\x0a\x02\x08\x01".to_vec(), header, malformed(wrong_type)),
        ("a fixed number for a name", b"\x0a\x05\x0d\x01\0\0\0".to_vec(), header, malformed(wrong_type)),
        ("a group before it", b"\x13\x14\x0a\x03\x0a\x01v".to_vec(), none, malformed("group")),
        ("a group inside", b"\x0a\x05\x13\x14\x0a\x01v".to_vec(), none, malformed("group")),
        ("a spec beyond the message", b"\x0a\x20\x0a\x01v".to_vec(), none, malformed(too_long)),
        ("a name beyond its spec", b"\x0a\x02\x0a\x09v".to_vec(), none, malformed(too_long)),
        ("half a number", b"\x0a\x03\x0a\x01v\x80".to_vec(), none, Comes::Through),
        ("half a number before it", b"\x10\x80".to_vec(), none, malformed(too_long)),
        (
            "a number without end",
            [&b"\x10"[..], &[0xff; 11], b"\x0a\x03\x0a\x01v"].concat(),
            none,
            malformed("too long"),
        ),
        ("field number 0", b"\x02\x00\x0a\x03\x0a\x01v".to_vec(), none, malformed("no valid number")),
        ("a name that is no text", b"\x0a\x03\x0a\x01\xff".to_vec(), none, malformed("UTF-8")),
    ];
    for (what, message, headers, comes) in cases {
        let mut ways = framings(&framed(0, &message));
        ways.push(vec![gzip(&message)]);
        for (way, frames) in ways.into_iter().enumerate() {
            let packed = frames[0].first() == Some(&1);
            let headers = [headers, if packed { &[("grpc-encoding", "gzip")] } else { &[] }].concat();
            let answered = soon(what, raw.grpc(PREDICT, &headers, frames)).await;
            let calls = server.take();
            match comes {
                Comes::Through => {
                    assert_eq!(answered.code(), "0", "{what}, way {way}: {:?}", said(&answered));
                    let [call] = &calls[..] else { panic!("{what}, way {way}: {} calls", calls.len()) };
                    assert_eq!(call.path, PREDICT);
                    let (flag, read) = &call.messages[0];
                    assert_eq!((call.messages.len(), *flag), (1, 0), "{what}, way {way}");
                    assert!(read.starts_with(&message), "{what}, way {way}: what was sent is untouched");
                    assert_eq!(&read[message.len()..], b"\x0a\x03\x0a\x01m", "{what}, way {way}");
                    assert_eq!(call.headers["mm-model-id"], "m");
                }
                Comes::Back(code, reason, text) => {
                    let (code_said, reason_said, text_said) = said(&answered);
                    assert_eq!((code_said, reason_said), (code, reason), "{what}, way {way}: {text_said}");
                    assert!(text_said.contains(text), "{what}, way {way}: {text_said}");
                    assert!(calls.is_empty(), "{what}, way {way}");
                }
            }
        }
    }
    rig.stop().await;
}

#[tokio::test]
async fn a_real_reader_sees_the_concrete_id_and_all_else_as_it_was() {
    let (server, rig, raw) = offering(&[(PREDICT, &[1, 1], &[]), (PREDICTIONS, &[1], &[])], None).await;
    let call = async |path: &str, message: Vec<u8>, headers: &[(&str, &str)]| {
        let answered = soon(path, raw.grpc(path, headers, vec![framed(0, &message)])).await;
        assert_eq!(answered.code(), "0", "{:?}", said(&answered));
        server.take().remove(0).messages.remove(0).1
    };
    for (sent, headers) in [
        (predict("v"), &[][..]),
        (predict(""), &[("mm-vmodel-id", "v")]),
        (PredictRequest { model_spec: None, ..predict("") }, &[("mm-vmodel-id", "v")]),
        (
            PredictRequest { inputs: HashMap::from([("x".into(), vec![9; 300_000])]), ..predict("v") },
            &[("mm-vmodel-id", "v")],
        ),
    ] {
        let read = PredictRequest::decode(call(PREDICT, sent.encode_to_vec(), headers).await).expect("a message");
        let signature_name = sent.model_spec.clone().unwrap_or_default().signature_name;
        assert_eq!(read, PredictRequest { model_spec: Some(ModelSpec { name: "m".into(), signature_name }), ..sent });
    }
    let sent = PredictionsRequest {
        model_name: "v".into(),
        model_version: "2".into(),
        input: HashMap::from([("data".into(), vec![0xff; 50])]),
    };
    let read = PredictionsRequest::decode(call(PREDICTIONS, sent.encode_to_vec(), &[]).await).expect("a message");
    assert_eq!(read, PredictionsRequest { model_name: "m".into(), ..sent });
    rig.stop().await;
}

#[tokio::test]
async fn every_message_of_a_stream_gets_the_id_and_is_made_plain() {
    let (server, rig, raw) = offering(&[(PREDICT, &[1, 1], &[])], None).await;
    let messages = [predict("v").encode_to_vec(), predict("other").encode_to_vec(), inputs(70_000), vec![]];
    let frames = vec![framed(0, &messages[0]), gzip(&messages[1]), gzip(&messages[2]), framed(0, &messages[3])];
    let answered = soon("an answer", raw.grpc(PREDICT, &[("grpc-encoding", "gzip")], frames)).await;
    assert_eq!(answered.code(), "0", "{:?}", said(&answered));
    let call = server.take().remove(0);
    assert!(!call.headers.contains_key("grpc-encoding"));
    for (message, (flag, read)) in messages.iter().zip(&call.messages) {
        assert_eq!((*flag, &read[..]), (0, &[&message[..], b"\x0a\x03\x0a\x01m"].concat()[..]));
    }
    assert_eq!(call.messages.len(), 4);
    rig.stop().await;
}

#[tokio::test]
async fn the_name_goes_back_at_the_path_that_the_runtime_tells_and_nowhere_else() {
    let rules = v1::Tuning { allow_other_rpcs: Some(true), ..Default::default() };
    let methods: [(&str, &[u32], &[u32]); 2] = [(OWN, &[1], &[2]), ("/pkg.Own/Untold", &[1], &[])];
    let (server, rig, raw) = offering(&methods, Some(rules)).await;
    let own = PredictionsRequest { model_name: "m".into(), model_version: "1".into(), ..Default::default() };
    for (path, version) in [(OWN, "v"), ("/pkg.Own/Untold", "1")] {
        let answered = soon(path, raw.grpc(path, &[("mm-vmodel-id", "v")], vec![framed(0, b"")])).await;
        let read = PredictionsRequest::decode(answered.message()).expect("a message");
        assert_eq!(read, PredictionsRequest { model_version: version.into(), ..own.clone() });
        assert_eq!(answered.headers["mm-model-id"], "m");
        assert_eq!(server.take()[0].messages[0].1, "\x0a\x01m");
    }
    rig.stop().await;
}

#[tokio::test]
async fn a_rule_says_whether_its_id_names_a_vmodel_or_a_model() {
    let rule = |method: &str, vmodel| v1::RpcRule { method: method.into(), id_path: vec![3, 2], vmodel };
    let tuning = v1::Tuning {
        rpcs: vec![rule("pkg.Own/ByName", true), rule("pkg.Own/ById", false)],
        allow_other_rpcs: Some(false),
        ..Default::default()
    };
    let (server, rig, raw) = offering(&[], Some(tuning)).await;
    let by = async |method: &str, id: &str| {
        let message = [&[0x1a, 3, 0x12, 1], id.as_bytes()].concat();
        raw.grpc(&format!("/pkg.Own/{method}"), &[], vec![framed(0, &message)]).await
    };
    for (method, id, code) in [("ByName", "v", "0"), ("ByName", "m", "5"), ("ById", "m", "0"), ("ById", "v", "5")] {
        let answered = by(method, id).await;
        assert_eq!(answered.code(), code, "{method} {id}: {:?}", said(&answered));
    }
    assert_eq!(server.take().len(), 2);
    assert_eq!(said(&by("Other", "v").await).0, "12");
    rig.stop().await;
}

#[tokio::test]
async fn what_is_not_permitted_is_answered_before_a_byte_of_its_body_has_come() {
    let tuning = v1::Tuning { allow_other_rpcs: Some(false), ..Default::default() };
    let (server, rig, _) = offering(&[], Some(tuning)).await;
    let socket = tokio::net::TcpStream::connect(rig.proxy.grpc_addr).await.expect("a connection");
    let (mut calls, connection) = h2::client::handshake(socket).await.expect("HTTP/2");
    tokio::spawn(connection);
    for method in ["inference.GRPCInferenceService/ModelInfer", "mmesh.ModelRuntime/loadModel"] {
        let request = http::Request::post(format!("http://proxy/{method}")).header("content-type", "application/grpc");
        let (response, _no_body) = calls.send_request(request.body(()).expect("valid"), false).expect("it is sent");
        let answer = soon("an answer", response).await.expect("an answer");
        assert_eq!(answer.headers()["grpc-status"], "12");
        assert_eq!(answer.headers()["modelring-reason"], "MN");
        assert_eq!(answer.headers()["grpc-message"], format!("Method not found or not permitted: {method}"));
    }
    assert!(server.take().is_empty());
    rig.stop().await;
}

#[tokio::test]
async fn a_method_that_the_runtime_does_not_list_is_unimplemented_unless_it_allows_any() {
    let (server, rig, raw) = offering(&[(PREDICT, &[1, 1], &[])], None).await;
    let call = async |path: &str| raw.grpc(path, &[("mm-model-id", "m")], vec![framed(0, b"")]).await;
    let answered = call(OWN).await;
    assert_eq!(said(&answered), ("12", "MN", "Method not found or not permitted: pkg.Own/Call"));
    assert_eq!(call(PREDICT).await.code(), "0");
    rig.agents[0].introduce(|hello| hello.allow_any_method = true);
    rig.agents[0].cut();
    let allowed = async {
        while call(OWN).await.code() != "0" {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    soon("leave", allowed).await;
    assert_eq!(server.take().last().expect("a call").messages[0].1, "", "nothing is added where no path is told");
    rig.stop().await;
}

#[tokio::test]
async fn triton_s_methods_about_a_model_are_offered_and_those_about_the_server_are_not() {
    let (server, rig, raw) = offering(&[], None).await;
    let call = async |method: &str| {
        let message = framed(0, b"\x0a\x01v");
        soon(method, raw.grpc(&format!("/inference.GRPCInferenceService/{method}"), &[], vec![message])).await
    };
    for method in ["ModelConfig", "ModelStatistics", "ModelMetadata"] {
        assert_eq!(call(method).await.code(), "0", "{method}");
        assert_eq!(server.take()[0].messages[0].1, "\x0a\x01v\x0a\x01m", "{method}");
    }
    for method in [
        "RepositoryModelLoad",
        "RepositoryModelUnload",
        "RepositoryIndex",
        "SystemSharedMemoryRegister",
        "CudaSharedMemoryUnregister",
        "TraceSetting",
        "LogSettings",
    ] {
        assert_eq!(call(method).await.code(), "12", "{method}");
    }
    assert!(server.take().is_empty());
    rig.stop().await;
}
