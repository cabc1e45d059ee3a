//! A model server that implements `mmesh.ModelRuntime`: the handshake.
//!
//! Such a server has no index that could be asked what it holds, so everything whose files lie on the volume is unloaded
//! before the first load is granted.

mod link;
mod methods;
mod session;

use std::{sync::Arc, time::Duration};

use modelring_placement::pod::{LoadError, ServerLimits};
use modelring_proto::mmesh::{
    RuntimeStatusRequest, RuntimeStatusResponse, runtime_status_response::Status as Readiness,
};
use tokio::time::{Instant, sleep_until, timeout_at};
use tonic::{Code, Status};

use crate::{
    connection::Address,
    error::Error,
    failure::permanent,
    handshake::{self, Look, NotReady, UNIT, least_capacity},
    metrics::Metrics,
    server::{BoxFuture, ModelServer, ServerInfo, Session},
    storage::store::Store,
};
use link::Link;
use session::CustomSession;

/// A server behind `mmesh.ModelRuntime`.
pub(crate) struct CustomServer {
    address: Address,
    store: Arc<Store>,
    /// Name of the runtime.
    runtime: String,
    metrics: Arc<Metrics>,
}

// === impl CustomServer ===

impl CustomServer {
    /// A server at `http://host:port`, `port:<n>` or `unix:<path>`.
    pub(crate) fn new(
        management: &str,
        runtime: &str,
        store: Arc<Store>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, Error> {
        let address = management.parse().map_err(|text| Error::Setting { key: "management", text })?;
        Ok(Self { address, store, runtime: runtime.to_owned(), metrics })
    }

    async fn purge(&self, link: &Link, deadline: Instant) -> Result<(), NotReady> {
        let models = self.store.models().await.map_err(|error| NotReady::Yet(error.text))?;
        for model in models {
            let unloading = timeout_at(deadline, link.unload(&model)).await;
            let unloaded = unloading.map_err(|_| NotReady::Yet(format!("unloadModel of '{model}' has no answer")))?;
            unloaded.map_err(|status| NotReady::Yet(format!("unloadModel of '{model}': {}", status.message())))?;
        }
        Ok(())
    }
}

impl Look for CustomServer {
    /// Connects, asks, purges.
    async fn look(&self, deadline: Instant, purge_at: Instant) -> Result<Arc<dyn Session>, NotReady> {
        let (channel, held) = handshake::connect(&self.address, deadline).await?;
        let mut link = Link::new(channel, held);
        let status = status(&mut link, deadline).await?;
        let info = info(&status, &self.runtime).map_err(NotReady::Ever)?;
        sleep_until(purge_at).await;
        self.purge(&link, deadline).await?;
        Ok(Arc::new(CustomSession::new(link, info, self.metrics.clone())))
    }
}

impl ModelServer for CustomServer {
    fn handshake(&self, believed: bool) -> BoxFuture<'_, Result<Arc<dyn Session>, LoadError>> {
        Box::pin(handshake::wait(self, believed))
    }
}

/// Asks a server what it is, once; by the older name of its service if it has no other.
async fn status(link: &mut Link, deadline: Instant) -> Result<RuntimeStatusResponse, NotReady> {
    let never = |code, text: String| Err(NotReady::Ever(permanent(code, text)));
    loop {
        // A server may unload all that it holds before it answers, so only the whole patience bounds the call.
        let asking = timeout_at(deadline, link.call("runtimeStatus", RuntimeStatusRequest {})).await;
        let asked: Result<RuntimeStatusResponse, Status> =
            asking.map_err(|_| NotReady::Yet("runtimeStatus has no answer".to_owned()))?;
        return match asked {
            Ok(status) => match Readiness::try_from(status.status) {
                Ok(Readiness::Ready) => Ok(status),
                Ok(Readiness::Starting) => Err(NotReady::Yet("it says STARTING".to_owned())),
                Ok(Readiness::Failing) => never(Code::FailedPrecondition, "runtimeStatus says FAILING".to_owned()),
                Err(_) => {
                    never(Code::FailedPrecondition, format!("runtimeStatus says {}, which is no status", status.status))
                }
            },
            Err(status) if status.code() == Code::Unimplemented && link.use_older_name() => continue,
            Err(status) if status.code() == Code::Unimplemented => {
                never(Code::Unimplemented, format!("it does not implement mmesh.ModelRuntime: {}", status.message()))
            }
            Err(status) => Err(NotReady::Yet(format!("runtimeStatus: {}", status.message()))),
        };
    }
}

/// What a status says, or why no pod can be run by it.
fn info(status: &RuntimeStatusResponse, runtime: &str) -> Result<ServerInfo, LoadError> {
    let wrong = |text: String| Err(permanent(Code::FailedPrecondition, format!("runtimeStatus has {text}")));
    let default_size = status.default_model_size_in_bytes;
    if status.max_loading_concurrency < 1 {
        return wrong("maxLoadingConcurrency 0, at least 1 is needed".to_owned());
    }
    if status.model_loading_timeout_ms < 100 {
        return wrong(format!("modelLoadingTimeoutMs {}, at least 100 is needed", status.model_loading_timeout_ms));
    }
    if default_size < UNIT {
        return wrong(format!("defaultModelSizeInBytes {default_size}, at least {UNIT} is needed"));
    }
    let least = least_capacity(default_size);
    if status.capacity_in_bytes < least {
        let text = format!(
            "capacityInBytes {}, at least {least} is needed for models of {default_size} bytes",
            status.capacity_in_bytes
        );
        return wrong(text);
    }
    let limits = ServerLimits {
        capacity: status.capacity_in_bytes,
        loading_concurrency: usize::try_from(status.max_loading_concurrency).unwrap_or(usize::MAX),
        load_timeout: Duration::from_millis(status.model_loading_timeout_ms.into()),
        default_size,
    };
    Ok(ServerInfo {
        limits,
        methods: methods::of(status, runtime),
        allow_any_method: status.method_infos.is_empty() || status.allow_any_method,
        limit_concurrency: status.limit_model_concurrency,
        version: status.runtime_version.clone(),
    })
}
