//! What a proxy counts, and what of it is shown.
//!
//! On a call's way there are a few relaxed additions in memory of its own thread: no lock, no allocation, no hash of a name
//! (counting by model, which is off by default, costs a lookup). What is merely looked at (table, leases, held bytes) is
//! read when somebody scrapes.
//!
//! | module | does |
//! |---|---|
//! | `names` | the metrics themselves |
//! | `methods`, `code` | bounded label values |
//! | `calls` | calls by method and code |
//! | `show` | writes it all to a page |

mod calls;
mod code;
mod methods;
mod names;
mod show;
#[cfg(test)]
mod tests;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use modelring_process::metrics::{Histogram, Options, TIME};

pub use names::METRICS;
pub(crate) use show::Shown;

use crate::engine::{
    answer::Reason,
    policy::{Cause, Record, Subject},
};
use calls::Calls;

/// Waits for a load that are shorter are no cache misses.
const MISS: Duration = Duration::from_millis(10);

/// What a proxy counts.
#[derive(Debug)]
pub struct Metrics {
    calls: Calls,
    /// By reason and code.
    answers: [[AtomicU64; code::NAMES.len()]; Reason::ALL.len()],
    cache_miss: Histogram,
    queue_delay: Histogram,
    retries: [AtomicU64; CAUSES.len()],
    retries_refused: AtomicU64,
    denied: AtomicU64,
    waiting: [AtomicU64; 2],
}

/// What ends attempts, as a label.
const CAUSES: [(Cause, &str); 6] = [
    (Cause::Connect, "connect"),
    (Cause::Refused, "refused"),
    (Cause::Unusable, "unusable"),
    (Cause::Lost, "lost"),
    (Cause::Reset, "reset"),
    (Cause::Status, "status"),
];

/// What a call waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum For {
    /// A load.
    Load,
    /// Its turn on a copy.
    Turn,
}

/// Counts a call as waiting as long as it lives.
#[derive(Debug)]
pub(crate) struct Waiting {
    metrics: Arc<Metrics>,
    what: For,
}

// === impl Metrics ===

impl Metrics {
    /// Nothing counted yet, for a process that relays on so many threads.
    #[must_use]
    pub fn new(options: &Options, threads: usize) -> Arc<Self> {
        Arc::new(Self {
            calls: Calls::new(options, threads),
            answers: std::array::from_fn(|_| std::array::from_fn(|_| AtomicU64::new(0))),
            cache_miss: Histogram::new(&TIME),
            queue_delay: Histogram::new(&TIME),
            retries: std::array::from_fn(|_| AtomicU64::new(0)),
            retries_refused: AtomicU64::new(0),
            denied: AtomicU64::new(0),
            waiting: std::array::from_fn(|_| AtomicU64::new(0)),
        })
    }

    /// Whether calls are counted by model.
    #[must_use]
    pub fn by_model(&self) -> bool {
        self.calls.by_model()
    }

    /// A call is over. Those that the proxy's own services answered are not counted: they are no calls of models.
    pub fn call(&self, record: &Record) {
        if let Some(reason) = record.reason {
            self.answered(reason, record.code);
        }
        if !record.served {
            self.calls.call(record);
        }
    }

    /// A call that was sent to a server is over there.
    pub fn invoked(&self, path: &str, subject: Option<&Subject>, code: u32, took: Duration) {
        self.calls.invoked(path, subject, code, took);
    }

    /// The proxy itself answered.
    pub fn answered(&self, reason: Reason, code: u32) {
        self.answers[reason as usize][code::index(code)].fetch_add(1, Ordering::Relaxed);
    }

    /// A call is sent again.
    pub(crate) fn retry(&self, cause: Cause) {
        if let Some(at) = CAUSES.iter().position(|(of, _)| *of == cause) {
            self.retries[at].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A call is not sent again because the budget is spent.
    pub(crate) fn retry_refused(&self) {
        self.retries_refused.fetch_add(1, Ordering::Relaxed);
    }

    /// A server denied a model.
    pub(crate) fn denied(&self) {
        self.denied.fetch_add(1, Ordering::Relaxed);
    }

    /// A call has waited.
    pub(crate) fn waited(&self, what: For, took: Duration) {
        match what {
            For::Load if took > MISS => self.cache_miss.observe_time(took),
            For::Load => {}
            For::Turn => self.queue_delay.observe_time(took),
        }
    }

    /// A call begins to wait.
    pub(crate) fn waiting(self: &Arc<Self>, what: For) -> Waiting {
        self.waiting[what as usize].fetch_add(1, Ordering::Relaxed);
        Waiting { metrics: self.clone(), what }
    }
}

// === impl Waiting ===

impl Drop for Waiting {
    fn drop(&mut self) {
        self.metrics.waiting[self.what as usize].fetch_sub(1, Ordering::Relaxed);
    }
}
