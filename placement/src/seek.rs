//! Whom to join or ask when no copy is ready, and when to give up (contract, section 5).
//!
//! One [`Seek`] per model and proxy ("single flight") finds the model a copy; every call that waits for it has
//! [`Budgets`] of its own. The proxy calls [`Seek::next`] whenever the view or the table changes, an agent says something
//! ([`Seek::heard`]) or the time of the last [`Step::Wait`] has come, and does what it is told. At most one
//! `EnsureLoaded` is open at a time.
//!
//! In this order: a ready copy is used; a copy that is on its way anywhere is joined, so that one load serves the mesh; an agent whose
//! snapshot is due is waited for; else the candidates are asked in the order of the ring. Who refuses for space is asked
//! again after its `retry after`, but only when no candidate is left that was not asked (at most 5 places). Three failures,
//! or a failure on every candidate, end it.
//!
//! A surprise worth knowing: a failure that was told on `EnsureLoaded` counts at once and for at least
//! [`FAILURE_COUNTS`], whatever the view shows, because the two travel on different streams and the view may still
//! show the failed copy as LOADING.

mod budgets;
mod ending;
mod search;

use std::time::Duration;

pub use budgets::{Budgets, LOAD_TIMEOUTS};
pub use ending::{EndReason, Ending};
pub use search::Seek;

use crate::{
    id::InstanceId,
    pod::{LoadError, Refusal},
    time::Time,
    view::Status,
};

/// An agent that was asked answers within this time, or the next is asked.
pub const ANSWER: Duration = Duration::from_secs(2);
/// Most failures of one seek.
pub const MAX_FAILURES: usize = 3;
/// Most places that are asked before the first of them is asked again.
pub const MAX_PLACES: usize = 5;
/// How long a failure told to a waiter counts at least: the shortest failure record of an agent.
pub const FAILURE_COUNTS: Duration = Duration::from_secs(5);

/// An instance as the view shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sight {
    /// The instance.
    pub instance: InstanceId,
    /// What its copy of the model is worth now.
    pub status: Status,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Step {
    /// A copy is ready: every waiting call chooses one. The seek is over.
    Use,
    /// End the open `EnsureLoaded`, if there is one, and open one to this agent.
    Ask(InstanceId),
    /// Go on as it is, until something happens or until this time.
    Wait {
        /// [`Time::NEVER`] = only until something happens.
        until: Time,
    },
    /// Nobody can load it: every waiting call is answered so. The seek is over.
    GiveUp(Ending),
}

/// What the open `EnsureLoaded` brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The load has a place.
    Accepted,
    /// It is loaded. Tell [`AgentView::loaded`](crate::view::AgentView::loaded) first.
    Loaded,
    /// It failed.
    Failed(LoadError),
    /// It is not tried there.
    Refused {
        /// Why.
        refusal: Refusal,
        /// When to ask again, if the agent knows.
        retry_after: Option<Duration>,
        /// For people.
        text: String,
    },
    /// The call ended without an answer.
    Lost,
}
