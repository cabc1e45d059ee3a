//! The answers that are small JSON objects.

use modelring_proto::inference::{ModelMetadataResponse, model_metadata_response::TensorMetadata};
use serde::Serialize;

/// Extensions of the protocol that the proxy speaks.
const EXTENSIONS: [&str; 1] = ["binary_tensor_data"];

#[derive(Serialize)]
struct Model<'a> {
    name: &'a str,
    versions: &'a [String],
    platform: &'a str,
    inputs: Vec<Tensor<'a>>,
    outputs: Vec<Tensor<'a>>,
}

#[derive(Serialize)]
struct Tensor<'a> {
    name: &'a str,
    datatype: &'a str,
    shape: &'a [i64],
}

#[derive(Serialize)]
struct Server {
    name: &'static str,
    version: &'static str,
    extensions: [&'static str; 1],
}

#[derive(Serialize)]
struct Ready<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    ready: bool,
}

#[derive(Serialize)]
struct Live {
    live: bool,
}

/// What a model takes and gives. Nothing is left out, and shapes are integers.
#[must_use]
pub fn model(message: &ModelMetadataResponse) -> Vec<u8> {
    json(&Model {
        name: &message.name,
        versions: &message.versions,
        platform: &message.platform,
        inputs: message.inputs.iter().map(Tensor::from).collect(),
        outputs: message.outputs.iter().map(Tensor::from).collect(),
    })
}

/// What the proxy is (`GET /v2`).
#[must_use]
pub fn server() -> Vec<u8> {
    json(&Server { name: "modelring", version: env!("CARGO_PKG_VERSION"), extensions: EXTENSIONS })
}

/// The proxy lives.
#[must_use]
pub fn live() -> Vec<u8> {
    json(&Live { live: true })
}

/// The proxy is ready, or this model is.
#[must_use]
pub fn ready(model: Option<&str>) -> Vec<u8> {
    json(&Ready { name: model, ready: true })
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

impl<'a> From<&'a TensorMetadata> for Tensor<'a> {
    fn from(tensor: &'a TensorMetadata) -> Self {
        Self { name: &tensor.name, datatype: &tensor.datatype, shape: &tensor.shape }
    }
}
