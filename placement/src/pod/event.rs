//! What happens to a pod, and what the pod wants done.

use std::time::Duration;

use crate::{
    id::{BootId, ModelId, ModelRef, Seq, WatcherId},
    time::Time,
};

/// One open `EnsureLoaded` call.
pub type WaiterId = u64;

/// One life of the model server's process, counted up by the agent at each `ServerReady`.
pub type ServerLife = u64;

/// One try to load a model, counted up by the pod; answers of an older try are told apart by it.
pub type Attempt = u64;

/// What the agent knows of its model server once the handshake is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerLimits {
    /// Bytes that models may fill.
    pub capacity: u64,
    /// Loads that may run at once, at least 1.
    pub loading_concurrency: usize,
    /// How long a load may take where the model does not say.
    pub load_timeout: Duration,
    /// Bytes to reserve for a model of which nothing is known.
    pub default_size: u64,
}

/// Settings of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// A copy used more recently is not evicted for another (`agent.minChurnAge`); none = 10 x the learned load time of
    /// its type, at least 1 s.
    pub min_churn_age: Option<Duration>,
    /// Order of evictions (`agent.evictionPolicy`).
    pub eviction: EvictionPolicy,
    /// How long a drain may take (`agent.drainTimeout`), at least 3 s.
    pub drain_timeout: Duration,
    /// Whether the volume bears the mark of an earlier start: then nothing is unloaded for 3 s (section 4).
    pub started_before: bool,
}

/// Order of evictions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EvictionPolicy {
    /// Greedy-Dual-Size-Frequency: recency, load cost and size.
    #[default]
    Gdsf,
    /// Plain least recently used.
    Lru,
}

/// Why a load is asked for, in the order of the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Why {
    /// A caller waits.
    Waiter,
    /// The model should have a copy.
    Keep,
    /// The model should have a further copy.
    Scale,
    /// Ahead of use.
    Ahead,
}

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// An `EnsureLoaded` was opened.
    Ask {
        /// The open call.
        waiter: WaiterId,
        /// The model.
        model: ModelRef,
        /// Why.
        why: Why,
        /// Another copy that may go for it although young or used.
        replaces: Option<ModelId>,
    },
    /// An `EnsureLoaded` ended from outside.
    WaiterGone(WaiterId),
    /// A proxy's ping came: its lease begins anew. (The pong is the agent's, after it has looked at the server.) Pings of
    /// control and of observers are answered and not told here: they have no lease.
    Ping(WatcherId),
    /// Use of copies, reported by a proxy.
    Touches {
        /// The proxy.
        watcher: WatcherId,
        /// Use by model.
        touches: Vec<Touch>,
    },
    /// A proxy was told NOT_FOUND for a READY copy, and (for a server with an index) the index agrees.
    Missing {
        /// The model.
        model: ModelId,
        /// Boot that said READY.
        boot: BootId,
        /// Seq of that READY; counts once.
        seq: Seq,
    },
    /// A proxy acknowledges a drain.
    DrainAck {
        /// The proxy.
        watcher: WatcherId,
        /// The model.
        model: ModelId,
        /// Boot that said DRAINING.
        boot: BootId,
        /// Seq of that DRAINING.
        seq: Seq,
    },
    /// Control weighs evictions.
    Hints(Hints),
    /// Answer to [`Action::Size`]: bytes to reserve, or why the model cannot be sized. Code 8 (RESOURCE_EXHAUSTED) here
    /// and in `Pulled` means that there is no disk for its files: a refusal, not a failure of the model.
    Sized(ModelId, Attempt, Result<u64, LoadError>),
    /// Answer to [`Action::Pull`].
    Pulled(ModelId, Attempt, Result<(), LoadError>),
    /// Answer to [`Action::Load`]. It always comes, even long after the load's timeout.
    Loaded(ModelId, Attempt, Result<LoadedModel, LoadError>),
    /// The server confirmed an [`Action::Unload`] (or the model was not there). The agent retries until it does, or until
    /// that life of the server is gone.
    Unloaded(ModelId, Attempt),
    /// The handshake with a new server process is done; it holds nothing.
    ServerReady(ServerLife, ServerLimits),
    /// The server process of this life is gone, with all that it held.
    ServerGone(ServerLife),
    /// The storage Secret changed: failures are forgotten.
    SecretChanged,
    /// The instance is to go away.
    Leave,
    /// Time has passed; sent when [`super::Pod::next_wake`] says so.
    Tick,
}

/// Use of one copy by one proxy since its last report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Touch {
    /// The model.
    pub model: ModelId,
    /// When it was last used.
    pub last_used: Time,
    /// Calls since the last report.
    pub count: u64,
    /// Calls in flight at the report.
    pub in_flight: u32,
}

/// Control's hints, whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hints {
    /// Epoch of that control.
    pub epoch: u64,
    /// Never evict.
    pub keep: Vec<ModelId>,
    /// Evict first.
    pub surplus: Vec<ModelId>,
    /// In no table.
    pub gone: Vec<ModelId>,
}

/// What the server said of a model that it has loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadedModel {
    /// Bytes in memory; `None` if the server could not say (the reservation stays).
    pub bytes: Option<u64>,
    /// Most calls at once; 0 = no limit.
    pub concurrency_limit: u32,
}

/// Why a load failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadError {
    /// gRPC code.
    pub code: u32,
    /// Text of the storage or the server.
    pub text: String,
    /// Whether it will pass by itself (connection, timeout, 5xx of the storage) and is soon tried again.
    pub passing: bool,
}

/// Something that the pod wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Find out how much to reserve: the server's prediction, else the bytes listed in storage, else the default size.
    /// The second part of an answer is [`Event::Sized`].
    Size(ModelRef, Attempt),
    /// Bring the files. Answered by [`Event::Pulled`].
    Pull(ModelRef, Attempt),
    /// Give up sizing or pulling; no answer is awaited.
    CancelPull(ModelId, Attempt),
    /// Have the server load it. Answered by [`Event::Loaded`], whatever the time it takes.
    Load(ModelRef, Attempt),
    /// Have the server unload it, until it says so. Answered by [`Event::Unloaded`].
    Unload(ModelId, Attempt),
    /// Tell all watchers the new state of a copy.
    Emit(Change),
    /// Tell one waiter.
    Tell(WaiterId, Told),
}

/// A new state of a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Number of the change.
    pub seq: Seq,
    /// The model.
    pub model: ModelId,
    /// The state.
    pub state: CopyState,
}

/// State of a copy as watchers are told it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopyState {
    /// Waits for a place (and is sized for it).
    Queued,
    /// Is pulled or loaded.
    Loading {
        /// Bytes reserved.
        bytes: u64,
    },
    /// Serves.
    Ready {
        /// Bytes in memory.
        bytes: u64,
        /// Most calls at once; 0 = no limit.
        concurrency_limit: u32,
    },
    /// Serves what is in flight.
    Draining {
        /// Bytes in memory.
        bytes: u64,
        /// Whether it will be unloaded (evict), or only left alone because the instance leaves.
        evict: bool,
    },
    /// Could not be loaded.
    Failed {
        /// Why.
        error: LoadError,
        /// Until when that counts.
        until: Time,
    },
    /// Is no more.
    Gone,
}

/// What a waiter is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// It has a place in the queue.
    Accepted {
        /// Loads before it.
        place: usize,
    },
    /// The copy is ready; ends the waiter.
    Loaded {
        /// Seq of the READY.
        seq: Seq,
    },
    /// The load failed; ends the waiter.
    Failed(LoadError),
    /// It will not be tried here; ends the waiter.
    Refused {
        /// Why.
        refusal: Refusal,
        /// When to ask again.
        retry_after: Option<Duration>,
        /// For people.
        text: String,
    },
}

/// Why a load is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// No memory that may be freed.
    Full,
    /// Only young copies could be freed.
    Churn,
    /// The keep list fills the pod.
    Pinned,
    /// A recorded failure.
    Failing,
    /// The instance is going away.
    Leaving,
    /// No disk for its files.
    Disk,
}

/// The account of a pod's memory for watchers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LedgerState {
    /// Bytes that models may fill.
    pub capacity: u64,
    /// Bytes of ready and draining copies.
    pub loaded: u64,
    /// Bytes promised to loads.
    pub reserved: u64,
    /// Bytes being freed.
    pub unloading: u64,
    /// Bytes needed beyond reservations.
    pub overrun: u64,
    /// Loads in the queue.
    pub queue: usize,
    /// Loads that hang beyond their timeouts.
    pub hung: usize,
    /// How long the copy that would go next has been unused.
    pub next_victim_age: Option<Duration>,
}
