//! `inference.GRPCInferenceService`: what clients call.

use std::{pin::Pin, sync::Arc};

use modelring_proto::inference::{
    ModelInferRequest, ModelInferResponse, ModelMetadataRequest, ModelMetadataResponse, ModelReadyRequest,
    ModelReadyResponse, ModelStreamInferResponse, RepositoryIndexRequest, RepositoryIndexResponse,
    RepositoryModelLoadRequest, RepositoryModelLoadResponse, RepositoryModelUnloadRequest,
    RepositoryModelUnloadResponse, ServerLiveRequest, ServerLiveResponse, ServerMetadataRequest,
    ServerMetadataResponse, ServerReadyRequest, ServerReadyResponse,
    grpc_inference_service_server::GrpcInferenceService, repository_index_response::ModelIndex,
};
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

use crate::{
    decode::decode,
    encode::{VERSION, encode},
    error::{Error, Result},
    models::{Model, Models},
    pool::Pool,
};

/// What the models run on, in their metadata.
const PLATFORM: &str = "onnx_tract";

/// The service.
#[derive(Clone)]
pub(crate) struct Inference {
    /// The models.
    pub(crate) models: Arc<Models>,
    /// Where they run.
    pub(crate) pool: Arc<Pool>,
}

// === impl Inference ===

impl Inference {
    fn model(&self, id: &str, version: &str) -> Result<Arc<Model>> {
        let model = self.models.get(id)?;
        if version.is_empty() || version == VERSION {
            return Ok(model);
        }
        Err(Error::UnknownVersion { model: id.to_owned(), version: version.to_owned() })
    }

    /// One inference. All work with tensors is done on the pool.
    async fn infer(&self, request: ModelInferRequest) -> Result<ModelInferResponse> {
        let stray =
            |error: &Error| tracing::debug!(model = request.model_name, %error, "call of a model that is not loaded");
        let model = self.model(&request.model_name, &request.model_version).inspect_err(stray)?;
        let servable = model.admit().await.inspect_err(stray)?;
        let (name, id) = (request.model_name.clone(), request.id.clone());
        let work = move || {
            let call = decode(&model.signature, request)?;
            let outputs = servable.infer(call.inputs)?;
            encode(&model.signature, &outputs, &call.outputs, call.raw)
        };
        let response = self.pool.run(work).await?;
        Ok(ModelInferResponse { model_name: name, id, ..response })
    }

    /// One inference of a stream: a failed one is told in its place, and the stream goes on.
    async fn infer_in_stream(&self, request: ModelInferRequest) -> ModelStreamInferResponse {
        let (model_name, id) = (request.model_name.clone(), request.id.clone());
        match self.infer(request).await {
            Ok(response) => ModelStreamInferResponse { error_message: String::new(), infer_response: Some(response) },
            Err(error) => ModelStreamInferResponse {
                error_message: error.to_string(),
                // So that a caller with several in flight knows which one it was.
                infer_response: Some(ModelInferResponse { model_name, id, ..ModelInferResponse::default() }),
            },
        }
    }
}

#[tonic::async_trait]
impl GrpcInferenceService for Inference {
    type ModelStreamInferStream = Pin<Box<dyn Stream<Item = Result<ModelStreamInferResponse, Status>> + Send>>;

    async fn server_live(&self, _: Request<ServerLiveRequest>) -> Result<Response<ServerLiveResponse>, Status> {
        Ok(Response::new(ServerLiveResponse { live: true }))
    }

    async fn server_ready(&self, _: Request<ServerReadyRequest>) -> Result<Response<ServerReadyResponse>, Status> {
        Ok(Response::new(ServerReadyResponse { ready: true }))
    }

    /// A model that is not there is not ready; that is an answer, not an error.
    async fn model_ready(&self, request: Request<ModelReadyRequest>) -> Result<Response<ModelReadyResponse>, Status> {
        let ModelReadyRequest { name, version } = request.into_inner();
        Ok(Response::new(ModelReadyResponse { ready: self.model(&name, &version).is_ok() }))
    }

    async fn server_metadata(
        &self,
        _: Request<ServerMetadataRequest>,
    ) -> Result<Response<ServerMetadataResponse>, Status> {
        Ok(Response::new(ServerMetadataResponse {
            name: env!("CARGO_PKG_NAME").to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            extensions: vec![],
        }))
    }

    async fn model_metadata(
        &self,
        request: Request<ModelMetadataRequest>,
    ) -> Result<Response<ModelMetadataResponse>, Status> {
        let ModelMetadataRequest { name, version } = request.into_inner();
        let model = self.model(&name, &version)?;
        Ok(Response::new(ModelMetadataResponse {
            name,
            versions: vec![VERSION.to_owned()],
            platform: PLATFORM.to_owned(),
            inputs: model.signature.inputs.iter().map(|spec| spec.metadata()).collect(),
            outputs: model.signature.outputs.iter().map(|spec| spec.metadata()).collect(),
        }))
    }

    async fn model_infer(&self, request: Request<ModelInferRequest>) -> Result<Response<ModelInferResponse>, Status> {
        Ok(Response::new(self.infer(request.into_inner()).await?))
    }

    /// Answers come in the order of the requests.
    async fn model_stream_infer(
        &self,
        request: Request<Streaming<ModelInferRequest>>,
    ) -> Result<Response<Self::ModelStreamInferStream>, Status> {
        let service = self.clone();
        let answers = request.into_inner().then(move |message| {
            let service = service.clone();
            async move { Ok(service.infer_in_stream(message?).await) }
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn repository_index(
        &self,
        request: Request<RepositoryIndexRequest>,
    ) -> Result<Response<RepositoryIndexResponse>, Status> {
        let only_ready = request.into_inner().ready;
        let index = |(name, ready)| ModelIndex {
            name,
            version: VERSION.to_owned(),
            state: if ready { "READY" } else { "LOADING" }.to_owned(),
            reason: String::new(),
        };
        let models = self.models.list().into_iter().filter(|(_, ready)| *ready || !only_ready).map(index).collect();
        Ok(Response::new(RepositoryIndexResponse { models }))
    }

    async fn repository_model_load(
        &self,
        _: Request<RepositoryModelLoadRequest>,
    ) -> Result<Response<RepositoryModelLoadResponse>, Status> {
        Err(Status::unimplemented("models are loaded by mmesh.ModelRuntime/loadModel"))
    }

    async fn repository_model_unload(
        &self,
        _: Request<RepositoryModelUnloadRequest>,
    ) -> Result<Response<RepositoryModelUnloadResponse>, Status> {
        Err(Status::unimplemented("models are unloaded by mmesh.ModelRuntime/unloadModel"))
    }
}
