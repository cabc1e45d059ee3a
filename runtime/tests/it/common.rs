//! A server on a free port, its clients, and short ways to make requests.

use std::{path::PathBuf, sync::Arc};

use modelring_proto::{
    inference::{
        InferTensorContents, ModelInferRequest, ModelInferResponse,
        grpc_inference_service_client::GrpcInferenceServiceClient,
        model_infer_request::{InferInputTensor, InferRequestedOutputTensor},
    },
    mmesh::{LoadModelRequest, LoadModelResponse, UnloadModelRequest, model_runtime_client::ModelRuntimeClient},
};
use modelring_runtime::{Config, Loader, OnnxLoader, Running, Runtime};
use tonic::{Status, transport::Channel};

/// A server and clients of its two services.
pub(crate) struct Server {
    pub(crate) running: Running,
    pub(crate) inference: GrpcInferenceServiceClient<Channel>,
    pub(crate) management: ModelRuntimeClient<Channel>,
}

/// The settings of the tests.
pub(crate) fn config() -> Config {
    Config { listen: ([127, 0, 0, 1], 0).into(), threads: 2, ..Config::default() }
}

/// Where a model file of the tests is.
pub(crate) fn path(file: &str) -> PathBuf {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    match file {
        "mnist.onnx" => root.join("../config/quickstart/models/onnx/mnist.onnx"),
        _ => root.join("tests/data").join(file),
    }
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::start_with(config(), Arc::new(OnnxLoader)).await
    }

    pub(crate) async fn start_with(config: Config, loader: Arc<dyn Loader>) -> Self {
        let running = Runtime::start_with(config, loader).await.unwrap();
        let channel = Channel::from_shared(format!("http://{}", running.addr)).unwrap().connect().await.unwrap();
        Self {
            running,
            inference: GrpcInferenceServiceClient::new(channel.clone()).max_decoding_message_size(64 << 20),
            management: ModelRuntimeClient::new(channel),
        }
    }

    /// Loads `<name>.onnx` under the id `name`.
    pub(crate) async fn load(&self, name: &str) -> LoadModelResponse {
        self.try_load(name, path(&format!("{name}.onnx"))).await.unwrap()
    }

    pub(crate) async fn try_load(&self, id: &str, path: PathBuf) -> Result<LoadModelResponse, Status> {
        let request = LoadModelRequest {
            model_id: id.to_owned(),
            model_type: "mt:onnx".to_owned(),
            model_path: path.display().to_string(),
            model_key:
                r#"{"model_type":{"name":"onnx"},"disk_size_bytes":26454,"schema_path":"/models/x/_schema.json"}"#
                    .to_owned(),
        };
        Ok(self.management.clone().load_model(request).await?.into_inner())
    }

    pub(crate) async fn unload(&self, id: &str) -> Result<(), Status> {
        self.management.clone().unload_model(UnloadModelRequest { model_id: id.to_owned() }).await.map(|_| ())
    }

    pub(crate) async fn infer(&self, request: ModelInferRequest) -> Result<ModelInferResponse, Status> {
        Ok(self.inference.clone().model_infer(request).await?.into_inner())
    }
}

/// A request of a model without inputs.
pub(crate) fn request(model: &str) -> ModelInferRequest {
    ModelInferRequest { model_name: model.to_owned(), id: "a-1".to_owned(), ..ModelInferRequest::default() }
}

/// Short ways to add to a request.
pub(crate) trait With {
    fn typed(self, name: &str, datatype: &str, shape: &[i64], contents: InferTensorContents) -> Self;
    fn raw(self, name: &str, datatype: &str, shape: &[i64], data: &[u8]) -> Self;
    fn fp32(self, name: &str, shape: &[i64], values: &[f32]) -> Self;
    fn output(self, name: &str) -> Self;
}

impl With for ModelInferRequest {
    fn typed(mut self, name: &str, datatype: &str, shape: &[i64], contents: InferTensorContents) -> Self {
        self.inputs.push(InferInputTensor {
            name: name.to_owned(),
            datatype: datatype.to_owned(),
            shape: shape.to_vec(),
            contents: Some(contents),
            ..InferInputTensor::default()
        });
        self
    }

    fn raw(mut self, name: &str, datatype: &str, shape: &[i64], data: &[u8]) -> Self {
        self = self.typed(name, datatype, shape, InferTensorContents::default());
        self.raw_input_contents.push(data.to_vec().into());
        self
    }

    fn fp32(self, name: &str, shape: &[i64], values: &[f32]) -> Self {
        let contents = InferTensorContents { fp32_contents: values.to_vec(), ..InferTensorContents::default() };
        self.typed(name, "FP32", shape, contents)
    }

    fn output(mut self, name: &str) -> Self {
        self.outputs
            .push(InferRequestedOutputTensor { name: name.to_owned(), ..InferRequestedOutputTensor::default() });
        self
    }
}

/// The bytes of numbers, little-endian.
pub(crate) fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}
