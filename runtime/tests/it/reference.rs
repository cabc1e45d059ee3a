//! The answers, against those of another implementation (tests/data/README.md).

use crate::common::{Server, With, request};
use modelring_proto::inference::{InferTensorContents, ModelInferRequest, ModelInferResponse};
use serde_json::Value;

/// A difference may be this part of the largest value of the output.
const TOLERANCE: f64 = 1e-4;

#[tokio::test]
async fn every_model_answers_what_onnxruntime_answers_to_typed_and_to_raw_requests() {
    let cases: Vec<Value> = serde_json::from_str(include_str!("../data/reference.json")).unwrap();
    assert!(cases.len() >= 17, "the reference is whole");
    let server = Server::start().await;
    for name in ["mnist", "affine", "integers", "shapes", "nonzero", "anyrank"] {
        server.load(name).await;
    }
    for case in &cases {
        for raw in [false, true] {
            let answer = server.infer(call(case, raw)).await.unwrap();
            compare(case, &answer, raw);
        }
    }
}

fn call(case: &Value, raw: bool) -> ModelInferRequest {
    let inputs = case["inputs"].as_array().unwrap();
    inputs.iter().fold(request(case["model"].as_str().unwrap().trim_end_matches(".onnx")), |request, input| {
        let (name, datatype) = (input["name"].as_str().unwrap(), input["datatype"].as_str().unwrap());
        let shape = shape(input);
        if raw {
            request.raw(name, datatype, &shape, &raw_of(input))
        } else {
            request.typed(name, datatype, &shape, typed_of(input))
        }
    })
}

fn compare(case: &Value, answer: &ModelInferResponse, raw: bool) {
    let expected = case["outputs"].as_array().unwrap();
    assert_eq!(answer.outputs.len(), expected.len());
    assert_eq!(answer.raw_output_contents.len(), if raw { expected.len() } else { 0 });
    for (place, (output, expected)) in answer.outputs.iter().zip(expected).enumerate() {
        assert_eq!(output.name, expected["name"]);
        assert_eq!(output.datatype, expected["datatype"], "{}", output.name);
        assert_eq!(output.shape, shape(expected), "{}", output.name);
        let floats = output.datatype == "FP32";
        match (raw, &output.contents) {
            (true, None) if floats => close(&floats_of(&answer.raw_output_contents[place]), expected),
            (true, None) => assert_eq!(answer.raw_output_contents[place], raw_of(expected), "{}", output.name),
            (false, Some(contents)) if floats => close(&contents.fp32_contents, expected),
            (false, Some(contents)) => assert_eq!(*contents, typed_of(expected), "{}", output.name),
            _ => panic!("'{}' is neither raw nor typed", output.name),
        }
    }
}

fn close(got: &[f32], expected: &Value) {
    let expected: Vec<f64> = data(expected).iter().map(|value| value.as_f64().unwrap()).collect();
    assert_eq!(got.len(), expected.len());
    let largest = expected.iter().fold(1.0_f64, |largest, value| largest.max(value.abs()));
    for (got, expected) in got.iter().zip(&expected) {
        assert!((f64::from(*got) - expected).abs() <= TOLERANCE * largest, "{got} is not {expected}");
    }
}

fn floats_of(raw: &[u8]) -> Vec<f32> {
    raw.chunks_exact(4).map(|chunk| f32::from_le_bytes(chunk.try_into().unwrap())).collect()
}

fn shape(tensor: &Value) -> Vec<i64> {
    tensor["shape"].as_array().unwrap().iter().map(|size| size.as_i64().unwrap()).collect()
}

fn data(tensor: &Value) -> &[Value] {
    tensor["data"].as_array().unwrap()
}

fn typed_of(tensor: &Value) -> InferTensorContents {
    let mut contents = InferTensorContents::default();
    match tensor["datatype"].as_str().unwrap() {
        "FP32" => contents.fp32_contents = data(tensor).iter().map(|value| value.as_f64().unwrap() as f32).collect(),
        "INT64" => contents.int64_contents = data(tensor).iter().map(|value| value.as_i64().unwrap()).collect(),
        "BOOL" => contents.bool_contents = data(tensor).iter().map(|value| value.as_bool().unwrap()).collect(),
        other => panic!("{other} is not in the reference"),
    }
    contents
}

fn raw_of(tensor: &Value) -> Vec<u8> {
    let contents = typed_of(tensor);
    let floats = contents.fp32_contents.iter().flat_map(|value| value.to_le_bytes());
    let integers = contents.int64_contents.iter().flat_map(|value| value.to_le_bytes());
    floats.chain(integers).chain(contents.bool_contents.iter().map(|value| u8::from(*value))).collect()
}
