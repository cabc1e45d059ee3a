//! Writes what a proxy counts, and what can be seen of it, to a page.

use std::sync::{Arc, atomic::Ordering};

use modelring_process::metrics::{Collect, Collecting, Page};

use super::{CAUSES, Metrics, code, names::*};
use crate::{
    engine::{answer::Reason, budget::Budget},
    fleet::{Fleet, Peer},
    net::Load,
};

/// States of leases, as a label.
const LEASES: [&str; 5] = ["live", "ejected", "leaving", "expired", "unknown"];

/// Everything of a proxy that is shown.
pub(crate) struct Shown {
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) budget: Arc<Budget>,
    /// By thread.
    pub(crate) loads: Vec<Arc<Load>>,
}

impl Collect for Shown {
    fn collect<'a>(&'a self, page: &'a mut Page) -> Collecting<'a> {
        self.metrics.show(page);
        self.show(page);
        Box::pin(std::future::ready(()))
    }
}

// === impl Metrics ===

impl Metrics {
    pub(super) fn show(&self, page: &mut Page) {
        self.calls.show(page);
        page.histogram(&CACHE_MISS, &self.cache_miss.seen());
        page.histogram(&QUEUE_DELAY, &self.queue_delay.seen());
        let mut answers = page.series(&ANSWERS);
        for (reason, by_code) in Reason::ALL.iter().zip(&self.answers) {
            for (name, count) in code::NAMES.iter().zip(by_code) {
                let count = count.load(Ordering::Relaxed);
                if count > 0 {
                    answers.value(&[reason.as_str(), name], count);
                }
            }
        }
        let mut retries = page.series(&RETRIES);
        for ((_, cause), count) in CAUSES.iter().zip(&self.retries) {
            retries.value(&[cause], count.load(Ordering::Relaxed));
        }
        page.value(&RETRIES_REFUSED, self.retries_refused.load(Ordering::Relaxed));
        page.value(&DENIED, self.denied.load(Ordering::Relaxed));
        let mut waiting = page.series(&WAITING);
        for (what, count) in ["load", "turn"].into_iter().zip(&self.waiting) {
            waiting.value(&[what], count.load(Ordering::Relaxed));
        }
    }
}

// === impl Shown ===

impl Shown {
    fn show(&self, page: &mut Page) {
        let now = self.fleet.clock.now();
        page.value(&WAITED_MODELS, self.fleet.loads.len());
        page.value(&HELD, self.budget.used());
        page.value(&HELD_LIMIT, self.budget.limit());
        let mut connections = page.series(&CONNECTIONS);
        for (thread, load) in self.loads.iter().enumerate() {
            connections.value(&[&thread.to_string()], load.connections());
        }
        let mut streams = page.series(&STREAMS);
        for (thread, load) in self.loads.iter().enumerate() {
            streams.value(&[&thread.to_string()], load.streams());
        }
        page.value(&READY, self.fleet.is_ready());
        page.value(&CONTROL, self.fleet.is_connected());
        if let Some(table) = self.fleet.table() {
            page.value(&TABLE_EPOCH, table.version.epoch);
            page.value(&TABLE_VERSION, table.version.n);
            page.value(&TABLE_AGE, now.since(self.fleet.installed_at()).as_secs_f64());
            page.value(&TABLE_MODELS, table.models());
        }
        let mut counts = [0_u64; LEASES.len()];
        for peer in self.fleet.peers().values() {
            counts[self.lease(peer)] += 1;
        }
        let mut instances = page.series(&INSTANCES);
        for (lease, count) in LEASES.iter().zip(counts) {
            instances.value(&[lease], count);
        }
    }

    /// Where its lease stands in [`LEASES`].
    fn lease(&self, peer: &Peer) -> usize {
        let now = self.fleet.clock.now();
        match (peer.host.is_live(now), peer.has_told()) {
            (true, _) if peer.host.is_leaving() => 2,
            (true, _) if peer.host.is_ejected(now) => 1,
            (true, _) => 0,
            (false, true) => 3,
            (false, false) => 4,
        }
    }
}
