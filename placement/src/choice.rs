//! Which ready copy answers a call (DESIGN: "The way of a request", step 4).
//!
//! One copy: it is taken. Two to four: all are looked at. More: two at random, the better one ("power of two choices"), so
//! that a popular model with many copies costs no scan and proxies do not all run to the same copy. The score is latency
//! average x (calls in flight + 1), the least wins. A copy of which no latency is known counts as slow as the slowest it
//! is compared with: it is neither shunned nor flooded before its first answer.

mod latency;

use std::time::Duration;

pub use latency::{FAILURE, Latency, SharedLatency};

/// Up to so many copies all are looked at.
const SCAN: usize = 4;

/// A copy as a choice sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// READY in the view under a live lease. Others are never chosen.
    pub usable: bool,
    /// Average latency of its answers, a failure counting as [`FAILURE`]; zero = unknown.
    pub latency: Duration,
    /// Calls of this proxy in flight on it.
    pub in_flight: u32,
    /// Its instance is going away.
    pub leaving: bool,
    /// It is ejected as an outlier.
    pub ejected: bool,
    /// Its concurrency limit is reached: the call would queue.
    pub saturated: bool,
}

/// Something that has a [`Standing`], so that only the copies that are looked at are asked for it.
pub trait Candidate {
    /// How it stands at this moment.
    fn standing(&self) -> Standing;
}

/// The index of the copy to use, `None` if none is usable. `random` returns any 64 random bits.
///
/// Leaving, saturated and ejected copies are passed over while there is another, in this order of mercy; so ejection
/// never takes the last copy away.
#[must_use]
pub fn choose<C: Candidate>(copies: &[C], random: &mut impl FnMut() -> u64) -> Option<usize> {
    match copies.len() {
        0 => None,
        1 => copies[0].standing().usable.then_some(0),
        n if n <= SCAN => scan(copies, below(random, n)),
        n => {
            let first = below(random, n);
            let second = (first + 1 + below(random, n - 1)) % n;
            best([first, second].into_iter().map(|at| (at, copies[at].standing())))
                .filter(|(_, standing)| standing.mercy() == 0)
                .map(|(at, _)| at)
                .or_else(|| scan(copies, first))
        }
    }
}

/// Looks at all, from `start` on, so that equal ones share the calls.
fn scan<C: Candidate>(copies: &[C], start: usize) -> Option<usize> {
    let order = (start..copies.len()).chain(0..start);
    best(order.map(|at| (at, copies[at].standing()))).map(|(at, _)| at)
}

/// The best usable one, the first of equals.
fn best(standings: impl Iterator<Item = (usize, Standing)> + Clone) -> Option<(usize, Standing)> {
    let usable = standings.filter(|(_, standing)| standing.usable);
    let unknown = usable.clone().map(|(_, standing)| standing.latency).max()?.max(Duration::from_nanos(1));
    usable.min_by_key(|(_, standing)| (standing.mercy(), standing.score(unknown)))
}

/// A number below `n` (which is at least 1), evenly enough.
fn below(random: &mut impl FnMut() -> u64, n: usize) -> usize {
    ((u128::from(random()) * n as u128) >> 64) as usize
}

// === impl Standing ===

impl Standing {
    /// Why it should be passed over, 0 = not at all.
    fn mercy(&self) -> u8 {
        u8::from(self.leaving) | u8::from(self.saturated) << 1 | u8::from(self.ejected) << 2
    }

    fn score(&self, unknown: Duration) -> u128 {
        let latency = if self.latency.is_zero() { unknown } else { self.latency };
        latency.as_nanos() * (u128::from(self.in_flight) + 1)
    }
}

impl Candidate for Standing {
    fn standing(&self) -> Standing {
        *self
    }
}

impl<C: Candidate + ?Sized> Candidate for std::sync::Arc<C> {
    fn standing(&self) -> Standing {
        (**self).standing()
    }
}

impl<C: Candidate + ?Sized> Candidate for &C {
    fn standing(&self) -> Standing {
        (**self).standing()
    }
}
