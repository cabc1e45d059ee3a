//! What a pod knows of one model: what watchers were told, what is held for it, and who wants it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{Attempt, CopyState, LoadError, WaiterId, Why};
use crate::{
    id::{ModelId, ModelRef, Seq, WatcherId},
    time::Time,
};

/// How long a load that nobody asks for keeps its place.
pub(super) const KEPT_UNASKED: Duration = Duration::from_secs(30);

/// A model of which something is shown, held or wanted.
#[derive(Debug, Default)]
pub(super) struct Entry {
    /// What watchers were last told, unless that was GONE.
    pub(super) shown: Option<(Seq, CopyState)>,
    pub(super) held: Held,
    pub(super) want: Option<Want>,
}

/// What disk, server and account hold of a model. One thing at a time: that is rule `one-load`.
#[derive(Debug, Default)]
pub(super) enum Held {
    #[default]
    Nothing,
    Loading(Load),
    Ready(Copy),
    Draining(Copy, Drain),
    Unloading {
        attempt: Attempt,
        bytes: u64,
        /// Shown once it is done, in place of GONE.
        error: DrainError,
    },
}

/// The model that goes because it does not fit, and what that is called.
pub(super) type DrainError = Option<Box<(ModelRef, LoadError)>>;

/// A load that has its place.
#[derive(Debug)]
pub(super) struct Load {
    pub(super) model: ModelRef,
    pub(super) attempt: Attempt,
    /// Reserved.
    pub(super) bytes: u64,
    pub(super) stage: Stage,
    /// When the stage began.
    pub(super) since: Time,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Pulling,
    /// The server is at it. Nothing ends that but its answer.
    Sent(Wanted),
}

/// What will become of a load when the server answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Yes,
    /// Another load waits for its memory and nobody had asked for it: unloaded, unless it is asked for again.
    IfAskedFor,
    /// It timed out: unloaded.
    No,
}

/// A copy that the server holds.
#[derive(Debug)]
pub(super) struct Copy {
    pub(super) model: ModelRef,
    pub(super) attempt: Attempt,
    pub(super) bytes: u64,
    pub(super) concurrency_limit: u32,
    /// Bytes beyond what was reserved.
    pub(super) grown: u64,
    pub(super) since: Time,
    pub(super) last_used: Time,
    /// When it was last asked for.
    pub(super) last_asked: Time,
    /// When a proxy last reported a call in flight.
    pub(super) in_flight: Option<Time>,
    pub(super) uses: u64,
    pub(super) worth: f64,
}

/// A drain whose unload has not been sent.
#[derive(Debug)]
pub(super) struct Drain {
    pub(super) seq: Seq,
    pub(super) since: Time,
    pub(super) cause: Cause,
    pub(super) acked: BTreeSet<WatcherId>,
}

/// Why a copy drains.
#[derive(Debug)]
pub(super) enum Cause {
    /// A load needs its memory. A firm drain is not called off.
    Room { firm: bool },
    /// The pod holds more than its capacity.
    Overrun,
    /// It is itself what does not fit: it goes with this error, and nothing calls that off.
    TooLarge(LoadError),
    /// Its model is in no table.
    Gone,
    /// The instance leaves and the copy is ready elsewhere: it is not unloaded. `done` once nobody uses it.
    Leave { done: bool },
}

/// Somebody wants the model and it is not ready.
#[derive(Debug)]
pub(super) struct Want {
    pub(super) model: ModelRef,
    pub(super) why: Why,
    /// Asked for before all with a higher number.
    pub(super) order: u64,
    pub(super) waiters: BTreeMap<WaiterId, Why>,
    /// When it was last asked for, or the last waiter left.
    pub(super) last_asked: Time,
    pub(super) replaces: Option<ModelId>,
    pub(super) size: Sizing,
}

/// What is known of the bytes to reserve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sizing {
    Unknown,
    Asked(Attempt, Time),
    Known(Attempt, u64),
}

// === impl Entry ===

impl Entry {
    pub(super) fn is_empty(&self) -> bool {
        self.shown.is_none() && self.want.is_none() && matches!(self.held, Held::Nothing)
    }

    /// Whether it is wanted and does not have its place yet.
    pub(super) fn is_queued(&self) -> bool {
        self.want.is_some() && !matches!(self.held, Held::Loading(_))
    }
}

// === impl Want ===

impl Want {
    /// When it was last asked for; an open waiter asks all the time.
    pub(super) fn asked_at(&self, now: Time) -> Time {
        if self.waiters.is_empty() { self.last_asked } else { now }
    }

    /// Whether nobody has asked for it for so long that it may lose its place.
    pub(super) fn is_forgotten(&self, now: Time) -> bool {
        self.asked_at(now) + KEPT_UNASKED <= now
    }
}

// === impl Drain ===

impl Drain {
    /// Whether it ends with an unload.
    pub(super) fn evicts(&self) -> bool {
        !matches!(self.cause, Cause::Leave { .. })
    }

    /// Whether use of the copy does not call it off.
    pub(super) fn is_firm(&self) -> bool {
        matches!(self.cause, Cause::Room { firm: true, .. } | Cause::TooLarge(_))
    }
}
