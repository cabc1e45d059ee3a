//! The decisions of one agent: which load runs, what is evicted for it, when a draining copy may be unloaded.
//!
//! [`Pod`] is a state machine: the agent turns whatever happens into [`Event`]s, hands them to [`Pod::handle`] with the
//! time, and carries out the [`Action`]s that come back. It owns the [`Ledger`](crate::ledger::Ledger), the load queue,
//! the drains, the leases that watchers hold and the memory of failures.
//!
//! A copy lives so (spec of the contract: sections 5 and 6):
//!
//! ```text
//!  ask ─▶ QUEUED ─▶ LOADING (size, reserve, pull, load) ─▶ READY ─▶ DRAINING ─▶ (unload) ─▶ GONE
//!            │            │                                  ▲          │
//!            └─ refused   └─▶ FAILED                         └──────────┘ called off
//! ```

mod event;

pub use event::*;

use crate::{
    id::{BootId, ModelId, Seq},
    time::Time,
};

/// The decisions of one agent, from its start to its end.
#[derive(Debug)]
pub struct Pod {
    boot: BootId,
    settings: Settings,
    started: Time,
    seq: Seq,
}

// === impl Pod ===

impl Pod {
    /// A pod whose agent has just started.
    #[must_use]
    pub fn new(boot: BootId, settings: Settings, now: Time) -> Self {
        Self { boot, settings, started: now, seq: 0 }
    }

    /// Takes what happened and says what is to be done, in order.
    pub fn handle(&mut self, _now: Time, _event: Event) -> Vec<Action> {
        Vec::new()
    }

    /// When to send [`Event::Tick`] at the latest; later events may bring it forward.
    #[must_use]
    pub fn next_wake(&self) -> Option<Time> {
        None
    }

    /// The account of the pod's memory.
    #[must_use]
    pub fn ledger(&self, _now: Time) -> LedgerState {
        LedgerState::default()
    }

    /// The last seq given to a change of a copy.
    #[must_use]
    pub fn last_seq(&self) -> Seq {
        self.seq
    }

    /// Number of this start of the agent.
    #[must_use]
    pub fn boot(&self) -> BootId {
        self.boot
    }

    /// Every copy that is not gone, each with the seq of its last change: the snapshot of a new watch stream.
    pub fn copies(&self) -> impl Iterator<Item = Change> + '_ {
        std::iter::empty()
    }

    /// Whether the handshake with a model server is done and that server is there.
    #[must_use]
    pub fn server_ready(&self) -> bool {
        false
    }

    /// From when on the agent may begin the handshake, which purges what the server holds: 3 s after the agent's start
    /// (proxies may still believe in copies of an earlier start), at once where there was none.
    #[must_use]
    pub fn may_purge_at(&self) -> Time {
        if self.settings.started_before { self.started + std::time::Duration::from_secs(3) } else { self.started }
    }

    /// The copies that keep a leaving pod here: used within the last hour and not yet known to be ready elsewhere.
    pub fn needed(&self, _now: Time) -> impl Iterator<Item = &ModelId> + '_ {
        std::iter::empty()
    }

    /// Whether a leaving pod may end: nothing is needed and nothing is in flight.
    #[must_use]
    pub fn is_idle(&self, now: Time) -> bool {
        self.needed(now).next().is_none()
    }
}
