//! Every decision of Modelring as a pure function over plain data: no I/O, no clock, no task. Time is passed in.
//!
//! The proxy, the agent, control and the simulator run this code; each keeps the I/O around it.
//!
//! | module | decides | used by |
//! |---|---|---|
//! | [`ring`] | the order of the instances that may hold a model | proxy, control |
//! | [`choice`] | which ready copy answers a call | proxy |
//! | [`word`] | whether a call may still enter a copy, and when a drain may be acknowledged | proxy |
//! | [`retry`] | whether a failed call may be tried again | proxy |
//! | [`loadtime`] | how long a load may take | proxy, agent |
//! | [`seek`] | whom to join or ask when no copy is ready, and when to give up | proxy |
//! | [`view`] | what a watcher may believe of an agent (leases) | proxy, control |
//! | [`pod`] | loads, drains and evictions of one pod | agent |
//! | [`ledger`] | whether memory may be promised | agent |
//! | [`evict`] | which copy goes next | agent |
//! | [`copies`] | how many copies a model should have | control |
//! | [`vmodel`] | when a changed InferenceService switches | control |
//! | [`rules`] | the invariants, each a named check | tests, debug builds |

pub mod accept;
pub mod choice;
pub mod copies;
pub mod evict;
pub mod id;
pub mod ledger;
pub mod loadtime;
pub mod pod;
pub mod retry;
pub mod ring;
pub mod rules;
pub mod seek;
pub mod time;
pub mod view;
pub mod vmodel;
pub mod word;
