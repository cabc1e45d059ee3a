//! KServe v2 as clients meet it.

use crate::common::{Server, With, bytes, path, request};
use modelring_proto::inference::{
    InferTensorContents, ModelMetadataRequest, ModelReadyRequest, RepositoryIndexRequest, RepositoryModelLoadRequest,
    RepositoryModelUnloadRequest, ServerLiveRequest, ServerMetadataRequest, ServerReadyRequest,
    model_metadata_response::TensorMetadata,
};
use tokio_stream::StreamExt;
use tonic::{Code, transport::Channel};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

fn tensor(name: &str, datatype: &str, shape: &[i64]) -> TensorMetadata {
    TensorMetadata { name: name.to_owned(), datatype: datatype.to_owned(), shape: shape.to_vec() }
}

#[tokio::test]
async fn metadata_tells_names_types_and_variable_sizes() {
    let server = Server::start().await;
    for (model, inputs, outputs) in [
        ("mnist", vec![tensor("Input3", "FP32", &[1, 1, 28, 28])], vec![tensor("Plus214_Output_0", "FP32", &[1, 10])]),
        ("affine", vec![tensor("x", "FP32", &[-1, 3])], vec![tensor("y", "FP32", &[-1, 2])]),
        (
            "integers",
            vec![tensor("a", "INT64", &[4]), tensor("mask", "BOOL", &[4]), tensor("flag", "BOOL", &[])],
            vec![tensor("picked", "INT64", &[4]), tensor("either", "BOOL", &[4])],
        ),
        (
            "shapes",
            vec![tensor("x", "FP32", &[-1, -1]), tensor("y", "FP32", &[-1, 1])],
            vec![tensor("sum", "FP32", &[-1, -1]), tensor("dims", "INT64", &[2])],
        ),
        ("nonzero", vec![tensor("x", "INT64", &[-1])], vec![tensor("where", "INT64", &[1, -1])]),
        ("anyrank", vec![tensor("x", "FP32", &[-1])], vec![tensor("y", "FP32", &[-1])]),
    ] {
        server.load(model).await;
        let asked = ModelMetadataRequest { name: model.to_owned(), version: String::new() };
        let metadata = server.inference.clone().model_metadata(asked).await.unwrap().into_inner();
        assert_eq!((metadata.name.as_str(), metadata.versions.as_slice()), (model, &["1".to_owned()][..]));
        assert_eq!(metadata.platform, "onnx_tract");
        assert_eq!(metadata.inputs, inputs, "{model}");
        assert_eq!(metadata.outputs, outputs, "{model}");
    }
}

#[tokio::test]
async fn every_data_type_goes_through_a_model_raw() {
    let server = Server::start().await;
    server.load("mirror").await;
    let texts = b"\x02\0\0\0ab\0\0\0\0\x03\0\0\0\xe2\x82\xac";
    let tensors: [(&str, &[u8]); 13] = [
        ("bool", &[1, 0, 1]),
        ("int8", &[255, 0, 127]),
        ("int16", &[255, 255, 0, 0, 1, 2]),
        ("int32", &[1, 0, 0, 0, 2, 0, 0, 0, 255, 255, 255, 255]),
        ("int64", &[7; 24]),
        ("uint8", &[255, 0, 1]),
        ("uint16", &[255, 255, 0, 0, 1, 2]),
        ("uint32", &[9; 12]),
        ("uint64", &[255; 24]),
        ("fp16", &[0, 60, 0, 188, 0, 0]),
        ("fp32", &[0, 0, 128, 63, 0, 0, 128, 191, 0, 0, 0, 0]),
        ("fp64", &[1; 24]),
        ("bytes", texts),
    ];
    let call =
        tensors.iter().fold(request("mirror"), |call, (name, data)| call.raw(name, &name.to_uppercase(), &[3], data));
    let answer = server.infer(call).await.unwrap();
    for (place, (name, data)) in tensors.iter().enumerate() {
        assert_eq!(answer.outputs[place].name, format!("{name}_out"));
        assert_eq!(answer.outputs[place].datatype, name.to_uppercase());
        assert_eq!(answer.raw_output_contents[place], data.to_vec(), "{name}");
    }
}

#[tokio::test]
async fn every_data_type_that_has_a_field_goes_through_a_model_typed() {
    let server = Server::start().await;
    server.load("mirror_typed").await;
    let none = InferTensorContents::default;
    let tensors = [
        ("bool", InferTensorContents { bool_contents: vec![true, false], ..none() }),
        ("int8", InferTensorContents { int_contents: vec![-128, 127], ..none() }),
        ("int16", InferTensorContents { int_contents: vec![-32_768, 32_767], ..none() }),
        ("int32", InferTensorContents { int_contents: vec![i32::MIN, i32::MAX], ..none() }),
        ("int64", InferTensorContents { int64_contents: vec![i64::MIN, i64::MAX], ..none() }),
        ("uint8", InferTensorContents { uint_contents: vec![0, 255], ..none() }),
        ("uint16", InferTensorContents { uint_contents: vec![0, 65_535], ..none() }),
        ("uint32", InferTensorContents { uint_contents: vec![0, u32::MAX], ..none() }),
        ("uint64", InferTensorContents { uint64_contents: vec![0, u64::MAX], ..none() }),
        ("fp32", InferTensorContents { fp32_contents: vec![1.5, f32::NEG_INFINITY], ..none() }),
        ("fp64", InferTensorContents { fp64_contents: vec![1e300, -0.5], ..none() }),
        ("bytes", InferTensorContents { bytes_contents: vec!["\u{e4}".into(), "".into()], ..none() }),
    ];
    let call = tensors.iter().fold(request("mirror_typed"), |call, (name, contents)| {
        call.typed(name, &name.to_uppercase(), &[2], contents.clone())
    });
    let answer = server.infer(call).await.unwrap();
    for (output, (name, contents)) in answer.outputs.iter().zip(tensors) {
        assert_eq!(output.name, format!("{name}_out"));
        assert_eq!(output.contents, Some(contents), "{name}");
    }
}

#[tokio::test]
async fn fp16_is_raw_in_and_out_even_beside_typed_contents() {
    let server = Server::start().await;
    server.load("half").await;
    server.load("mirror").await;
    let answer = server.infer(request("half").fp32("x", &[2], &[1.0, -2.0])).await.unwrap();
    assert_eq!((answer.outputs[0].datatype.as_str(), &answer.outputs[0].contents), ("FP16", &None));
    assert_eq!(answer.raw_output_contents, [vec![0x00, 0x3c, 0x00, 0xc0]]);
    let typed = request("mirror").typed("fp16", "FP16", &[2], InferTensorContents::default());
    let error = server.infer(typed).await.unwrap_err();
    assert_eq!(error.message(), "input 'fp16': FP16 is carried by raw_input_contents only");
}

#[tokio::test]
async fn an_answer_is_raw_when_the_request_was_and_carries_its_id() {
    let server = Server::start().await;
    server.load("affine").await;
    let typed = server.infer(request("affine").fp32("x", &[1, 3], &[1.0, 1.0, 1.0])).await.unwrap();
    assert_eq!((typed.model_name.as_str(), typed.model_version.as_str(), typed.id.as_str()), ("affine", "1", "a-1"));
    assert_eq!(typed.outputs[0].contents.as_ref().unwrap().fp32_contents, [9.5, 11.5]);
    assert!(typed.raw_output_contents.is_empty());
    let raw = server.infer(request("affine").raw("x", "FP32", &[1, 3], &bytes(&[1.0; 3]))).await.unwrap();
    assert_eq!(raw.raw_output_contents, [bytes(&[9.5, 11.5])]);
    assert_eq!(raw.outputs[0].contents, None);
}

#[tokio::test]
async fn only_the_outputs_that_are_asked_for_are_answered_in_that_order() {
    let server = Server::start().await;
    server.load("shapes").await;
    let call = || request("shapes").fp32("x", &[2, 1], &[1.0, 2.0]).fp32("y", &[2, 1], &[0.5, 0.5]);
    let names = |answer: modelring_proto::inference::ModelInferResponse| -> Vec<String> {
        answer.outputs.into_iter().map(|output| output.name).collect()
    };
    assert_eq!(names(server.infer(call()).await.unwrap()), ["sum", "dims"]);
    assert_eq!(names(server.infer(call().output("dims").output("sum")).await.unwrap()), ["dims", "sum"]);
    let dims = server.infer(call().output("dims")).await.unwrap();
    assert_eq!(dims.outputs[0].contents.as_ref().unwrap().int64_contents, [2, 1]);
}

#[tokio::test]
async fn a_model_or_version_that_is_not_there_is_not_found() {
    let server = Server::start().await;
    server.load("affine").await;
    let error = server.infer(request("nope").fp32("x", &[1, 3], &[0.0; 3])).await.unwrap_err();
    assert_eq!((error.code(), error.message()), (Code::NotFound, "model 'nope' is not loaded"));
    let mut other = request("affine").fp32("x", &[1, 3], &[0.0; 3]);
    other.model_version = "2".to_owned();
    let error = server.infer(other).await.unwrap_err();
    assert_eq!(
        (error.code(), error.message()),
        (Code::NotFound, "model 'affine' has no version '2', only version '1'")
    );
    let asked = |name: &str| ModelMetadataRequest { name: name.to_owned(), version: String::new() };
    assert_eq!(server.inference.clone().model_metadata(asked("nope")).await.unwrap_err().code(), Code::NotFound);
    for (name, version, ready) in
        [("affine", "", true), ("affine", "1", true), ("affine", "2", false), ("nope", "", false)]
    {
        let asked = ModelReadyRequest { name: name.to_owned(), version: version.to_owned() };
        let answer = server.inference.clone().model_ready(asked).await.unwrap().into_inner();
        assert_eq!(answer.ready, ready, "{name} {version}");
    }
}

#[tokio::test]
async fn a_stream_answers_in_order_and_goes_on_after_a_failed_inference() {
    let server = Server::start().await;
    server.load("affine").await;
    let mut calls: Vec<_> = (0..20).map(|n| request("affine").fp32("x", &[1, 3], &[n as f32, 0.0, 0.0])).collect();
    calls[7] = request("affine").fp32("x", &[1, 4], &[0.0; 4]);
    calls[8] = request("nope");
    for (n, call) in calls.iter_mut().enumerate() {
        call.id = n.to_string();
    }
    let answers = server.inference.clone().model_stream_infer(tokio_stream::iter(calls)).await.unwrap().into_inner();
    let answers: Vec<_> = answers.map(|answer| answer.unwrap()).collect().await;
    assert_eq!(answers.len(), 20);
    for (n, answer) in answers.iter().enumerate() {
        let response = answer.infer_response.as_ref().unwrap();
        assert_eq!(response.id, n.to_string());
        match n {
            7 => assert_eq!(answer.error_message, "input 'x' has shape [-1, 3], got [1, 4]"),
            8 => assert_eq!(answer.error_message, "model 'nope' is not loaded"),
            _ => assert_eq!(response.outputs[0].contents.as_ref().unwrap().fp32_contents[0], n as f32 + 0.5),
        }
    }
}

#[tokio::test]
async fn the_server_tells_of_itself_and_of_its_models() {
    let server = Server::start().await;
    let mut client = server.inference.clone();
    assert!(client.server_live(ServerLiveRequest {}).await.unwrap().into_inner().live);
    assert!(client.server_ready(ServerReadyRequest {}).await.unwrap().into_inner().ready);
    let metadata = client.server_metadata(ServerMetadataRequest {}).await.unwrap().into_inner();
    assert_eq!((metadata.name.as_str(), metadata.version.as_str()), ("modelring-runtime", env!("CARGO_PKG_VERSION")));
    server.load("mnist").await;
    server.load("affine").await;
    let index = client.repository_index(RepositoryIndexRequest::default()).await.unwrap().into_inner().models;
    let index: Vec<_> = index.iter().map(|model| (model.name.as_str(), model.state.as_str())).collect();
    assert_eq!(index, [("affine", "READY"), ("mnist", "READY")]);
    let load = client.repository_model_load(RepositoryModelLoadRequest::default()).await.unwrap_err();
    let unload = client.repository_model_unload(RepositoryModelUnloadRequest::default()).await.unwrap_err();
    for error in [load, unload] {
        assert_eq!(error.code(), Code::Unimplemented);
        assert!(error.message().contains("mmesh.ModelRuntime/"), "{}", error.message());
    }
}

#[tokio::test]
async fn a_message_beyond_the_limit_is_refused_and_the_connection_goes_on() {
    let config = modelring_runtime::Config { max_message: 64 << 10, ..crate::common::config() };
    let server = Server::start_with(config, std::sync::Arc::new(modelring_runtime::OnnxLoader)).await;
    server.try_load("affine", path("affine.onnx")).await.unwrap();
    let rows = 10_000;
    let call = |rows: usize| request("affine").raw("x", "FP32", &[rows as i64, 3], &bytes(&vec![1.0; rows * 3]));
    assert_eq!(server.infer(call(rows)).await.unwrap_err().code(), Code::OutOfRange);
    assert_eq!(server.infer(call(100)).await.unwrap().outputs[0].shape, [100, 2]);
}

#[tokio::test]
async fn reflection_lists_what_is_served_and_nothing_else() {
    let server = Server::start().await;
    let endpoint = Channel::from_shared(format!("http://{}", server.running.addr)).unwrap();
    let mut client = ServerReflectionClient::new(endpoint.connect().await.unwrap());
    let asked = ServerReflectionRequest {
        message_request: Some(MessageRequest::ListServices(String::new())),
        ..ServerReflectionRequest::default()
    };
    let mut answers = client.server_reflection_info(tokio_stream::iter([asked])).await.unwrap().into_inner();
    let Some(MessageResponse::ListServicesResponse(list)) = answers.message().await.unwrap().unwrap().message_response
    else {
        panic!("not a list")
    };
    let mut names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
    names.sort();
    names.retain(|name| !name.starts_with("grpc.reflection."));
    assert_eq!(names, ["inference.GRPCInferenceService", "mmesh.ModelRuntime"]);
}
