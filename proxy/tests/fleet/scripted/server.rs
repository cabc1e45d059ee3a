//! A model server that answers with what it was asked.

use std::{net::SocketAddr, sync::Arc};

use modelring_proto::inference::{
    self,
    grpc_inference_service_server::{GrpcInferenceService, GrpcInferenceServiceServer},
};
use tokio_stream::{Empty, empty};
use tonic::{Request, Response, Status, Streaming, transport::Server};

use super::{Stop, serve};

/// A KServe v2 server: `ModelInfer` answers the model name and id of the request, and in `parameters` the headers that
/// name the model.
pub(crate) struct KServe {
    pub(crate) address: SocketAddr,
    _server: Arc<Stop>,
}

struct Service;

impl KServe {
    pub(crate) async fn start() -> Self {
        let (address, server) = serve(Server::builder().add_service(GrpcInferenceServiceServer::new(Service))).await;
        Self { address, _server: server }
    }
}

fn not_here<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("not in this test"))
}

#[tonic::async_trait]
impl GrpcInferenceService for Service {
    type ModelStreamInferStream = Empty<Result<inference::ModelStreamInferResponse, Status>>;

    async fn model_infer(
        &self,
        request: Request<inference::ModelInferRequest>,
    ) -> Result<Response<inference::ModelInferResponse>, Status> {
        use inference::infer_parameter::ParameterChoice;
        let header = request.metadata().get("mm-model-id").and_then(|id| id.to_str().ok()).unwrap_or_default();
        let header = inference::InferParameter { parameter_choice: Some(ParameterChoice::StringParam(header.into())) };
        let asked = request.into_inner();
        let name = inference::InferParameter {
            parameter_choice: Some(ParameterChoice::StringParam(asked.model_name.clone())),
        };
        Ok(Response::new(inference::ModelInferResponse {
            model_name: asked.model_name,
            id: asked.id,
            parameters: [("header".into(), header), ("name".into(), name)].into(),
            ..Default::default()
        }))
    }

    async fn server_live(
        &self,
        _: Request<inference::ServerLiveRequest>,
    ) -> Result<Response<inference::ServerLiveResponse>, Status> {
        not_here()
    }

    async fn server_ready(
        &self,
        _: Request<inference::ServerReadyRequest>,
    ) -> Result<Response<inference::ServerReadyResponse>, Status> {
        not_here()
    }

    async fn model_ready(
        &self,
        _: Request<inference::ModelReadyRequest>,
    ) -> Result<Response<inference::ModelReadyResponse>, Status> {
        not_here()
    }

    async fn server_metadata(
        &self,
        _: Request<inference::ServerMetadataRequest>,
    ) -> Result<Response<inference::ServerMetadataResponse>, Status> {
        not_here()
    }

    async fn model_metadata(
        &self,
        _: Request<inference::ModelMetadataRequest>,
    ) -> Result<Response<inference::ModelMetadataResponse>, Status> {
        not_here()
    }

    async fn model_stream_infer(
        &self,
        _: Request<Streaming<inference::ModelInferRequest>>,
    ) -> Result<Response<Self::ModelStreamInferStream>, Status> {
        Ok(Response::new(empty()))
    }

    async fn repository_index(
        &self,
        _: Request<inference::RepositoryIndexRequest>,
    ) -> Result<Response<inference::RepositoryIndexResponse>, Status> {
        not_here()
    }

    async fn repository_model_load(
        &self,
        _: Request<inference::RepositoryModelLoadRequest>,
    ) -> Result<Response<inference::RepositoryModelLoadResponse>, Status> {
        not_here()
    }

    async fn repository_model_unload(
        &self,
        _: Request<inference::RepositoryModelUnloadRequest>,
    ) -> Result<Response<inference::RepositoryModelUnloadResponse>, Status> {
        not_here()
    }
}
