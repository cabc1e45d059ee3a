//! One process of MLServer.

use std::{path::Path, sync::Arc, time::Duration};

use modelring_placement::{
    id::{ModelId, ModelRef},
    pod::{LoadError, LoadedModel},
};
use tonic::Code;

use super::settings::{self, LaidOut};
use crate::{
    adapter::{AdapterKey, Layout, Repository, Settings, adapter_error},
    failure::{prefixed, server},
    server::{BoxFuture, ServerInfo, Session},
    storage::store::blocking,
};

/// Said before each failure of MLServer to load.
const LOAD_FAILED: &str = "Failed to load Model due to MLServer runtime error: ";
/// Said before each failure to unload.
const UNLOAD_FAILED: &str = "Failed to unload model from MLServer: ";

/// One process of MLServer.
pub(super) struct MlServerSession {
    repository: Repository,
    layout: Layout,
    settings: Arc<Settings>,
    info: ServerInfo,
}

// === impl MlServerSession ===

impl MlServerSession {
    pub(super) fn new(repository: Repository, layout: Layout, settings: Arc<Settings>, info: ServerInfo) -> Self {
        Self { repository, layout, settings, info }
    }

    /// Lays the model out and has MLServer load it.
    async fn lay_out_and_load(&self, model: &ModelRef, path: &Path, key: &str) -> Result<LoadedModel, LoadError> {
        let key = AdapterKey::read(key, &model.model_type).map_err(adapter_error)?;
        let bytes = self.settings.size(key.on_disk);
        let model_type = key.model_type.clone();
        let (layout, id, path) = (self.layout.clone(), model.id.clone(), path.to_owned());
        let laid_out = blocking(move || settings::lay_out(&layout.fresh(&id)?, &id, &path, &key)).await;
        let laid_out = laid_out.map_err(adapter_error)?;
        self.repository.load(&model.id).await.map_err(|status| {
            let mut error = prefixed(LOAD_FAILED, server(&status));
            if status.code() == Code::NotFound {
                error.text.push_str("; ");
                error.text.push_str(&self.why_not_found(&model_type, laid_out));
            }
            error
        })?;
        Ok(LoadedModel { bytes: Some(bytes), concurrency_limit: self.settings.limit_per_model_concurrency })
    }

    /// MLServer says of settings that it cannot use, and of settings that it cannot see, only that there is no such model.
    fn why_not_found(&self, model_type: &str, laid_out: LaidOut) -> String {
        match laid_out.implementation_is_known {
            true => format!("its MLSERVER_MODELS_DIR must be '{}', and readable to it", self.layout.dir().display()),
            false => format!(
                "no implementation is known for models of type '{model_type}': bring a model-settings.json that names one"
            ),
        }
    }
}

impl Session for MlServerSession {
    fn info(&self) -> &ServerInfo {
        &self.info
    }

    fn gone(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.repository.held.ended())
    }

    fn alive(&self) -> bool {
        self.repository.held.is_open()
    }

    fn predict<'a>(
        &'a self,
        model: &'a ModelRef,
        _path: &'a Path,
        key: &'a str,
        _timeout: Duration,
    ) -> BoxFuture<'a, Option<u64>> {
        let key = AdapterKey::read(key, &model.model_type).ok();
        Box::pin(std::future::ready(key.map(|key| self.settings.size(key.on_disk))))
    }

    fn load<'a>(
        &'a self,
        model: &'a ModelRef,
        path: &'a Path,
        key: &'a str,
    ) -> BoxFuture<'a, Result<LoadedModel, LoadError>> {
        Box::pin(self.lay_out_and_load(model, path, key))
    }

    fn unload<'a>(&'a self, model: &'a ModelId) -> BoxFuture<'a, Result<(), LoadError>> {
        Box::pin(async move {
            let unloaded = self.repository.unload(model).await;
            unloaded.map_err(|status| prefixed(UNLOAD_FAILED, server(&status)))?;
            // A link more or less is no reason to keep the memory charged.
            if let Err(error) = self.layout.remove(model).await {
                tracing::warn!(%model, error = error.text, "the layout of an unloaded model stays");
            }
            Ok(())
        })
    }

    fn knows<'a>(&'a self, model: &'a ModelId) -> BoxFuture<'a, Option<bool>> {
        Box::pin(async move { Some(self.repository.knows(model).await) })
    }
}
