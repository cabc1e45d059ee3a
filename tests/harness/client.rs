//! Small clients.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use modelring_proto::inference::{
    ModelInferRequest, grpc_inference_service_client::GrpcInferenceServiceClient, model_infer_request::InferInputTensor,
};
use tonic::transport::{Channel, Endpoint};

/// A gRPC client of a proxy or model server.
///
/// # Panics
/// When nothing listens there.
pub async fn grpc(address: SocketAddr) -> GrpcInferenceServiceClient<Channel> {
    let channel = Endpoint::from_shared(format!("http://{address}"))
        .expect("an address makes a URL")
        .connect_timeout(Duration::from_secs(5))
        .connect()
        .await
        .expect("something listens there");
    GrpcInferenceServiceClient::new(channel).max_decoding_message_size(64 << 20).max_encoding_message_size(64 << 20)
}

/// A request for the MNIST model: a blank picture.
#[must_use]
pub fn mnist_request(model: &str) -> ModelInferRequest {
    ModelInferRequest {
        model_name: model.to_owned(),
        inputs: vec![InferInputTensor {
            name: "Input3".to_owned(),
            datatype: "FP32".to_owned(),
            shape: vec![1, 1, 28, 28],
            ..InferInputTensor::default()
        }],
        raw_input_contents: vec![vec![0; 784 * 4].into()],
        ..ModelInferRequest::default()
    }
}

/// An answer to a REST request.
#[derive(Debug)]
pub struct Rest {
    /// HTTP status.
    pub status: u16,
    /// Headers.
    pub headers: HeaderMap,
    /// Body.
    pub body: Bytes,
}

// === impl Rest ===

impl Rest {
    /// Sends one request on a connection of its own.
    ///
    /// # Panics
    /// When there is no answer within 60 s.
    pub async fn send(address: SocketAddr, method: &str, path: &str, body: impl Into<Bytes>) -> Self {
        let request = Request::builder().method(method).uri(path).header("host", address.to_string());
        Self::request(address, request.body(Full::new(body.into())).expect("the request is well-formed")).await
    }

    /// Sends one request on a connection of its own.
    ///
    /// # Panics
    /// When there is no answer within 60 s.
    pub async fn request(address: SocketAddr, request: Request<Full<Bytes>>) -> Self {
        let answer = async {
            let stream = tokio::net::TcpStream::connect(address).await.expect("something listens there");
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP/1.1 is spoken");
            let connection = tokio::spawn(connection);
            let answer = sender.send_request(request).await.expect("there is an answer");
            let (head, body) = answer.into_parts();
            let body = body.collect().await.expect("the answer is whole").to_bytes();
            connection.abort();
            Self { status: head.status.as_u16(), headers: head.headers, body }
        };
        tokio::time::timeout(Duration::from_secs(60), answer).await.expect("an answer comes within 60 s")
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// Why the proxy answered itself.
    #[must_use]
    pub fn reason(&self) -> &str {
        self.headers.get("modelring-reason").and_then(|reason| reason.to_str().ok()).unwrap_or_default()
    }
}
