//! What a watcher may believe of one agent.
//!
//! [`AgentView`] turns what comes on a watch stream into the state of each copy and into a lease: **a copy is usable to
//! a proxy until 2 s after the proxy sent the last ping that was answered**. A new `Hello` ends the lease and makes all
//! copies unknown; a pong counts only after the `SnapshotEnd` of its own stream.
//!
//! What the wording guards against (contract, section 4): the agent may unload 3 s after it last *received* a ping, so the lease
//! counts from the *sending*; and a pong that overtakes a snapshot would revive the lease over an old view.

mod agent;
mod event;
mod lease;

pub use agent::AgentView;
pub use event::*;
