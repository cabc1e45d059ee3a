//! How long one held call waits.
//!
//! Two budgets, each spent once per call through all refusals, joins and new asks: *place* until an agent said
//! `accepted` for the first time, *load* (5 x the load timeout) from then on. The caller's deadline bounds both.

use std::time::Duration;

use super::{Ending, Seek};
use crate::time::Time;

/// The load budget in load timeouts.
pub const LOAD_TIMEOUTS: u32 = 5;

/// The budgets of one held call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budgets {
    deadline: Time,
    place_until: Time,
    /// Since the first `accepted`: when the load budget is spent, and its length.
    load: Option<(Time, Duration)>,
}

// === impl Budgets ===

impl Budgets {
    /// A call that is held from `now` on. `deadline` is the caller's ([`Time::NEVER`] without one), `place` the place budget
    /// (`proxy.placeTimeout`, 30 s). A call that joins a seek which is [`Seek::accepted`] is told so at once.
    #[must_use]
    pub fn new(now: Time, deadline: Time, place: Duration) -> Self {
        Self { deadline, place_until: now + place, load: None }
    }

    /// An agent has accepted the load. Only the first time counts.
    pub fn accepted(&mut self, now: Time, load_timeout: Duration) {
        let budget = load_timeout.saturating_mul(LOAD_TIMEOUTS);
        self.load.get_or_insert((now + budget, budget));
    }

    /// When the call ends at the latest, as things stand.
    #[must_use]
    pub fn until(&self) -> Time {
        self.deadline.min(self.load.map_or(self.place_until, |(until, _)| until))
    }

    /// How the call ends if its time is over.
    #[must_use]
    pub fn spent(&self, now: Time, seek: &Seek) -> Option<Ending> {
        if now < self.until() {
            return None;
        }
        Some(match self.load {
            _ if now >= self.deadline => Ending::deadline(&seek.model),
            Some((_, budget)) => Ending::not_loaded(&seek.model, budget),
            None => seek.without_place(now),
        })
    }

    /// How the call ends at once because the load may be [`expected`](Seek::expected) only after the deadline. The seek goes on: until
    /// an agent has accepted, the proxy drives it although nobody waits (with budgets of its own).
    #[must_use]
    pub fn hopeless(&self, now: Time, expected: Time, seek: &Seek) -> Option<Ending> {
        (expected > self.deadline).then(|| Ending::hopeless(&seek.model, expected.since(now)))
    }
}
