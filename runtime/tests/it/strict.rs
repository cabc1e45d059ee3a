//! Requests that do not fit their model: each is refused with the tensor, what was expected and what came.

use crate::common::{Server, With, bytes, request};
use modelring_proto::inference::{InferParameter, InferTensorContents, ModelInferRequest};
use tonic::Code;

fn ints(values: &[i32]) -> InferTensorContents {
    InferTensorContents { int_contents: values.to_vec(), ..InferTensorContents::default() }
}

#[tokio::test]
async fn a_request_that_does_not_fit_is_refused_by_name() {
    let server = Server::start().await;
    for model in ["affine", "integers", "shapes", "mirror"] {
        server.load(model).await;
    }
    let affine = || request("affine");
    let mixed = || {
        let mut call = affine().fp32("x", &[1, 3], &[0.0; 3]);
        call.raw_input_contents.push(bytes(&[0.0; 3]).into());
        call
    };
    let two_raws = || {
        let mut call = affine().raw("x", "FP32", &[1, 3], &bytes(&[0.0; 3]));
        call.raw_input_contents.push(bytes(&[0.0; 3]).into());
        call
    };
    let shared_memory = || {
        let mut call = affine().fp32("x", &[1, 3], &[0.0; 3]);
        call.inputs[0].parameters.insert("shared_memory_region".to_owned(), InferParameter::default());
        call
    };
    let cases: Vec<(ModelInferRequest, &str)> = vec![
        (affine(), "input 'x' is missing, the model takes 'x'"),
        (affine().fp32("z", &[1, 3], &[0.0; 3]), "input 'z' is unknown, the model takes 'x'"),
        (affine().fp32("x", &[1, 3], &[0.0; 3]).fp32("x", &[1, 3], &[0.0; 3]), "input 'x' comes twice"),
        (affine().typed("x", "INT32", &[1, 3], ints(&[0; 3])), "input 'x' has datatype FP32, got 'INT32'"),
        (affine().typed("x", "", &[1, 3], ints(&[0; 3])), "input 'x' has datatype FP32, got ''"),
        (affine().fp32("x", &[3], &[0.0; 3]), "input 'x' has shape [-1, 3], got [3]"),
        (affine().fp32("x", &[2, 4], &[0.0; 8]), "input 'x' has shape [-1, 3], got [2, 4]"),
        (affine().fp32("x", &[-1, 3], &[0.0; 3]), "input 'x' has shape [-1, 3], got [-1, 3]"),
        (
            affine().fp32("x", &[i64::MAX, 3], &[0.0; 3]),
            "input 'x' of shape [9223372036854775807, 3] has too many elements",
        ),
        (
            affine().fp32("x", &[2, 3], &[0.0; 5]),
            "input 'x' of shape [2, 3] needs 6 elements in fp32_contents, got 5 in fp32_contents",
        ),
        (
            affine().typed("x", "FP32", &[1, 3], ints(&[0; 3])),
            "input 'x' of shape [1, 3] needs 3 elements in fp32_contents, got 3 in int_contents",
        ),
        (
            affine().typed("x", "FP32", &[1, 3], InferTensorContents::default()),
            "input 'x' of shape [1, 3] needs 3 elements in fp32_contents, got none",
        ),
        (affine().raw("x", "FP32", &[1, 3], &[0; 11]), "input 'x' needs 3 elements of 4 bytes, got 11 bytes"),
        (mixed(), "input 'x' has typed contents beside raw_input_contents"),
        (two_raws(), "1 inputs but 2 entries of raw_input_contents"),
        (shared_memory(), "input 'x': parameter 'shared_memory_region' is not supported"),
        (affine().fp32("x", &[1, 3], &[0.0; 3]).output("z"), "output 'z' is unknown, the model gives 'y'"),
        (affine().fp32("x", &[1, 3], &[0.0; 3]).output("y").output("y"), "output 'y' is asked for twice"),
        (
            request("shapes").fp32("x", &[2, 1], &[0.0; 2]).fp32("y", &[3, 1], &[0.0; 3]),
            "input 'y' has size 3 on axis 0, but 'n' is 2 by input 'x'",
        ),
        (request("mirror").typed("int8", "INT8", &[2], ints(&[1, 128])), "input 'int8': 128 is no INT8"),
        (request("mirror").raw("bytes", "BYTES", &[2], b"\x01\0\0\0a"), "input 'bytes' needs 2 elements, got 1"),
        (
            request("mirror").raw("bytes", "BYTES", &[1], b"\x02\0\0\0a"),
            "input 'bytes': an element of raw_input_contents is longer than its entry",
        ),
    ];
    for (call, text) in cases {
        let error = server.infer(call).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{text}");
        assert_eq!(error.message(), text);
    }
    // Nothing of all this has hurt the server.
    assert!(server.infer(affine().fp32("x", &[1, 3], &[0.0; 3])).await.is_ok());
}

#[tokio::test]
async fn an_empty_batch_is_answered_or_refused_but_hurts_nothing() {
    let server = Server::start().await;
    server.load("affine").await;
    match server.infer(request("affine").raw("x", "FP32", &[0, 3], &[])).await {
        Ok(answer) => assert_eq!(answer.outputs[0].shape, [0, 2]),
        Err(error) => assert!(matches!(error.code(), Code::InvalidArgument | Code::Internal), "{error}"),
    }
    let answer = server.infer(request("affine").fp32("x", &[2, 3], &[1.0; 6])).await.unwrap();
    assert_eq!(answer.outputs[0].shape, [2, 2]);
}
