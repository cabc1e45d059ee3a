//! The clock of the process: `CLOCK_BOOTTIME`, so that a suspended machine counts and no lease outlives a sleep.
//!
//! It is injected, so that tests move time by hand.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use modelring_placement::time::Time;

/// Reads the time.
#[derive(Clone, Debug, Default)]
pub struct Clock(Source);

#[derive(Clone, Debug, Default)]
enum Source {
    #[default]
    Boot,
    Manual(Arc<AtomicU64>),
}

/// Moves a manual clock.
#[derive(Clone, Debug)]
pub struct Hand(Arc<AtomicU64>);

// === impl Clock ===

impl Clock {
    /// The clock of the machine since its boot, sleep included.
    #[must_use]
    pub fn boot() -> Self {
        Self(Source::Boot)
    }

    /// A clock that stands at `at` until its hand moves it.
    #[must_use]
    pub fn manual(at: Time) -> (Self, Hand) {
        let nanos = Arc::new(AtomicU64::new(at.as_nanos()));
        (Self(Source::Manual(nanos.clone())), Hand(nanos))
    }

    /// The time now.
    #[must_use]
    pub fn now(&self) -> Time {
        match &self.0 {
            Source::Boot => {
                let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
                let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
                let nanos = u64::try_from(now.tv_nsec).unwrap_or_default();
                Time::from_nanos(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
            }
            Source::Manual(nanos) => Time::from_nanos(nanos.load(Ordering::Acquire)),
        }
    }

    /// How long until `deadline`; zero once it has passed.
    #[must_use]
    pub fn until(&self, deadline: Time) -> Duration {
        deadline.since(self.now())
    }
}

// === impl Hand ===

impl Hand {
    /// Lets `by` pass.
    pub fn advance(&self, by: Duration) {
        let by = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        self.0.fetch_add(by, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_clock_does_not_go_back() {
        let clock = Clock::boot();
        let first = clock.now();
        assert!(first > Time::ZERO);
        assert!(clock.now() >= first);
    }

    #[test]
    fn a_manual_clock_moves_by_its_hand_alone() {
        let (clock, hand) = Clock::manual(Time::from_millis(5));
        assert_eq!(clock.now(), Time::from_millis(5));
        hand.advance(Duration::from_millis(7));
        assert_eq!(clock.now(), Time::from_millis(12));
        assert_eq!(clock.until(Time::from_millis(20)), Duration::from_millis(8));
        assert_eq!(clock.until(Time::from_millis(2)), Duration::ZERO);
    }
}
