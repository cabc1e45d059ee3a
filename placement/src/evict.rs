//! Which copy goes next.
//!
//! Copies whose models are gone go first, then those that control has too many of, then all others by the policy:
//! Greedy-Dual-Size-Frequency (the copy goes that is least worth its bytes: how often it is used times what it costs to
//! load again, plus a clock that lets old merit fade) or plain least recently used.
//!
//! A use is one report of a proxy that it used the copy, not one call: a miss makes all callers of a moment wait
//! together, and a burst of calls must not buy a place for hours.

use std::time::Duration;

use crate::{id::ModelId, pod::EvictionPolicy, time::Time};

/// What control says of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// Its model is in no table.
    Gone,
    /// There are more copies than wanted.
    Surplus,
    /// Nothing.
    Ordinary,
}

/// A copy that may be evicted, now or later.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate<'a> {
    /// The model.
    pub model: &'a ModelId,
    /// Bytes that it would free.
    pub bytes: u64,
    /// What control says of it.
    pub rank: Rank,
    /// Its worth under [`EvictionPolicy::Gdsf`].
    pub worth: f64,
    /// When it was last used.
    pub last_used: Time,
    /// Until when it is young: used too recently to go for another.
    pub young_until: Time,
    /// Until when it counts as in flight.
    pub in_flight_until: Time,
    /// From when on it may go for a waited-for load although young or in flight.
    pub yields_at: Time,
}

/// The worth of a copy at its last use: `clock + uses x cost / size`.
#[must_use]
pub fn worth(clock: f64, uses: u64, cost: Duration, bytes: u64) -> f64 {
    clock + uses as f64 * cost.as_secs_f64() / bytes.max(1) as f64
}

/// Puts the copy that goes next first.
pub fn sort(policy: EvictionPolicy, candidates: &mut [Candidate<'_>]) {
    candidates.sort_by(|a, b| {
        let merit = match policy {
            EvictionPolicy::Gdsf => a.worth.total_cmp(&b.worth),
            EvictionPolicy::Lru => std::cmp::Ordering::Equal,
        };
        a.rank.cmp(&b.rank).then(merit).then(a.last_used.cmp(&b.last_used)).then(a.model.cmp(b.model))
    });
}

// === impl Candidate ===

impl Candidate<'_> {
    /// When it may go for another load.
    #[must_use]
    pub fn free_at(&self) -> Time {
        self.young_until.max(self.in_flight_until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(model: &ModelId) -> Candidate<'_> {
        Candidate {
            model,
            bytes: 100,
            rank: Rank::Ordinary,
            worth: 1.0,
            last_used: Time::from_millis(10),
            young_until: Time::ZERO,
            in_flight_until: Time::ZERO,
            yields_at: Time::NEVER,
        }
    }

    fn first(policy: EvictionPolicy, mut candidates: Vec<Candidate<'_>>) -> String {
        sort(policy, &mut candidates);
        candidates[0].model.to_string()
    }

    #[test]
    fn gone_copies_go_before_surplus_ones_and_those_before_all_others() {
        let (a, b, c) = (ModelId::from("a"), ModelId::from("b"), ModelId::from("c"));
        let gone = Candidate { rank: Rank::Gone, worth: 9.0, ..candidate(&a) };
        let surplus = Candidate { rank: Rank::Surplus, worth: 5.0, ..candidate(&b) };
        let ordinary = candidate(&c);
        assert_eq!(first(EvictionPolicy::Gdsf, vec![ordinary.clone(), surplus.clone(), gone]), "a");
        assert_eq!(first(EvictionPolicy::Lru, vec![ordinary, surplus]), "b");
    }

    #[test]
    fn gdsf_keeps_what_is_dear_to_load_and_small_where_lru_looks_at_time_alone() {
        let (dear, cheap) = (ModelId::from("dear"), ModelId::from("cheap"));
        let old_and_dear = Candidate { worth: worth(0.0, 1, Duration::from_secs(60), 100), ..candidate(&dear) };
        let new_and_cheap = Candidate {
            worth: worth(0.0, 1, Duration::from_secs(1), 100),
            last_used: Time::from_millis(20),
            ..candidate(&cheap)
        };
        assert_eq!(first(EvictionPolicy::Gdsf, vec![old_and_dear.clone(), new_and_cheap.clone()]), "cheap");
        assert_eq!(first(EvictionPolicy::Lru, vec![old_and_dear, new_and_cheap]), "dear");
    }

    #[test]
    fn the_clock_lets_old_merit_fade() {
        let once_loved = worth(0.0, 50, Duration::from_secs(1), 10);
        let new = worth(once_loved, 1, Duration::from_secs(1), 10);
        assert!(new > once_loved);
    }
}
