//! What happens on a watch stream, and what changes in the view by it.

use crate::{
    id::{BootId, ModelId, Seq},
    pod::CopyState,
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
