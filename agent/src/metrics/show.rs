//! Writes what an agent counts, and how it stands, to a page.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use modelring_placement::pod::{Census, LedgerState};
use modelring_process::metrics::{Collect, Collecting, Page};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::{CAUSES, Metrics, OUTCOMES, REFUSALS, names};
use crate::core::Message;

/// How long the core may take to say how it stands.
const PATIENCE: Duration = Duration::from_secs(2);
/// What ModelMesh said of an empty cache: the largest number of milliseconds, in seconds.
const NEVER_USED: u64 = 9_223_372_036_854_775;

/// How an agent stands.
#[derive(Debug)]
pub(crate) struct Look {
    pub(crate) ledger: LedgerState,
    pub(crate) census: Census,
    /// How long the copy that has been unused for longest has been so.
    pub(crate) least_recent_use: Option<Duration>,
    /// Open watches of proxies, controls and observers.
    pub(crate) watchers: [usize; 3],
    pub(crate) waiters: usize,
    pub(crate) server_ready: bool,
    pub(crate) leaving: bool,
}

/// Everything of an agent that is shown.
#[derive(Debug)]
pub(crate) struct Shown {
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) core: mpsc::Sender<Message>,
}

impl Collect for Shown {
    fn collect<'a>(&'a self, page: &'a mut Page) -> Collecting<'a> {
        Box::pin(async move {
            self.metrics.show(page);
            // Of an agent that does not answer what it has counted is still worth showing.
            if let Ok(Some(look)) = timeout(PATIENCE, self.look()).await {
                look.show(page);
            }
        })
    }
}

// === impl Shown ===

impl Shown {
    async fn look(&self) -> Option<Look> {
        let (answer, look) = oneshot::channel();
        self.core.send(Message::Look(answer)).await.ok()?;
        look.await.ok()
    }
}

// === impl Metrics ===

impl Metrics {
    fn show(&self, page: &mut Page) {
        page.histogram(&names::LOAD, &self.load.seen());
        page.value(&names::LOAD_FAILURE, self.load_failures.load(Ordering::Relaxed));
        page.histogram(&names::QUEUE_DELAY, &self.queue_delay.seen());
        page.histogram(&names::SIZING, &self.sizing.seen());
        page.histogram(&names::MODEL_SIZE, &self.model_size.seen());
        page.histogram(&names::UNLOAD, &self.unload.seen());
        page.value(&names::UNLOAD_ATTEMPT_FAILURE, self.unload_attempt_failures.load(Ordering::Relaxed));
        page.value(&names::UNLOAD_FAILURE, self.unload_failures.load(Ordering::Relaxed));
        page.histogram(&names::AGE_AT_EVICTION, &self.age_at_eviction.seen());
        let mut drains = page.series(&names::DRAINS);
        for ((_, cause), by_outcome) in CAUSES.iter().zip(&self.drains) {
            for ((_, outcome), count) in OUTCOMES.iter().zip(by_outcome) {
                drains.value(&[cause, outcome], count.load(Ordering::Relaxed));
            }
        }
        let mut refusals = page.series(&names::REFUSALS);
        for ((_, reason), count) in REFUSALS.iter().zip(&self.refusals) {
            refusals.value(&[reason], count.load(Ordering::Relaxed));
        }
        let mut pulls = page.series(&names::PULLS);
        pulls.value(&["done"], self.pulled.load(Ordering::Relaxed));
        pulls.value(&["disk"], self.disk_hits.load(Ordering::Relaxed));
        pulls.value(&["failed"], self.pulls_failed.load(Ordering::Relaxed));
        page.value(&names::PULLED_BYTES, self.pulled_bytes.load(Ordering::Relaxed));
        page.histogram(&names::PULL_SECONDS, &self.pulls.seen());
        page.value(&names::SERVER_STARTS, self.server_starts.load(Ordering::Relaxed));
    }
}

// === impl Look ===

impl Look {
    fn show(&self, page: &mut Page) {
        let ledger = &self.ledger;
        let used = ledger.loaded.saturating_add(ledger.reserved).saturating_add(ledger.unloading);
        page.value(&names::CAPACITY, ledger.capacity);
        page.value(&names::USED, used);
        page.value(&names::USED_BPS, bps(used, ledger.capacity));
        let mut memory = page.series(&names::LEDGER);
        let free = ledger.capacity.saturating_sub(used);
        let parts = ["loaded", "reserved", "unloading", "free"];
        for (part, bytes) in parts.iter().zip([ledger.loaded, ledger.reserved, ledger.unloading, free]) {
            memory.value(&[part], bytes);
        }
        page.value(&names::OVERRUN, ledger.overrun);
        let lru = self.least_recent_use;
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        page.value(&names::LRU, lru.map_or(NEVER_USED, |age| since_1970.saturating_sub(age).as_secs()));
        page.value(&names::LRU_AGE, lru.map_or(0, |age| age.as_secs()));
        let Census { queued, loading, ready, draining, unloading, failed } = self.census;
        page.value(&names::MODELS, loading + ready + draining);
        let mut copies = page.series(&names::COPIES);
        let states = ["queued", "loading", "ready", "draining", "unloading", "failed"];
        for (state, count) in states.iter().zip([queued, loading, ready, draining, unloading, failed]) {
            copies.value(&[state], count);
        }
        page.value(&names::HUNG, ledger.hung);
        if let Some(age) = ledger.next_victim_age {
            page.value(&names::VICTIM_AGE, age.as_secs_f64());
        }
        let mut watchers = page.series(&names::WATCHERS);
        for (role, count) in ["proxy", "control", "observer"].iter().zip(self.watchers) {
            watchers.value(&[role], count);
        }
        page.value(&names::WAITERS, self.waiters);
        page.value(&names::SERVER_READY, self.server_ready);
        page.value(&names::LEAVING, self.leaving);
    }
}

/// Ten-thousandths.
fn bps(used: u64, capacity: u64) -> u64 {
    let bps = (u128::from(used) * 10_000).checked_div(u128::from(capacity)).unwrap_or(0);
    u64::try_from(bps).unwrap_or(u64::MAX)
}
