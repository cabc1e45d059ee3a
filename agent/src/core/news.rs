//! When watchers are told of the pod's memory: on change, at most every 500 ms.

use std::time::Duration;

use modelring_placement::{pod::LedgerState, time::Time};

/// Shortest time between two ledgers.
const SHORTEST: Duration = Duration::from_millis(500);
/// After this a ledger is sent also where only the age of the next victim has changed.
const LONGEST: Duration = Duration::from_secs(10);

/// What was last said of the ledger.
#[derive(Debug, Default)]
pub(super) struct LedgerNews {
    said: LedgerState,
    at: Time,
    /// Whether anything has happened since.
    touched: bool,
}

// === impl LedgerNews ===

impl LedgerNews {
    /// Something has happened that may change the ledger.
    pub(super) fn touch(&mut self) {
        self.touched = true;
    }

    /// When to look again.
    pub(super) fn next_wake(&self) -> Option<Time> {
        self.touched.then_some(self.at + SHORTEST)
    }

    /// The ledger, where it is time to say it.
    pub(super) fn due(&mut self, now: Time, ledger: impl FnOnce() -> LedgerState) -> Option<LedgerState> {
        if !self.touched || now < self.at + SHORTEST {
            return None;
        }
        self.touched = false;
        let ledger = ledger();
        let same = LedgerState { next_victim_age: self.said.next_victim_age, ..ledger } == self.said
            && ledger.next_victim_age.is_some() == self.said.next_victim_age.is_some();
        if same && now < self.at + LONGEST {
            return None;
        }
        self.said = ledger;
        self.at = now;
        Some(ledger)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loaded(bytes: u64, age: u64) -> LedgerState {
        LedgerState { loaded: bytes, next_victim_age: Some(Duration::from_secs(age)), ..LedgerState::default() }
    }

    #[test]
    fn a_ledger_is_said_on_change_and_at_most_every_half_second() {
        let mut news = LedgerNews::default();
        let at = Time::from_millis;
        assert_eq!(news.due(at(1000), || unreachable!()), None);
        news.touch();
        assert_eq!(news.due(at(1000), || loaded(1, 0)), Some(loaded(1, 0)));
        news.touch();
        assert_eq!(news.next_wake(), Some(at(1500)));
        assert_eq!(news.due(at(1499), || unreachable!()), None);
        assert_eq!(news.due(at(1500), || loaded(2, 0)), Some(loaded(2, 0)));
        news.touch();
        assert_eq!(news.due(at(2000), || loaded(2, 1)), None, "an age alone is no news");
        assert_eq!(news.next_wake(), None);
        news.touch();
        assert_eq!(news.due(at(12_000), || loaded(2, 9)), Some(loaded(2, 9)), "but it is not left to grow old");
    }
}
