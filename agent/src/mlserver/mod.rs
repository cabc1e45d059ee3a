//! MLServer: driven by KServe's repository API, from the folder `<model_dir>/_mlserver_models`
//! (`MLSERVER_MODELS_DIR`).
//!
//! MLServer's index tells only of models whose settings lie in that folder, so it is purged before the folder is cleared.

mod session;
mod settings;

use std::{path::Path, sync::Arc};

use modelring_placement::pod::{LoadError, ServerLimits};
use tokio::time::{Instant, sleep_until};

use crate::{
    adapter::{Layout, Repository, Settings},
    connection::Address,
    error::Error,
    handshake::{self, Look, NotReady},
    server::{BoxFuture, Method, ModelServer, ServerInfo, Session},
};
use session::MlServerSession;

/// Its folder in the model directory.
const SUB_DIR: &str = "_mlserver_models";
/// Methods that carry a model: its name is field 1 of each request and each response.
const METHODS: [&str; 3] = ["ModelInfer", "ModelMetadata", "ModelStreamInfer"];

/// An MLServer.
pub(crate) struct MlServer {
    address: Address,
    layout: Layout,
    settings: Arc<Settings>,
    limits: ServerLimits,
}

// === impl MlServer ===

impl MlServer {
    /// An MLServer whose gRPC is at `http://host:port`, `port:<n>` or `unix:<path>`.
    pub(crate) fn new(management: &str, model_dir: &Path, settings: Settings) -> Result<Self, Error> {
        let address = management.parse().map_err(|text| Error::Setting { key: "management", text })?;
        let limits = settings.limits()?;
        Ok(Self { address, layout: Layout::open(model_dir, SUB_DIR)?, settings: Arc::new(settings), limits })
    }

    fn info(&self, version: Option<String>) -> ServerInfo {
        let method = |name: &str| Method {
            name: format!("inference.GRPCInferenceService/{name}"),
            request_path: vec![1],
            response_path: vec![1],
        };
        ServerInfo {
            limits: self.limits.clone(),
            methods: METHODS.into_iter().map(method).collect(),
            allow_any_method: false,
            limit_concurrency: self.settings.limit_per_model_concurrency > 0,
            version: version.unwrap_or_else(|| self.settings.runtime_version.clone()),
        }
    }
}

impl Look for MlServer {
    /// Connects, purges, asks whether it is ready and for its version.
    async fn look(&self, deadline: Instant, purge_at: Instant) -> Result<Arc<dyn Session>, NotReady> {
        let (channel, held) = handshake::connect(&self.address, deadline).await?;
        let repository = Repository::new(channel, held);
        sleep_until(purge_at).await;
        // First of all: it is not ready as long as a model is.
        repository.purge(deadline).await?;
        repository.ready(deadline).await?;
        repository.purge(deadline).await?;
        self.layout.clear().await.map_err(|error| NotReady::Yet(error.text))?;
        let version = repository.version(deadline).await?;
        let info = self.info(version);
        Ok(Arc::new(MlServerSession::new(repository, self.layout.clone(), self.settings.clone(), info)))
    }
}

impl ModelServer for MlServer {
    fn handshake(&self, believed: bool) -> BoxFuture<'_, Result<Arc<dyn Session>, LoadError>> {
        Box::pin(handshake::wait(self, believed))
    }
}
