//! `no-storm`: with every upstream failing, upstream load <= 1.2 x offered load + 3 per second and proxy.

use crate::retry::{CALLS_PER_RETRY, PER_SECOND};

/// Over a whole run: `attempts` on upstreams for `calls` offered, in so many seconds begun.
#[must_use]
pub fn run(attempts: u64, calls: u64, seconds: u64) -> bool {
    let retries = attempts.saturating_sub(calls);
    retries <= calls / CALLS_PER_RETRY + u64::from(PER_SECOND) * seconds
}

/// When a retry was paid from the share: what was taken from it in the window, for the calls of the window.
#[must_use]
pub fn window(calls: u64, from_share: u64) -> bool {
    from_share * CALLS_PER_RETRY <= calls
}
