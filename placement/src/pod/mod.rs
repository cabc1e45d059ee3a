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
