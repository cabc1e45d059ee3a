//! The agent's clock. `CLOCK_BOOTTIME`, so that the time a suspended machine slept counts against every lease.

use modelring_placement::time::Time;
use rustix::time::{ClockId, clock_gettime};

/// Now.
pub(crate) fn now() -> Time {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    let nanos = u64::try_from(time.tv_nsec).unwrap_or_default();
    Time::from_nanos(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
}

/// Waits until a moment; for ever where there is none.
pub(crate) async fn sleep_until(moment: Option<Time>) {
    match moment {
        Some(moment) => tokio::time::sleep(moment.since(now())).await,
        None => std::future::pending().await,
    }
}
