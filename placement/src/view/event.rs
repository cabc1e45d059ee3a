//! What happens on a watch stream, and what changes in the view by it.

use std::time::Duration;

use crate::{
    id::{BootId, ModelId, Seq},
    pod::{CopyState, LoadError},
    time::Time,
};

/// Something that happened on the stream to one agent.
#[derive(Clone, Debug)]
pub enum ViewEvent {
    /// A ping with this number is about to be written.
    PingSent(u64),
    /// The agent's first message.
    Hello {
        /// Its boot.
        boot: BootId,
    },
    /// A copy of the snapshot, or a change.
    Copy {
        /// Seq of the change.
        seq: Seq,
        /// The model.
        model: ModelId,
        /// Its state, with times of this process's clock.
        state: CopyState,
    },
    /// The snapshot is whole.
    SnapshotEnd {
        /// The last seq given.
        seq: Seq,
    },
    /// A ping was answered.
    Pong(u64),
    /// The stream ended: the lease runs out.
    Ended,
    /// The connection is refused, or the instance left the table: the lease ends at once.
    Refused,
    /// The whole instance is going away; its ready copies may be used until it is gone.
    Leaving,
}

/// Something that changed in the view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ViewChange {
    /// A copy has a new state.
    Copy(ModelId, SeenCopy),
    /// A copy is no more (also: it was not in the new snapshot).
    Gone(ModelId),
    /// The lease now ends at this time ([`Time::ZERO`] = it has ended).
    Lease(Time),
    /// All copies are unknown until the next snapshot is whole.
    Unknown,
    /// The snapshot is whole.
    Known,
    /// The instance is going away.
    Leaving,
    /// A load that was watched from its LOADING to its READY took so long: a sample for the learned load time.
    LoadTook(ModelId, Duration),
}

/// A copy as this watcher sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenCopy {
    /// Boot that said so.
    pub boot: BootId,
    /// Seq of the change.
    pub seq: Seq,
    /// The state.
    pub state: CopyState,
    /// When this watcher saw it enter the state.
    pub since: Time,
}

/// What a copy is worth to a call at one moment ([`super::AgentView::status`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// The agent's lease is over: nothing that it said counts, and it is not asked.
    NoLease,
    /// The agent is being dialled, or its snapshot is on the way: worth waiting for until this time.
    Unknown {
        /// When the patience ends.
        until: Time,
    },
    /// May be used.
    Ready,
    /// On its way in.
    Loading {
        /// When this watcher saw it begin.
        since: Time,
    },
    /// Waits for a place.
    Queued {
        /// When this watcher saw it begin.
        since: Time,
    },
    /// On its way out.
    Draining,
    /// Could not be loaded, and that still counts.
    Failed {
        /// When this watcher saw it fail.
        since: Time,
        /// Until when it counts.
        until: Time,
        /// Why.
        error: LoadError,
    },
    /// The agent has no copy and may be asked for one.
    Absent,
}
