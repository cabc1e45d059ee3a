//! How many copies a model should have.
//!
//! `want = min(max copies, max(min copies, demand, 1 until it was first ready or failed permanently))`. Demand goes up at
//! once and comes down slowly, and coming down is never an order: copies beyond `want` are surplus, and go when their memory is
//! needed. A model without traffic wants 0 and keeps the copy that it has.
//!
//! Demand is what the proxies report, rate x service time, that is the calls at once on average, over what one copy carries:
//! 90 % of its concurrency limit (as in ModelMesh), [`CALLS_AT_ONCE`] where it has none. A saturated copy asks for one more at once. A model that is used regularly, 7 to 40
//! minutes apart, gets a second copy where there is room to spare, which tells regular use from one burst.

use std::time::Duration;

use crate::time::Time;

/// Calls at once, on average, that one copy without a concurrency limit carries. A server that computes on a few cores has
/// callers wait for each other beyond it; ModelMesh's 2000 calls a minute say nothing of how long a call computes.
pub const CALLS_AT_ONCE: f64 = 4.0;
/// Part of its concurrency limit that one copy carries.
pub const CONCURRENCY_PART: f64 = 0.9;
/// Reports are summed over this long before they count.
pub const WINDOW: Duration = Duration::from_secs(10);
/// How long demand stays up after it was last reached.
pub const HOLD: Duration = Duration::from_secs(300);
/// Uses that are this far apart are regular use.
pub const REGULAR: std::ops::RangeInclusive<Duration> = Duration::from_secs(420)..=Duration::from_secs(2400);

/// A model that was used within this time is hot: where its instance leaves it is loaded elsewhere first.
pub const HOT: Duration = Duration::from_secs(3600);

/// How many copies the InferenceService allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Fewest.
    pub min: u32,
    /// Most, `None` = no limit.
    pub max: Option<u32>,
}

/// What a proxy said of one copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Calls that ended.
    pub requests: u64,
    /// Time that calls were in flight since the last report, summed over them.
    pub busy: Duration,
    /// Calls in flight.
    pub in_flight: u32,
    /// Calls queue for the copy.
    pub saturated: bool,
}

/// What there is of a model at the time of a report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Present {
    /// Ready copies.
    pub ready: u32,
    /// Most calls at once on one of them, 0 = no limit.
    pub concurrency_limit: u32,
    /// Whether its class has memory to spare for a second copy.
    pub spare: bool,
}

/// Demand for one model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Demand {
    window: Option<Window>,
    level: u32,
    until: Time,
    /// Moments of use, at least the shortest regular distance apart, the later one last.
    used: [Option<Time>; 2],
    last_used: Option<Time>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Window {
    since: Time,
    busy: Duration,
}

/// How many copies a model should have. `first`: it was never yet ready and has not failed permanently.
#[must_use]
pub fn want(limits: Limits, demand: u32, first: bool) -> u32 {
    demand.max(limits.min).max(u32::from(first)).min(limits.max.unwrap_or(u32::MAX))
}

// === impl Demand ===

impl Demand {
    /// So many copies were found at a start: none of them is surplus until then.
    pub fn found(&mut self, now: Time, ready: u32, until: Time) {
        self.raise(now, ready, until.since(now));
    }

    /// Takes in what a proxy said of one copy.
    pub fn report(&mut self, now: Time, report: Report, present: Present) {
        if report.requests == 0 && report.in_flight == 0 && !report.saturated {
            return;
        }
        self.raise(now, 1, HOLD);
        if report.saturated {
            self.raise(now, present.ready.saturating_add(1), HOLD);
        }
        if present.ready == 1 && present.spare && self.is_regular(now) {
            self.raise(now, 2, *REGULAR.end());
        }
        self.remember(now);
        self.last_used = Some(now);

        let window = self.window.get_or_insert(Window { since: now, busy: Duration::ZERO });
        window.busy = window.busy.saturating_add(report.busy);
        let length = now.since(window.since);
        if length >= WINDOW {
            let copies = window.copies(length, present.concurrency_limit);
            self.window = None;
            self.raise(now, copies, HOLD);
        }
    }

    /// Copies that carry the demand.
    #[must_use]
    pub fn copies(&self, now: Time) -> u32 {
        if now < self.until { self.level } else { 0 }
    }

    /// Whether the model was used within [`HOT`].
    #[must_use]
    pub fn is_hot(&self, now: Time) -> bool {
        self.last_used.is_some_and(|used| now.since(used) <= HOT)
    }

    /// Whether nothing of it matters any more.
    #[must_use]
    pub fn is_over(&self, now: Time) -> bool {
        // The longest regular distance is shorter than this.
        now >= self.until && !self.is_hot(now)
    }

    fn raise(&mut self, now: Time, level: u32, hold: Duration) {
        if level >= self.copies(now) {
            (self.level, self.until) =
                (level, (now + hold).max(if level == self.level { self.until } else { Time::ZERO }));
        }
    }

    fn is_regular(&self, now: Time) -> bool {
        self.used.iter().flatten().any(|used| REGULAR.contains(&now.since(*used)))
    }

    fn remember(&mut self, now: Time) {
        let [_, last] = self.used;
        if last.is_none_or(|last| now.since(last) >= *REGULAR.start()) {
            self.used = [last, Some(now)];
        }
    }
}

// === impl Window ===

impl Window {
    fn copies(self, length: Duration, concurrency_limit: u32) -> u32 {
        let carries =
            if concurrency_limit > 0 { CONCURRENCY_PART * f64::from(concurrency_limit) } else { CALLS_AT_ONCE };
        // A float to integer conversion saturates.
        (self.busy.as_secs_f64() / length.as_secs_f64() / carries).ceil() as u32
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: u64) -> Time {
        Time::from_millis(seconds * 1000)
    }

    fn calls(requests: u64) -> Report {
        Report { requests, busy: Duration::from_millis(requests), ..Report::default() }
    }

    const ONE: Present = Present { ready: 1, concurrency_limit: 0, spare: true };

    #[test]
    fn a_new_model_wants_one_copy_until_it_was_ready_and_then_none_without_traffic() {
        assert_eq!(want(Limits::default(), 0, true), 1);
        assert_eq!(want(Limits::default(), 0, false), 0);
    }

    #[test]
    fn a_saturated_copy_asks_for_one_more_at_once() {
        let mut demand = Demand::default();
        let saturated = Report { in_flight: 4, saturated: true, ..Report::default() };
        demand.report(at(0), saturated, ONE);
        assert_eq!(demand.copies(at(0)), 2);
        demand.report(at(1), saturated, ONE);
        assert_eq!(demand.copies(at(1)), 2, "the second copy is on its way");
        demand.report(at(2), saturated, Present { ready: 2, ..ONE });
        assert_eq!(demand.copies(at(2)), 3);
    }

    #[test]
    fn demand_follows_the_rate_up_in_one_window_and_comes_down_after_the_hold() {
        let mut demand = Demand::default();
        for second in 0..=10 {
            let report = Report { requests: 100, busy: Duration::from_secs(13), ..Report::default() };
            demand.report(at(second), report, ONE);
        }
        assert_eq!(demand.copies(at(10)), 4, "14.3 at once over 4");
        assert_eq!(demand.copies(at(309)), 4);
        assert_eq!(demand.copies(at(310)), 0);
    }

    #[test]
    fn many_short_calls_need_no_second_copy_and_few_long_ones_do() {
        let after_a_window = |requests, millis| {
            let mut demand = Demand::default();
            for second in 0..=10 {
                let busy = Duration::from_millis(requests * millis);
                demand.report(at(second), Report { requests, busy, ..Report::default() }, ONE);
            }
            demand.copies(at(10))
        };
        assert_eq!(after_a_window(1000, 1), 1, "60,000 calls a minute of 1 ms are one at once");
        assert_eq!(after_a_window(20, 400), 3, "1,200 calls a minute of 400 ms are eight");
    }

    #[test]
    fn what_one_copy_carries_is_nine_tenths_of_its_concurrency_limit() {
        let mut demand = Demand::default();
        let present = Present { concurrency_limit: 2, ..ONE };
        for second in 0..=10 {
            let report = Report { requests: 1, busy: Duration::from_secs(4), ..Report::default() };
            demand.report(at(second), report, present);
        }
        assert_eq!(demand.copies(at(10)), 3, "4.4 at once over 1.8");
    }

    #[test]
    fn regular_use_gets_a_second_copy_where_there_is_room_and_a_burst_does_not() {
        let mut burst = Demand::default();
        for second in 0..60 {
            burst.report(at(second), calls(1), ONE);
        }
        assert_eq!(burst.copies(at(60)), 1);
        let mut regular = Demand::default();
        regular.report(at(0), calls(1), ONE);
        regular.report(at(900), calls(1), ONE);
        assert_eq!(regular.copies(at(900)), 2);
        let mut tight = Demand::default();
        tight.report(at(0), calls(1), ONE);
        tight.report(at(900), calls(1), Present { spare: false, ..ONE });
        assert_eq!(tight.copies(at(900)), 1);
    }

    #[test]
    fn copies_that_are_found_at_a_start_are_no_surplus_until_its_time_is_over() {
        let mut found = Demand::default();
        found.found(at(0), 2, at(300));
        found.found(at(7), 3, at(300));
        found.found(at(8), 1, at(300));
        assert_eq!((found.copies(at(299)), found.copies(at(300))), (3, 0));
        assert!(found.is_over(at(300)));
    }

    proptest! {
        #[test]
        fn the_wanted_copies_are_never_outside_the_limits(
            min in 0_u32..5, extra in 0_u32..5, demand in any::<u32>(), first: bool,
        ) {
            let limits = Limits { min, max: Some(min + extra + 1) };
            let want = want(limits, demand, first);
            prop_assert!(want >= min && want <= min + extra + 1);
            prop_assert!(!first || want >= 1);
        }

        #[test]
        fn demand_never_falls_while_it_is_held(
            reports in proptest::collection::vec((0_u64..20, 0_u64..500, 0_u32..3, any::<bool>()), 1..60),
        ) {
            let mut demand = Demand::default();
            let mut now = 0;
            for (step, requests, ready, saturated) in reports {
                now += step;
                let before = demand.copies(at(now));
                let report = Report { saturated, ..calls(requests) };
                demand.report(at(now), report, Present { ready, ..ONE });
                prop_assert!(demand.copies(at(now)) >= before);
                prop_assert!(!saturated || demand.copies(at(now)) > ready);
            }
        }
    }
}
