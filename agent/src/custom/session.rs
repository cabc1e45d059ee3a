//! One process of a server behind `mmesh.ModelRuntime`.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use modelring_placement::{
    id::{ModelId, ModelRef},
    pod::{LoadError, LoadedModel},
};
use modelring_proto::mmesh::{
    LoadModelRequest, LoadModelResponse, ModelSizeRequest, ModelSizeResponse, PredictModelSizeRequest,
    PredictModelSizeResponse,
};
use tokio::time::{Instant, timeout};
use tonic::{Code, Status};

use super::link::Link;
use crate::{
    failure::{prefixed, server},
    metrics::Metrics,
    server::{BoxFuture, ServerInfo, Session},
};

/// How long `modelSize` may take.
const SIZE: Duration = Duration::from_secs(30);
/// Said before each failure of the server to load.
const LOAD_FAILED: &str = "Failed to load model due to model runtime error: ";

/// One process of the server.
pub(super) struct CustomSession {
    link: Link,
    info: ServerInfo,
    /// Whether it may predict sizes; not once it has said that it cannot.
    predicts: AtomicBool,
    metrics: Arc<Metrics>,
}

// === impl CustomSession ===

impl CustomSession {
    pub(super) fn new(link: Link, info: ServerInfo, metrics: Arc<Metrics>) -> Self {
        Self { link, info, predicts: AtomicBool::new(true), metrics }
    }

    async fn size(&self, model: &ModelId) -> Option<u64> {
        let request = ModelSizeRequest { model_id: model.to_string() };
        let began = Instant::now();
        let answer: Result<ModelSizeResponse, Status> =
            timeout(SIZE, self.link.call("modelSize", request)).await.ok()?;
        self.metrics.sized(began.elapsed());
        match answer {
            Ok(answer) => Some(answer.size_in_bytes).filter(|bytes| *bytes > 0),
            Err(status) => {
                tracing::debug!(%model, code = ?status.code(), text = status.message(), "model server tells no size");
                None
            }
        }
    }
}

impl Session for CustomSession {
    fn info(&self) -> &ServerInfo {
        &self.info
    }

    fn gone(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.link.held.ended())
    }

    fn alive(&self) -> bool {
        self.link.held.is_open()
    }

    fn predict<'a>(
        &'a self,
        model: &'a ModelRef,
        path: &'a Path,
        key: &'a str,
        within: Duration,
    ) -> BoxFuture<'a, Option<u64>> {
        Box::pin(async move {
            if !self.predicts.load(Ordering::Relaxed) {
                return None;
            }
            let request = PredictModelSizeRequest {
                model_id: model.id.to_string(),
                model_type: model.model_type.clone(),
                model_path: path.display().to_string(),
                model_key: key.to_owned(),
            };
            let answer: Result<PredictModelSizeResponse, Status> =
                timeout(within, self.link.call("predictModelSize", request)).await.ok()?;
            match answer {
                Ok(answer) => Some(answer.size_in_bytes).filter(|bytes| *bytes > 0),
                Err(status) => {
                    if status.code() == Code::Unimplemented {
                        self.predicts.store(false, Ordering::Relaxed);
                    }
                    None
                }
            }
        })
    }

    fn load<'a>(
        &'a self,
        model: &'a ModelRef,
        path: &'a Path,
        key: &'a str,
    ) -> BoxFuture<'a, Result<LoadedModel, LoadError>> {
        Box::pin(async move {
            let request = LoadModelRequest {
                model_id: model.id.to_string(),
                model_type: model.model_type.clone(),
                model_path: path.display().to_string(),
                model_key: key.to_owned(),
            };
            let answer: LoadModelResponse =
                self.link.call("loadModel", request).await.map_err(|status| prefixed(LOAD_FAILED, server(&status)))?;
            let bytes = match answer.size_in_bytes {
                0 => self.size(&model.id).await,
                bytes => Some(bytes),
            };
            let concurrency_limit = if self.info.limit_concurrency { answer.max_concurrency } else { 0 };
            Ok(LoadedModel { bytes, concurrency_limit })
        })
    }

    fn unload<'a>(&'a self, model: &'a ModelId) -> BoxFuture<'a, Result<(), LoadError>> {
        Box::pin(async move { self.link.unload(model).await.map_err(|status| server(&status)) })
    }

    fn knows<'a>(&'a self, _model: &'a ModelId) -> BoxFuture<'a, Option<bool>> {
        Box::pin(std::future::ready(None))
    }
}
