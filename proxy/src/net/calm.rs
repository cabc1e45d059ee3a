//! A budget for calls that a client begins and gives up (CVE-2023-44487, "rapid reset"): each costs this process, and perhaps
//! a model server, more than it costs the client. A token bucket per connection.

use std::{cell::Cell, rc::Rc, time::Duration};

use tokio::{sync::Notify, time::Instant};

/// Calls that a client may give up at once: an ordinary one cancels all that it has on.
const BURST: f64 = 2000.0;
/// And so many a second.
const PER_SECOND: f64 = 500.0;

/// The budget of one connection.
#[derive(Clone)]
pub(super) struct Calm(Rc<State>);

struct State {
    left: Cell<f64>,
    at: Cell<Instant>,
    spent: Notify,
}

// === impl Calm ===

impl Calm {
    pub(super) fn new() -> Self {
        Self(Rc::new(State { left: Cell::new(BURST), at: Cell::new(Instant::now()), spent: Notify::new() }))
    }

    /// A call was given up without an answer.
    pub(super) fn given_up(&self) {
        let now = Instant::now();
        let passed: Duration = now.duration_since(self.0.at.replace(now));
        let left = (self.0.left.get() + passed.as_secs_f64() * PER_SECOND).min(BURST) - 1.0;
        self.0.left.set(left);
        if left < 0.0 {
            self.0.spent.notify_one();
        }
    }

    /// Resolves once the budget is spent.
    pub(super) async fn spent(&self) {
        self.0.spent.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_forgiven_a_flood_is_not_and_time_heals() {
        let calm = Calm::new();
        (0..2000).for_each(|_| calm.given_up());
        assert!(calm.spent().now_or_never().is_none());
        tokio::time::advance(Duration::from_secs(2)).await;
        (0..1000).for_each(|_| calm.given_up());
        assert!(calm.spent().now_or_never().is_none());
        calm.given_up();
        assert!(calm.spent().now_or_never().is_some());
    }
}
