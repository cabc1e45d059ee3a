//! Answers as JSON.

use bytes::Bytes;
use modelring_proto::inference::{
    InferTensorContents, ModelInferResponse, ModelMetadataResponse, infer_parameter::ParameterChoice as Choice,
    model_infer_response::InferOutputTensor, model_metadata_response::TensorMetadata,
};
use modelring_proxy::{
    engine::answer::Answer,
    rest::{metadata, request::OutputForm, response},
};

use crate::support::{byte_strings, output, params};

fn encode(message: &ModelInferResponse) -> Result<String, Answer> {
    let encoded = response::encode(message, &OutputForm::default())?;
    assert_eq!(encoded.header_length, None);
    Ok(String::from_utf8(encoded.body).expect("JSON is text"))
}

/// JSON of one output's data.
fn data(
    mut output: InferOutputTensor,
    raw: Option<&[u8]>,
    typed: Option<InferTensorContents>,
) -> Result<String, Answer> {
    output.contents = typed;
    let raw_output_contents = raw.map(Bytes::copy_from_slice).into_iter().collect();
    let json = encode(&ModelInferResponse { outputs: vec![output], raw_output_contents, ..Default::default() })?;
    let start = json.find(r#""data":"#).expect("has data") + 7;
    Ok(json[start..json.len() - 3].to_owned())
}

fn failed(result: Result<String, Answer>) -> String {
    let answer = result.expect_err("must fail");
    assert_eq!((answer.code, answer.http), (2, 500));
    answer.text
}

#[test]
fn keys_have_their_order_and_empty_ones_are_left_out() {
    let mut predict = output("predict", "INT64", &[2]);
    predict.contents = Some(InferTensorContents { int64_contents: vec![8, 8], ..Default::default() });
    let mut scalar = output("scalar", "FP32", &[]);
    scalar.parameters = params(&[("z", Some(Choice::DoubleParam(0.5))), ("a", Some(Choice::Uint64Param(u64::MAX)))]);
    scalar.contents = Some(InferTensorContents { fp32_contents: vec![1.0], ..Default::default() });
    let message = ModelInferResponse {
        model_name: "example".to_owned(),
        model_version: "1".to_owned(),
        id: "foo".to_owned(),
        parameters: params(&[
            ("content_type", Some(Choice::StringParam("bar".to_owned()))),
            ("headers", None),
            ("int_param", Some(Choice::Int64Param(12345))),
            ("bool_param", Some(Choice::BoolParam(false))),
        ]),
        outputs: vec![predict, scalar],
        ..Default::default()
    };
    insta::assert_snapshot!(encode(&message).expect("encodes"), @r#"{"model_name":"example","model_version":"1","id":"foo","parameters":{"bool_param":false,"content_type":"bar","headers":null,"int_param":12345},"outputs":[{"name":"predict","datatype":"INT64","shape":[2],"data":[8,8]},{"name":"scalar","datatype":"FP32","parameters":{"a":18446744073709551615,"z":0.5},"data":[1.0]}]}"#);
    assert_eq!(encode(&ModelInferResponse::default()).expect("encodes"), "{}");
}

#[test]
fn data_is_flat() {
    let contents = InferTensorContents { int_contents: vec![1, 2, 3, 4], ..Default::default() };
    assert_eq!(data(output("y", "INT32", &[2, 2]), None, Some(contents)).expect("encodes"), "[1,2,3,4]");
    assert_eq!(data(output("y", "INT8", &[2, 2]), Some(&[1, 2, 3, 255]), None).expect("encodes"), "[1,2,3,-1]");
}

#[test]
fn numbers_are_exact() {
    let typed = |contents| contents;
    let d = InferTensorContents::default;
    for (datatype, contents, raw, json) in [
        ("BOOL", typed(InferTensorContents { bool_contents: vec![true, false], ..d() }), vec![1u8, 0], "[true,false]"),
        ("INT16", InferTensorContents { int_contents: vec![-2, 300], ..d() }, vec![0xfe, 0xff, 44, 1], "[-2,300]"),
        (
            "INT64",
            InferTensorContents { int64_contents: vec![i64::MIN, (1 << 53) + 1], ..d() },
            [i64::MIN.to_le_bytes(), ((1i64 << 53) + 1).to_le_bytes()].concat(),
            "[-9223372036854775808,9007199254740993]",
        ),
        (
            "UINT64",
            InferTensorContents { uint64_contents: vec![u64::MAX, 0], ..d() },
            [u64::MAX.to_le_bytes(), 0u64.to_le_bytes()].concat(),
            "[18446744073709551615,0]",
        ),
        ("UINT16", InferTensorContents { uint_contents: vec![65535, 1], ..d() }, vec![255, 255, 1, 0], "[65535,1]"),
        (
            "FP32",
            InferTensorContents { fp32_contents: vec![0.1, 16_777_216.0], ..d() },
            [0.1f32.to_le_bytes(), 16_777_216f32.to_le_bytes()].concat(),
            "[0.1,16777216.0]",
        ),
        (
            "FP64",
            InferTensorContents { fp64_contents: vec![0.1, 1e300], ..d() },
            [0.1f64.to_le_bytes(), 1e300f64.to_le_bytes()].concat(),
            "[0.1,1e+300]",
        ),
    ] {
        let y = || output("y", datatype, &[2]);
        assert_eq!(data(y(), None, Some(contents)).expect("encodes"), json, "{datatype} typed");
        assert_eq!(data(y(), Some(&raw), None).expect("encodes"), json, "{datatype} raw");
    }
    let surplus = data(output("y", "INT8", &[1]), Some(&[7, 8, 9]), None);
    assert_eq!(surplus.expect("surplus bytes are ignored"), "[7]");
}

#[test]
fn uint8_is_a_list_of_numbers_also_from_raw_bytes() {
    assert_eq!(data(output("y", "UINT8", &[3]), Some(&[0, 7, 255]), None).expect("encodes"), "[0,7,255]");
}

#[test]
fn bytes_are_base64_and_say_so() {
    let mut y = output("y", "BYTES", &[2]);
    y.parameters = params(&[("content_type", Some(Choice::StringParam("str".to_owned())))]);
    let raw = Bytes::from_static(b"\x02\0\0\0hi\0\0\0\0");
    let message = ModelInferResponse { outputs: vec![y.clone()], raw_output_contents: vec![raw], ..Default::default() };
    let from_raw = encode(&message).expect("encodes");
    insta::assert_snapshot!(from_raw, @r#"{"outputs":[{"name":"y","datatype":"BYTES","shape":[2],"parameters":{"content_type":"base64"},"data":["aGk=",""]}]}"#);
    y.contents = Some(InferTensorContents { bytes_contents: byte_strings(&[b"hi", b""]), ..Default::default() });
    let message = ModelInferResponse { outputs: vec![y], ..Default::default() };
    assert_eq!(encode(&message).expect("encodes"), from_raw);
}

#[test]
fn raw_bytes_must_fit_the_shape() {
    let y = |count| output("y", "BYTES", &[count]);
    for raw in [&b"\x02\0\0\0h"[..], b"\x02\0", b"\x01\0\0\0a", b"\xff\xff\xff\xffa"] {
        assert_eq!(failed(data(y(2), Some(raw), None)), "unexpected end of raw tensor bytes");
    }
    let three = b"\0\0\0\0\0\0\0\0\0\0\0\0";
    assert_eq!(failed(data(y(2), Some(three), None)), "more raw tensor bytes than expected");
}

#[test]
fn a_raw_output_that_is_short_or_missing_is_an_error_with_its_name() {
    let short = failed(data(output("y", "FP32", &[2]), Some(&[0; 7]), None));
    assert_eq!(short, r#"output tensor "y": 7 bytes are less than FP32 of shape [2] takes"#);
    let none = r#"output tensor "y": the model server sent no data"#;
    assert_eq!(failed(data(output("y", "FP32", &[2]), None, None)), none);
    assert_eq!(failed(data(output("y", "FP32", &[2]), None, Some(InferTensorContents::default()))), none);
    let outputs = vec![output("x", "INT8", &[1]), output("y", "INT8", &[1])];
    let raw_output_contents = vec![Bytes::from_static(&[1])];
    assert_eq!(failed(encode(&ModelInferResponse { outputs, raw_output_contents, ..Default::default() })), none);
    assert!(failed(data(output("y", "INT8", &[-1]), Some(&[1]), None)).contains("no tensor has the shape [-1]"));
    assert_eq!(data(output("y", "FP32", &[0]), None, None).expect("no elements, no data"), "[]");
}

#[test]
fn nan_and_infinities_are_null() {
    let values = vec![f32::NAN, 1.0, f32::INFINITY];
    let raw: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let contents = InferTensorContents { fp32_contents: values, ..Default::default() };
    assert_eq!(data(output("y", "FP32", &[3]), Some(&raw), None).expect("encodes"), "[null,1.0,null]");
    assert_eq!(data(output("y", "FP32", &[3]), None, Some(contents)).expect("encodes"), "[null,1.0,null]");
    let contents = InferTensorContents { fp64_contents: vec![f64::NEG_INFINITY], ..Default::default() };
    assert_eq!(data(output("y", "FP64", &[1]), None, Some(contents)).expect("encodes"), "[null]");
}

#[test]
fn half_floats_in_json_are_an_error_with_the_name() {
    for datatype in ["FP16", "BF16"] {
        let text = failed(data(output("y", datatype, &[1]), Some(&[0, 0]), None));
        assert_eq!(text, format!("{datatype} tensors not supported in JSON (response tensor y)"));
    }
    let text = failed(data(output("y", "FP8", &[1]), Some(&[0]), None));
    assert_eq!(text, "unsupported datatype in inference response outputs: FP8");
}

#[test]
fn metadata_shapes_are_integers() {
    let message = ModelMetadataResponse {
        name: "mnist".to_owned(),
        versions: vec!["1".to_owned()],
        platform: "onnx_tract".to_owned(),
        inputs: vec![TensorMetadata { name: "x".to_owned(), datatype: "FP32".to_owned(), shape: vec![-1, 784] }],
        outputs: vec![TensorMetadata { name: "y".to_owned(), datatype: "INT64".to_owned(), shape: vec![-1] }],
    };
    insta::assert_snapshot!(String::from_utf8(metadata::model(&message)).expect("text"), @r#"{"name":"mnist","versions":["1"],"platform":"onnx_tract","inputs":[{"name":"x","datatype":"FP32","shape":[-1,784]}],"outputs":[{"name":"y","datatype":"INT64","shape":[-1]}]}"#);
}

#[test]
fn metadata_keeps_empty_lists() {
    let message = ModelMetadataResponse { name: "m".to_owned(), ..Default::default() };
    insta::assert_snapshot!(String::from_utf8(metadata::model(&message)).expect("text"), @r#"{"name":"m","versions":[],"platform":"","inputs":[],"outputs":[]}"#);
}
