//! What an agent counts, and what can be seen of it.
//!
//! What the pod decides is counted where its actions are carried out (`Lives`); how things stand at the moment is asked of
//! the core when somebody scrapes (`Look`).

mod lives;
mod names;
mod show;

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use modelring_placement::pod::{DrainCause, Refusal};
use modelring_process::metrics::{AGE, Histogram, MODEL_SIZE, TIME};

pub(crate) use lives::Lives;
pub use names::METRICS;
pub(crate) use show::{Look, Shown};

use crate::storage::store::Files;

/// What an agent counts.
#[derive(Debug)]
pub(crate) struct Metrics {
    load: Histogram,
    load_failures: AtomicU64,
    queue_delay: Histogram,
    sizing: Histogram,
    model_size: Histogram,
    unload: Histogram,
    unload_attempt_failures: AtomicU64,
    unload_failures: AtomicU64,
    age_at_eviction: Histogram,
    /// By cause and outcome.
    drains: [[AtomicU64; OUTCOMES.len()]; CAUSES.len()],
    refusals: [AtomicU64; REFUSALS.len()],
    pulls: Histogram,
    pulled: AtomicU64,
    pulled_bytes: AtomicU64,
    pulls_failed: AtomicU64,
    disk_hits: AtomicU64,
    server_starts: AtomicU64,
}

const CAUSES: [(DrainCause, &str); 5] = [
    (DrainCause::Room, "room"),
    (DrainCause::Overrun, "overrun"),
    (DrainCause::TooLarge, "too_large"),
    (DrainCause::Gone, "gone"),
    (DrainCause::Leave, "leave"),
];

const OUTCOMES: [(Outcome, &str); 3] =
    [(Outcome::Unloaded, "unloaded"), (Outcome::CalledOff, "called_off"), (Outcome::Lost, "lost")];

const REFUSALS: [(Refusal, &str); 6] = [
    (Refusal::Full, "full"),
    (Refusal::Churn, "churn"),
    (Refusal::Pinned, "pinned"),
    (Refusal::Failing, "failing"),
    (Refusal::Leaving, "leaving"),
    (Refusal::Disk, "disk"),
];

/// What became of a drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// The copy was unloaded.
    Unloaded,
    /// The copy is ready again.
    CalledOff,
    /// It went with the model server.
    Lost,
}

// === impl Metrics ===

impl Metrics {
    pub(crate) fn new() -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            load: Histogram::new(&TIME),
            load_failures: zero(),
            queue_delay: Histogram::new(&TIME),
            sizing: Histogram::new(&TIME),
            model_size: Histogram::new(&MODEL_SIZE),
            unload: Histogram::new(&TIME),
            unload_attempt_failures: zero(),
            unload_failures: zero(),
            age_at_eviction: Histogram::new(&AGE),
            drains: std::array::from_fn(|_| std::array::from_fn(|_| zero())),
            refusals: std::array::from_fn(|_| zero()),
            pulls: Histogram::new(&names::PULL_TIME),
            pulled: zero(),
            pulled_bytes: zero(),
            pulls_failed: zero(),
            disk_hits: zero(),
            server_starts: zero(),
        }
    }

    /// The model server was asked for the size of a loaded model.
    pub(crate) fn sized(&self, took: Duration) {
        self.sizing.observe_time(took);
    }

    /// Files were brought, or found on disk; `None` = that failed.
    pub(crate) fn pulled(&self, files: Option<&Files>, took: Duration) {
        match files {
            None => add(&self.pulls_failed, 1),
            Some(files) if files.kept => add(&self.disk_hits, 1),
            Some(files) => {
                self.pulls.observe_time(took);
                add(&self.pulled, 1);
                add(&self.pulled_bytes, files.bytes);
            }
        }
    }

    /// An attempt to unload failed.
    pub(crate) fn unload_attempt_failed(&self) {
        add(&self.unload_attempt_failures, 1);
    }

    /// An unload is not confirmed in time.
    pub(crate) fn unload_failed(&self) {
        add(&self.unload_failures, 1);
    }

    /// The handshake with a process of the model server is done.
    pub(crate) fn server_is_up(&self) {
        add(&self.server_starts, 1);
    }

    fn drained(&self, cause: DrainCause, outcome: Outcome) {
        let cause = CAUSES.iter().position(|(of, _)| *of == cause);
        let outcome = OUTCOMES.iter().position(|(of, _)| *of == outcome);
        if let (Some(cause), Some(outcome)) = (cause, outcome) {
            add(&self.drains[cause][outcome], 1);
        }
    }

    fn refused(&self, refusal: Refusal) {
        if let Some(at) = REFUSALS.iter().position(|(of, _)| *of == refusal) {
            add(&self.refusals[at], 1);
        }
    }
}

fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}
