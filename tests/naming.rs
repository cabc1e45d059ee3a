//! The name of the model, wherever and however it arrives: the model server reads the concrete id. (It knows no other: an
//! answer with scores proves that it was read.)

use bytes::Bytes;
use harness::{Folder, RawAnswer, RawCall, Up, framed, mnist_request};
use modelring_proto::inference::{ModelInferRequest, ModelInferResponse, ModelStreamInferResponse};
use prost::Message;

const MODEL: &str = "example-onnx-mnist";
const INFER: &str = "/inference.GRPCInferenceService/ModelInfer";
const STREAM: &str = "/inference.GRPCInferenceService/ModelStreamInfer";

fn serve() -> (Folder, Up) {
    let folder = Folder::quickstart();
    let mut up = Up::start(folder.path(), &[]);
    up.line_with("ready:");
    (folder, up)
}

fn request(name: &str, id: &str) -> Vec<u8> {
    ModelInferRequest { id: id.to_owned(), ..mnist_request(name) }.encode_to_vec()
}

/// Field 1, a string.
fn name_field(name: &str) -> Vec<u8> {
    ModelInferRequest { model_name: name.to_owned(), ..ModelInferRequest::default() }.encode_to_vec()
}

#[track_caller]
fn assert_answered(answer: &RawAnswer, name: &str) {
    assert_eq!((answer.code, answer.text.as_str()), (0, ""));
    let message = ModelInferResponse::decode(answer.messages[0].clone()).expect("the answer is a ModelInferResponse");
    assert_eq!(message.model_name, name);
    assert_eq!(message.outputs[0].shape, [1, 10]);
    let id = answer.headers["mm-model-id"].to_str().expect("an id is text");
    assert!(id.starts_with(&format!("{MODEL}__isvc-")), "{id}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_name_arrives_in_frames_of_one_byte() {
    let (_folder, up) = serve();
    let message = framed(&request(MODEL, "1"));
    let answer = RawCall::new(INFER).frames_cut_at(&message, 1..message.len()).send(up.grpc).await;
    assert_answered(&answer, MODEL);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_name_is_split_at_every_byte_of_the_prefix_and_the_field() {
    let (_folder, up) = serve();
    let message = framed(&request(MODEL, "1"));
    for cut in 1..5 + 2 + MODEL.len() + 1 {
        let answer = RawCall::new(INFER).frames_cut_at(&message, [cut]).send(up.grpc).await;
        assert_answered(&answer, MODEL);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_message_of_a_stream_carries_the_concrete_id() {
    let (_folder, up) = serve();
    let mut call = RawCall::new(STREAM);
    for number in 0..50 {
        // Only the first message routes; a later one may say what it likes.
        let name = if number == 0 { MODEL } else { "whatever" };
        call = call.frame(framed(&request(name, &number.to_string())));
    }
    let answer = call.send(up.grpc).await;
    assert_eq!((answer.code, answer.text.as_str()), (0, ""));
    assert_eq!(answer.messages.len(), 50);
    for (number, message) in answer.messages.iter().enumerate() {
        let message = ModelStreamInferResponse::decode(message.clone()).expect("it is a ModelStreamInferResponse");
        assert_eq!(message.error_message, "");
        let answer = message.infer_response.expect("there is an answer");
        assert_eq!((answer.id, answer.model_name.as_str()), (number.to_string(), MODEL));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_comes_twice_is_routed_by_the_first_and_read_as_the_concrete_id() {
    let (_folder, up) = serve();
    let message = [request(MODEL, "1"), name_field("another-name")].concat();
    assert_answered(&RawCall::new(INFER).frame(framed(&message)).send(up.grpc).await, MODEL);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_comes_late_is_found() {
    let (_folder, up) = serve();
    let late = [request("", "1"), name_field(MODEL)].concat();
    assert_answered(&RawCall::new(INFER).frame(framed(&late)).send(up.grpc).await, MODEL);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_absent_is_taken_from_the_header() {
    let (_folder, up) = serve();
    let message = framed(&request("", "1"));
    let by_name = RawCall::new(INFER).header("mm-vmodel-id", MODEL).frame(message.clone()).send(up.grpc).await;
    assert_answered(&by_name, MODEL);
    let id = by_name.headers["mm-model-id"].to_str().expect("an id is text").to_owned();
    let by_id = RawCall::new(INFER).header("mm-model-id", &id).frame(message.clone()).send(up.grpc).await;
    assert_answered(&by_id, &id);

    let none = RawCall::new(INFER).frame(message).send(up.grpc).await;
    assert_eq!((none.code, none.text.as_str()), (3, "must include mm-model-id header"));
    assert_eq!(none.headers["modelring-reason"], "BR");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_name_in_the_body_wins_over_the_header() {
    let (_folder, up) = serve();
    let message = framed(&request(MODEL, "1"));
    let answer = RawCall::new(INFER).header("mm-vmodel-id", "no-such-model").frame(message).send(up.grpc).await;
    assert_answered(&answer, MODEL);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_beyond_32_kib_counts_as_absent() {
    let (_folder, up) = serve();
    // Field 4 (parameters) is long; the name comes behind it.
    let mut filler = vec![0x22, 0x80, 0x80, 0x03];
    filler.extend(std::iter::repeat_n(0, 3 << 14));
    let message = framed(&[filler, name_field(MODEL)].concat());
    let answer = RawCall::new(INFER).frame(message).send(up.grpc).await;
    assert_eq!(answer.code, 3, "{}", answer.text);
    assert!(answer.text.contains("32 KiB"), "the limit is named: {}", answer.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn truncated_and_hostile_messages_are_bad_requests() {
    let (_folder, up) = serve();
    let good = framed(&request(MODEL, "1"));
    let cases: [(&str, Bytes); 5] = [
        ("ends inside the prefix", good.slice(..3)),
        ("ends inside the name", good.slice(..9)),
        ("a length beyond the message", framed(&[0x0a, 0xff, 0xff, 0xff, 0x7f, b'x'])),
        ("a group", framed(&[0x0b, 0x0c])),
        ("a varint without end", framed(&[0xff; 16])),
    ];
    for (what, bytes) in cases {
        let answer = RawCall::new(INFER).frame(bytes).send(up.grpc).await;
        assert_eq!(answer.code, 3, "{what}: {}", answer.text);
        assert_eq!(answer.headers["modelring-reason"], "BR", "{what}");
        assert!(!answer.text.is_empty(), "{what}");
    }
    // Nothing else was disturbed.
    assert_answered(&RawCall::new(INFER).frame(good).send(up.grpc).await, MODEL);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_17_mib_is_refused_with_the_limit_and_16_mib_pass_to_the_server() {
    let (_folder, up) = serve();
    let large = framed(&[name_field(MODEL), vec![0; 17 << 20]].concat());
    let answer = RawCall::new(INFER).frame(large).send(up.grpc).await;
    assert_eq!(answer.code, 8, "{}", answer.text);
    assert_eq!(answer.headers["modelring-reason"], "TL");
    assert!(answer.text.contains("16777216"), "{}", answer.text);
}
