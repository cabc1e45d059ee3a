//! How much a proxy may retry: 20 % of the calls of the last 10 s, plus 3 per second (rule `no_storm`).
//!
//! Two purses. A retry is first paid from the share of the calls, so that a busy proxy can ride out a lost instance;
//! when that is spent, from the three that every second brings, so that a quiet one can retry at all. Neither is saved
//! up beyond its window: when everything fails, upstreams see at most 1.2 x the offered load + 3 per second.
//!
//! Counting calls is one compare-and-swap on the word of this second, and a thread may report many calls at once;
//! retries, which are rare, take a lock.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::{rules::no_storm, time::Time};

/// Seconds whose calls count.
pub const WINDOW: u64 = 10;
/// One retry per so many calls.
pub const CALLS_PER_RETRY: u64 = 5;
/// Retries that every second brings.
pub const PER_SECOND: u32 = 3;

/// More slots than seconds in the window, so that a straggler's count does not meet a slot that is in use again.
const SLOTS: usize = 16;
const CALL_BITS: u32 = 32;

/// The budget of one proxy.
#[derive(Debug)]
pub struct RetryBudget {
    /// Calls by second: the second above, the calls below.
    calls: [AtomicU64; SLOTS],
    spent: Mutex<Spent>,
}

#[derive(Debug, Default)]
struct Spent {
    /// Retries paid from the share, by second.
    share: [(u64, u32); SLOTS],
    /// The second of the small purse, and what was taken from it.
    second: (u64, u32),
}

// === impl RetryBudget ===

impl RetryBudget {
    /// A budget to which no call has come.
    #[must_use]
    pub fn new() -> Self {
        Self { calls: std::array::from_fn(|_| AtomicU64::new(0)), spent: Mutex::default() }
    }

    /// So many calls came (first attempts, not retries).
    pub fn called(&self, now: Time, calls: u32) {
        let second = second(now);
        let slot = &self.calls[slot(second)];
        let mut word = slot.load(Ordering::Relaxed);
        loop {
            let next = match word >> CALL_BITS {
                at if at == second => word.saturating_add(u64::from(calls)).min(pack(second, u32::MAX)),
                at if at < second => pack(second, calls),
                _ => return,
            };
            match slot.compare_exchange_weak(word, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => word = now,
            }
        }
    }

    /// Whether a call may be tried again; what it takes is spent.
    #[must_use]
    pub fn retry(&self, now: Time) -> bool {
        let second = second(now);
        let calls = self.calls(second);
        let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        if (spent.share(second) + 1) * CALLS_PER_RETRY > calls {
            return spent.take_second(second);
        }
        spent.take_share(second);
        debug_assert!(no_storm::window(calls, spent.share(second)));
        true
    }

    /// Calls of the window that ends with this second.
    fn calls(&self, second: u64) -> u64 {
        let words = self.calls.iter().map(|slot| slot.load(Ordering::Relaxed));
        words.filter(|word| in_window(word >> CALL_BITS, second)).map(|word| word & u64::from(u32::MAX)).sum()
    }
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self::new()
    }
}

// === impl Spent ===

impl Spent {
    fn share(&self, second: u64) -> u64 {
        self.share.iter().filter(|(at, _)| in_window(*at, second)).map(|(_, spent)| u64::from(*spent)).sum()
    }

    fn take_share(&mut self, second: u64) {
        let slot = &mut self.share[slot(second)];
        *slot = if slot.0 == second { (second, slot.1.saturating_add(1)) } else { (second, 1) };
    }

    fn take_second(&mut self, second: u64) -> bool {
        if self.second.0 < second {
            self.second = (second, 0);
        }
        let allowed = self.second.1 < PER_SECOND;
        self.second.1 += u32::from(allowed);
        allowed
    }
}

/// Seconds count from 1, so that an empty slot (second 0) lies in no window.
fn second(now: Time) -> u64 {
    (now.since(Time::ZERO) + Duration::from_secs(WINDOW + 1)).as_secs().min(u64::from(u32::MAX))
}

fn slot(second: u64) -> usize {
    (second % SLOTS as u64) as usize
}

fn in_window(at: u64, second: u64) -> bool {
    at <= second && at + WINDOW > second
}

fn pack(second: u64, calls: u32) -> u64 {
    second << CALL_BITS | u64::from(calls)
}
