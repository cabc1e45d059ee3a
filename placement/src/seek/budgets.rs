//! How long one held call waits.
//!
//! Two budgets, each spent once per call through all refusals, joins, new asks and attempts: *place* while no agent has accepted
//! the load, *load* (5 x the load timeout) while one has. A load that is refused after it was accepted (its size, or what
//! its place depended on, was learned late) gives the call back to what is left of its place budget: so it never waits for
//! longer than both together, and without a place never for longer than one. The caller's deadline bounds both.

use std::time::Duration;

use super::{Ending, Seek};
use crate::time::Time;

/// The load budget in load timeouts.
pub const LOAD_TIMEOUTS: u32 = 5;

/// The budgets of one held call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budgets {
    deadline: Time,
    /// What is left of the place budget.
    place: Duration,
    /// What was spent of the load budget.
    loading: Duration,
    spends: Spends,
}

/// The budget that is being spent, and since when it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spends {
    /// The call is not held.
    Nothing,
    Place(Time),
    Load {
        since: Time,
        /// The whole budget.
        budget: Duration,
    },
}

// === impl Budgets ===

impl Budgets {
    /// A call that is held from `now` on. `deadline` is the caller's ([`Time::NEVER`] without one), `place` the place budget
    /// (`proxy.placeTimeout`, 30 s).
    #[must_use]
    pub fn new(now: Time, deadline: Time, place: Duration) -> Self {
        Self { deadline, place, loading: Duration::ZERO, spends: Spends::Place(now) }
    }

    /// The search goes on. `accepted`: an agent has the load in its queue or is at it ([`Seek::accepted`]), with this load timeout.
    pub fn seeking(&mut self, now: Time, accepted: Option<Duration>) {
        self.rest(now);
        self.spends = match accepted {
            None => Spends::Place(now),
            Some(timeout) => Spends::Load { since: now, budget: timeout.saturating_mul(LOAD_TIMEOUTS) },
        };
    }

    /// The call is held no more, until it is [`seeking`](Self::seeking) again.
    pub fn rest(&mut self, now: Time) {
        match self.spends {
            Spends::Nothing => {}
            Spends::Place(since) => self.place = self.place.saturating_sub(now.since(since)),
            Spends::Load { since, .. } => self.loading = self.loading.saturating_add(now.since(since)),
        }
        self.spends = Spends::Nothing;
    }

    /// When the call ends at the latest, as things stand.
    #[must_use]
    pub fn until(&self) -> Time {
        self.deadline.min(match self.spends {
            Spends::Nothing => Time::NEVER,
            Spends::Place(since) => since + self.place,
            Spends::Load { since, budget } => since + budget.saturating_sub(self.loading),
        })
    }

    /// How the call ends if its time is over.
    #[must_use]
    pub fn spent(&self, now: Time, seek: &Seek) -> Option<Ending> {
        if now < self.until() {
            return None;
        }
        Some(match self.spends {
            _ if now >= self.deadline => Ending::deadline(&seek.model),
            Spends::Load { budget, .. } => seek.not_loaded(budget),
            Spends::Place(_) | Spends::Nothing => seek.without_place(now),
        })
    }

    /// How the call ends at once because the load may be [`expected`](Seek::expected) only after the deadline. The seek goes on: until
    /// an agent has accepted, the proxy drives it although nobody waits (with budgets of its own).
    #[must_use]
    pub fn hopeless(&self, now: Time, expected: Time, seek: &Seek) -> Option<Ending> {
        (expected > self.deadline).then(|| Ending::hopeless(&seek.model, expected.since(now)))
    }
}
