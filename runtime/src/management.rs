//! `mmesh.ModelRuntime`: what the agent calls.

use std::{collections::HashMap, sync::Arc, time::Duration};

use modelring_proto::mmesh::{
    LoadModelRequest, LoadModelResponse, ModelSizeRequest, ModelSizeResponse, PredictModelSizeRequest,
    PredictModelSizeResponse, RuntimeStatusRequest, RuntimeStatusResponse, UnloadModelRequest, UnloadModelResponse,
    model_runtime_server::ModelRuntime,
    runtime_status_response::{MethodInfo, Status as RuntimeState},
};
use tonic::{Request, Response, Status};

use crate::{config::Config, error::Error, models::Models, servable::ModelFiles};

/// Size of a model of which nothing is known, bytes; as the adapters of ModelMesh say it.
const DEFAULT_MODEL_SIZE: u64 = 1_000_000;

/// A server must have room for this many models of the default size, or it is refused (ModelMesh's rule).
const LEAST_MODELS: u64 = 10;

/// The least default size that is taken, bytes.
const LEAST_SIZE: u64 = 8192;

/// How long the purge before READY may take before the agent is told to ask again.
const PURGE: Duration = Duration::from_secs(1);

/// Methods that callers may use, each with the model's name in field 1 of its request.
const METHODS: [&str; 4] = ["ModelInfer", "ModelMetadata", "ModelReady", "ModelStreamInfer"];

/// The service.
pub(crate) struct Management {
    /// The models.
    pub(crate) models: Arc<Models>,
    /// What the agent is told.
    pub(crate) config: Config,
}

// === impl Management ===

impl Management {
    /// What the agent must know. Numbers only count with READY.
    fn status(&self) -> RuntimeStatusResponse {
        let method = |name| {
            let info = MethodInfo { id_injection_path: vec![1] };
            (format!("inference.GRPCInferenceService/{name}"), info)
        };
        RuntimeStatusResponse {
            status: RuntimeState::Ready.into(),
            capacity_in_bytes: self.config.capacity,
            max_loading_concurrency: u32::try_from(self.config.loading_concurrency).unwrap_or(u32::MAX),
            model_loading_timeout_ms: u32::try_from(self.config.load_timeout.as_millis()).unwrap_or(u32::MAX),
            default_model_size_in_bytes: DEFAULT_MODEL_SIZE.min(self.config.capacity / LEAST_MODELS).max(LEAST_SIZE),
            // By its name an agent knows the form of the stream's answers, whatever the ServingRuntime is called.
            runtime_version: concat!("modelring-onnx ", env!("CARGO_PKG_VERSION")).to_owned(),
            method_infos: METHODS.into_iter().map(method).collect::<HashMap<_, _>>(),
            ..RuntimeStatusResponse::default()
        }
    }
}

#[tonic::async_trait]
impl ModelRuntime for Management {
    async fn load_model(&self, request: Request<LoadModelRequest>) -> Result<Response<LoadModelResponse>, Status> {
        let LoadModelRequest { model_id, model_type, model_path, model_key } = request.into_inner();
        if model_id.is_empty() {
            return Err(Error::InvalidRequest("modelId is empty".to_owned()).into());
        }
        let files = ModelFiles { id: model_id, model_type, path: model_path.into(), key: model_key };
        tracing::debug!(model = files.id, path = %files.path.display(), "load");
        let id = files.id.clone();
        let model =
            self.models.load(files).await.inspect_err(|error| tracing::info!(model = id, %error, "load failed"))?;
        tracing::info!(model = id, bytes = model.size, "loaded");
        Ok(Response::new(LoadModelResponse { size_in_bytes: model.size, max_concurrency: model.max_concurrency }))
    }

    async fn unload_model(
        &self,
        request: Request<UnloadModelRequest>,
    ) -> Result<Response<UnloadModelResponse>, Status> {
        let id = request.into_inner().model_id;
        self.models.unload(&id).await?;
        tracing::info!(model = id, "unloaded");
        Ok(Response::new(UnloadModelResponse {}))
    }

    async fn predict_model_size(
        &self,
        request: Request<PredictModelSizeRequest>,
    ) -> Result<Response<PredictModelSizeResponse>, Status> {
        let PredictModelSizeRequest { model_id, model_type, model_path, model_key } = request.into_inner();
        let files = ModelFiles { id: model_id, model_type, path: model_path.into(), key: model_key };
        Ok(Response::new(PredictModelSizeResponse { size_in_bytes: self.models.predict(files).await? }))
    }

    async fn model_size(&self, request: Request<ModelSizeRequest>) -> Result<Response<ModelSizeResponse>, Status> {
        let model = self.models.get(&request.into_inner().model_id)?;
        Ok(Response::new(ModelSizeResponse { size_in_bytes: model.size }))
    }

    /// An agent asks this when it starts, and believes that a server which says READY is empty: so everything is
    /// unloaded first, and until that is done the answer is STARTING.
    async fn runtime_status(
        &self,
        _: Request<RuntimeStatusRequest>,
    ) -> Result<Response<RuntimeStatusResponse>, Status> {
        match tokio::time::timeout(PURGE, self.models.purge()).await {
            Ok(purged) => {
                purged?;
                Ok(Response::new(self.status()))
            }
            Err(_) => Ok(Response::new(RuntimeStatusResponse::default())),
        }
    }
}
