//! How long to wait before the next dial: doubling, with jitter, so that a fleet does not come back all at once.

use std::time::Duration;

use rand::Rng;

/// Waits between dials.
#[derive(Debug)]
pub(super) struct Backoff {
    least: Duration,
    most: Duration,
    next: Duration,
}

// === impl Backoff ===

impl Backoff {
    /// From `least` to `most`.
    pub(super) fn new(least: Duration, most: Duration) -> Self {
        Self { least, most, next: least }
    }

    /// It worked: begin again with the least.
    pub(super) fn reset(&mut self) {
        self.next = self.least;
    }

    /// The next wait: between a half and the whole of the step.
    pub(super) fn step(&mut self, random: &mut impl Rng) -> Duration {
        let step = self.next;
        self.next = (step * 2).min(self.most);
        step.mul_f64(random.random_range(0.5..=1.0))
    }

    /// Waits.
    pub(super) async fn wait(&mut self) {
        let step = self.step(&mut rand::rng());
        tokio::time::sleep(step).await;
    }
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng, rngs::SmallRng};

    use super::*;

    #[test]
    fn waits_double_up_to_the_most_and_begin_anew_after_success() {
        let mut random = SmallRng::seed_from_u64(7);
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(300));
        for step in [100, 200, 300, 300] {
            let wait = backoff.step(&mut random);
            assert!(wait >= Duration::from_millis(step / 2) && wait <= Duration::from_millis(step), "{wait:?}");
        }
        backoff.reset();
        assert!(backoff.step(&mut random) <= Duration::from_millis(100));
    }
}
