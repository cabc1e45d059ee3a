//! The work that takes time: each job is a task that ends with one message to the core. All end with the agent.

use std::{sync::Arc, time::Duration};

use modelring_placement::{
    id::{ModelId, ModelRef},
    pod::{Attempt, LoadError},
};
use parking_lot::Mutex;
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;
use tonic::Code;

use super::Message;
use crate::{
    failure::{passing, permanent},
    metrics::Metrics,
    server::Session,
    storage::store::{Files, Store},
};

/// How long a server may take to predict a size.
const PREDICT: Duration = Duration::from_millis(500);
/// Time between two news of a pull.
const NEWS: Duration = Duration::from_millis(250);
/// Time before the first retry of an unload.
const RETRY_FIRST: Duration = Duration::from_secs(1);
/// Time between the further ones.
const RETRY: Duration = Duration::from_secs(10);

/// An unload that is not confirmed within this counts as failed; it is tried on.
const UNLOAD_LATE: Duration = Duration::from_secs(60);

/// What jobs work with.
#[derive(Clone)]
pub(super) struct Jobs {
    pub(super) store: Arc<Store>,
    pub(super) core: mpsc::Sender<Message>,
    pub(super) stop: CancellationToken,
    pub(super) metrics: Arc<Metrics>,
}

// === impl Jobs ===

impl Jobs {
    /// Finds out what is known of a model's size; what it means in memory is for the core to say.
    pub(super) fn size(
        &self,
        session: Option<Arc<dyn Session>>,
        model: ModelRef,
        attempt: Attempt,
    ) -> CancellationToken {
        let store = self.store.clone();
        self.spawn(async move {
            let result = async {
                let session = session.ok_or_else(no_server)?;
                // Listed first, whatever the server would predict: a model that is not there is not worth a place.
                let files = store.look_up(&model).await?;
                let known = match model.size_hint {
                    Some(bytes) => Some(bytes),
                    None => session.predict(&model, &files.path, &files.key, PREDICT).await,
                };
                Ok(super::Sized { known, on_disk: files.bytes, default: session.info().limits.default_size })
            };
            Message::Sized(model.id.clone(), model.model_type.clone(), attempt, result.await)
        })
    }

    /// Brings the files of a model.
    pub(super) fn pull(&self, model: ModelRef, attempt: Attempt) -> CancellationToken {
        let (store, core, metrics) = (self.store.clone(), self.core.clone(), self.metrics.clone());
        self.spawn(async move {
            let last = Mutex::new(None::<Instant>);
            let on_progress = |bytes, of_bytes| {
                let mut last = last.lock();
                if last.is_none_or(|last| last.elapsed() >= NEWS) {
                    *last = Some(Instant::now());
                    // Lost when the core is busy: the next one says more.
                    let _ = core.try_send(Message::Progress(model.id.clone(), attempt, bytes, of_bytes));
                }
            };
            let began = Instant::now();
            let pulled = store.pull(&model, &on_progress).await;
            metrics.pulled(pulled.as_ref().ok().map(|(files, _)| files), began.elapsed());
            Message::Pulled(model.id.clone(), attempt, pulled)
        })
    }

    /// Has the server load a model. Never cancelled but by the end of the agent.
    pub(super) fn load(
        &self,
        session: Option<Arc<dyn Session>>,
        model: ModelRef,
        files: Option<Files>,
        attempt: Attempt,
    ) {
        self.spawn(async move {
            let loaded = match (session, &files) {
                (Some(session), Some(files)) => session.load(&model, &files.path, &files.key).await,
                (None, _) => Err(no_server()),
                (_, None) => Err(permanent(Code::Internal, format!("the files of '{}' were not brought", model.id))),
            };
            let on_disk = files.map_or(0, |files| files.bytes);
            Message::Loaded { model: model.id, model_type: model.model_type, on_disk, attempt, loaded }
        });
    }

    /// Has the server unload a model until it says that it did, then lets go of its files, which may stay if `keep`. Ends without a word when the server
    /// process is gone: what it held is gone with it.
    pub(super) fn unload(&self, session: Arc<dyn Session>, model: ModelId, attempt: Attempt, keep: bool) {
        let store = self.store.clone();
        let core = self.core.clone();
        let stop = self.stop.clone();
        let metrics = self.metrics.clone();
        tokio::spawn(async move {
            let unload = async {
                let mut pause = RETRY_FIRST;
                let began = Instant::now();
                let mut is_late = false;
                while let Err(error) = session.unload(&model).await {
                    metrics.unload_attempt_failed();
                    if !is_late && began.elapsed() >= UNLOAD_LATE {
                        is_late = true;
                        metrics.unload_failed();
                    }
                    tracing::warn!(%model, code = error.code, error = error.text, retry_seconds = pause.as_secs(), "model is not unloaded");
                    tokio::time::sleep(pause).await;
                    pause = RETRY;
                }
                let let_go = if keep { store.let_go(&model).await } else { store.remove(&model).await };
                if let Err(error) = let_go {
                    tracing::warn!(%model, error = error.text, "files of an unloaded model are as they were");
                }
                let _ = core.send(Message::Unloaded(model.clone(), attempt)).await;
            };
            tokio::select! {
                () = unload => {}
                () = session.gone() => {}
                () = stop.cancelled() => {}
            }
        });
    }

    /// Asks the server's index before a proxy's NOT_FOUND is believed.
    pub(super) fn missing(&self, session: Arc<dyn Session>, model: ModelId, missing: Message) {
        let core = self.core.clone();
        self.spawn_quiet(async move {
            if session.knows(&model).await != Some(true) {
                let _ = core.send(missing).await;
            }
        });
    }

    /// Runs a job that may be given up by the token.
    fn spawn(&self, job: impl Future<Output = Message> + Send + 'static) -> CancellationToken {
        let core = self.core.clone();
        self.spawn_quiet(async move {
            let message = job.await;
            let _ = core.send(message).await;
        })
    }

    fn spawn_quiet(&self, job: impl Future<Output = ()> + Send + 'static) -> CancellationToken {
        let given_up = self.stop.child_token();
        let token = given_up.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = job => {}
                () = given_up.cancelled() => {}
            }
        });
        token
    }
}

fn no_server() -> LoadError {
    passing(Code::Unavailable, "the model server is not there")
}
