//! What the core is told.

use std::sync::Arc;

use modelring_placement::{
    id::{BootId, ModelId, ModelRef, Seq},
    pod::{Attempt, Event, LoadError, LoadedModel, ServerLife, WaiterId, Why},
};
use modelring_proto::v1::LoadEvent;
use tokio::sync::{mpsc, oneshot};

use super::watchers::{StreamId, Watch};
use crate::{
    metrics::Look,
    server::Session,
    storage::store::{Files, Pin},
};

/// Something that the core is to know.
pub(crate) enum Message {
    /// An `EnsureLoaded` was opened.
    Ask { waiter: WaiterId, model: ModelRef, why: Why, replaces: Option<ModelId>, events: mpsc::Sender<LoadEvent> },
    /// Its caller has gone.
    WaiterGone(WaiterId),
    /// A watch stream was opened.
    Watch(Watch),
    /// Its watcher has gone.
    Unwatch(StreamId),
    /// A watcher pings.
    Ping(StreamId, u64),
    /// A proxy was told NOT_FOUND.
    Missing { model: ModelId, boot: BootId, seq: Seq, asked: bool },
    /// Something that only the pod is to know.
    Heard(Event),
    /// The handshake with a process of the model server is done.
    Up(ServerLife, Arc<dyn Session>),
    /// That process is gone.
    Down(ServerLife),
    /// A model was looked up.
    Sized(ModelId, String, Attempt, Result<Sized, LoadError>),
    /// A pull is this far.
    Progress(ModelId, Attempt, u64, u64),
    /// A pull has ended.
    Pulled(ModelId, Attempt, Result<(Files, Pin), LoadError>),
    /// A load has ended.
    Loaded {
        model: ModelId,
        model_type: String,
        on_disk: u64,
        attempt: Attempt,
        loaded: Result<LoadedModel, LoadError>,
    },
    /// An unload was confirmed.
    Unloaded(ModelId, Attempt),
    /// Somebody wants to know how things stand.
    Look(oneshot::Sender<Look>),
    /// The instance is to go away; answered when nobody needs it any more.
    Leave(oneshot::Sender<()>),
}

/// What was found out about the size of a model.
pub(crate) struct Sized {
    /// Bytes in memory, where an earlier load or the server tells.
    pub(super) known: Option<u64>,
    /// Bytes of its files.
    pub(super) on_disk: u64,
    /// Bytes of a model of which nothing is known.
    pub(super) default: u64,
}
