//! The binary tensor data extension.

use bytes::Bytes;
use modelring_proto::inference::{
    InferTensorContents, ModelInferRequest, ModelInferResponse, ModelMetadataResponse,
    model_metadata_response::TensorMetadata,
};
use modelring_proxy::rest::{
    request::{self, Infer, OutputForm, raw_input},
    response,
};

use crate::support::{LIMIT, byte_strings, output};

fn decode(json: &str, tail: &[u8]) -> Result<Infer, String> {
    let body = [json.as_bytes(), tail].concat();
    request::decode(&body.into(), Some(json.len()), LIMIT).map_err(|answer| {
        assert_eq!((answer.code, answer.http), (3, 400));
        answer.text
    })
}

fn binary(datatype: &str, shape: &str, size: usize) -> String {
    format!(
        r#"{{"name":"x","datatype":"{datatype}","shape":{shape},"parameters":{{"binary_data_size":{size},"k":1}}}}"#
    )
}

fn one(datatype: &str, shape: &str, tail: &[u8]) -> Result<ModelInferRequest, String> {
    let json = format!(r#"{{"inputs":[{}]}}"#, binary(datatype, shape, tail.len()));
    decode(&json, tail).map(|infer| infer.message)
}

#[test]
fn tensors_follow_the_json_in_input_order() {
    let json = format!(r#"{{"id":"i","inputs":[{},{}]}}"#, binary("INT32", "[1,2]", 8), binary("UINT8", "[3]", 3));
    let message = decode(&json, b"\x01\0\0\0\x02\0\0\0abc").expect("decodes").message;
    assert_eq!(message.id, "i");
    assert_eq!(message.raw_input_contents, [&b"\x01\0\0\0\x02\0\0\0"[..], b"abc"]);
    assert!(message.inputs.iter().all(|input| input.contents.is_none()));
    let left: Vec<&String> = message.inputs[0].parameters.keys().collect();
    assert_eq!(left, ["k"], "the size belongs to the HTTP body alone");
}

#[test]
fn every_datatype_has_its_layout() {
    for (datatype, shape, tail) in [
        ("BOOL", "[2]", &b"\x01\0"[..]),
        ("FP16", "[2]", b"\0\x3c\0\0"),
        ("BF16", "[1]", b"\x80\x3f"),
        ("FP64", "[1]", b"\0\0\0\0\0\0\xf0\x3f"),
        ("BYTES", "[2]", b"\x02\0\0\0hi\0\0\0\0"),
        ("FP32", "[0]", b""),
    ] {
        assert_eq!(one(datatype, shape, tail).expect(datatype).raw_input_contents, [tail]);
    }
}

#[test]
fn json_beside_binary_is_made_raw() {
    let json = format!(
        r#"{{"inputs":[{{"name":"a","datatype":"INT16","shape":[2],"data":[1,-1]}},{},
            {{"name":"b","datatype":"BYTES","shape":[1],"data":["hi"]}}]}}"#,
        binary("UINT8", "[1]", 1)
    );
    let message = decode(&json, b"z").expect("decodes").message;
    assert_eq!(message.raw_input_contents, [&b"\x01\0\xff\xff"[..], b"z", b"\x02\0\0\0hi"]);
    assert!(message.inputs.iter().all(|input| input.contents.is_none()));

    let json = format!(
        r#"{{"inputs":[{{"name":"a","datatype":"INT8","shape":[1],"data":[300]}},{}]}}"#,
        binary("UINT8", "[1]", 1)
    );
    assert_eq!(decode(&json, b"z").expect_err("too large"), r#"input tensor "a": data does not fit INT8"#);
}

#[test]
fn sizes_that_do_not_fit_are_refused() {
    let size = |datatype, shape, size, tail: &[u8]| {
        decode(&format!(r#"{{"inputs":[{}]}}"#, binary(datatype, shape, size)), tail).expect_err("must not fit")
    };
    assert_eq!(size("INT8", "[4]", 4, b"abc"), r#"input tensor "x": binary_data_size is 4, the body has 3 more"#);
    assert_eq!(size("INT8", "[3]", 3, b"abcd"), "the body has 1 bytes more than its inputs say");
    assert_eq!(
        size("FP32", "[2]", 4, b"abcd"),
        r#"input tensor "x": binary_data_size is 4, FP32 of shape [2] takes 8"#
    );
    assert!(size("INT8", "[-1]", 1, b"a").contains("no tensor has the shape"));
    assert!(size("BYTES", "[1]", 6, b"\x03\0\0\0ab").contains("ends inside an element"));
    assert!(size("BYTES", "[2]", 4, b"\0\0\0\0").contains("has 1 elements, the shape [2] has 2"));
    let both =
        r#"{"inputs":[{"name":"x","datatype":"INT8","shape":[1],"parameters":{"binary_data_size":1},"data":[1]}]}"#;
    assert!(decode(both, b"a").expect_err("both").contains("both data and binary_data_size"));
    let text = r#"{"inputs":[{"name":"x","datatype":"INT8","shape":[1],"parameters":{"binary_data_size":"1"}}]}"#;
    assert!(decode(text, b"a").expect_err("text").contains("must be a number of bytes"));

    let beyond = request::decode(&Bytes::from_static(b"{}"), Some(3), LIMIT).expect_err("beyond the body");
    assert_eq!(beyond.text, "Inference-Header-Content-Length is 3, the body has 2 bytes");
    let json = format!(r#"{{"inputs":[{}]}}"#, binary("INT8", "[1]", 1));
    let no_header = request::decode(&format!("{json}a").into(), None, LIMIT).expect_err("no header");
    assert!(no_header.text.contains("needs header Inference-Header-Content-Length"));
}

#[test]
fn an_output_is_binary_where_it_says_so() {
    let json = r#"{"outputs":[{"name":"a","parameters":{"binary_data":true}},{"name":"b"}]}"#;
    let Infer { message, outputs } = decode(json, b"").expect("decodes");
    assert!(outputs.is_binary("a") && !outputs.is_binary("b"));
    assert!(message.outputs.iter().all(|output| output.parameters.is_empty()));

    let mut b = output("b", "INT32", &[1]);
    let mut a = output("a", "BYTES", &[1]);
    a.contents = Some(InferTensorContents { bytes_contents: byte_strings(&[b"hi"]), ..Default::default() });
    b.contents = Some(InferTensorContents { int_contents: vec![5], ..Default::default() });
    let typed = ModelInferResponse { model_name: "m".to_owned(), outputs: vec![a, b], ..Default::default() };
    let encoded = response::encode(&typed, &outputs).expect("encodes");
    let length = encoded.header_length.expect("binary");
    insta::assert_snapshot!(String::from_utf8_lossy(&encoded.body[..length]), @r#"{"model_name":"m","outputs":[{"name":"a","datatype":"BYTES","shape":[1],"parameters":{"binary_data_size":6}},{"name":"b","datatype":"INT32","shape":[1],"data":[5]}]}"#);
    assert_eq!(&encoded.body[length..], b"\x02\0\0\0hi");
}

#[test]
fn the_default_for_outputs_is_overridden_by_each() {
    let json = r#"{"parameters":{"binary_data_output":true,"k":1},
        "outputs":[{"name":"a","parameters":{"binary_data":false}},{"name":"b"}]}"#;
    let Infer { message, outputs } = decode(json, b"").expect("decodes");
    assert!(!outputs.is_binary("a") && outputs.is_binary("b") && outputs.is_binary("c"));
    assert_eq!(message.parameters.keys().collect::<Vec<_>>(), ["k"]);
    assert!(decode(r#"{"parameters":{"binary_data_output":1}}"#, b"").is_err());

    let raw_output_contents = vec![Bytes::from_static(&[1]), Bytes::from_static(b"\0\x3c")];
    let outputs_ = vec![output("a", "INT8", &[1]), output("b", "FP16", &[1])];
    let message = ModelInferResponse { outputs: outputs_, raw_output_contents, ..Default::default() };
    let encoded = response::encode(&message, &outputs).expect("encodes");
    let length = encoded.header_length.expect("binary");
    let json: serde_json::Value = serde_json::from_slice(&encoded.body[..length]).expect("JSON");
    assert_eq!(json["outputs"][0]["data"], serde_json::json!([1]));
    assert_eq!(json["outputs"][1]["parameters"]["binary_data_size"], 2);
    assert!(json["outputs"][1].get("data").is_none());
    assert_eq!(&encoded.body[length..], b"\0\x3c");
}

#[test]
fn a_body_without_json_is_the_one_input() {
    let model = |datatype: &str, shapes: &[&[i64]]| ModelMetadataResponse {
        inputs: shapes
            .iter()
            .map(|shape| TensorMetadata { name: "x".to_owned(), datatype: datatype.to_owned(), shape: shape.to_vec() })
            .collect(),
        ..Default::default()
    };
    for (datatype, shape, bytes, expected) in [
        ("FP32", &[-1i64, 2][..], 8, vec![1i64, 2]),
        ("FP32", &[-1, 2], 16, vec![2, 2]),
        ("FP32", &[-1, -1, 2], 16, vec![1, 2, 2]),
        ("INT8", &[2, 3], 6, vec![2, 3]),
        ("BYTES", &[-1, 1], 5, vec![1]),
    ] {
        let message = raw_input(&model(datatype, &[shape]), Bytes::from(vec![7; bytes])).expect("fits");
        assert_eq!(message.inputs[0].shape, expected);
        assert_eq!(message.inputs[0].datatype, datatype);
        let prefix = if datatype == "BYTES" { 4 } else { 0 };
        assert_eq!(message.raw_input_contents[0].len(), bytes + prefix);
    }
    for (datatype, shapes, bytes) in [
        ("FP32", &[&[-1i64, 2][..]][..], 9),
        ("FP32", &[&[-1, 0]], 8),
        ("FP32", &[&[2, -1, -1]], 8),
        ("FP32", &[&[-1, -1, -1]], 8),
        ("INT8", &[&[2, 3]], 5),
        ("INT8", &[&[1], &[1]], 1),
        ("INT8", &[], 1),
        ("FP8", &[&[1]], 1),
    ] {
        let answer = raw_input(&model(datatype, shapes), Bytes::from(vec![7; bytes])).expect_err("does not fit");
        assert_eq!((answer.code, answer.http), (3, 400));
    }
    assert!(OutputForm::all_binary().is_binary("any"));
}
