//! Who may still believe in a copy: the leases that proxies hold, as their agent sees them.
//!
//! A lease outlives its stream (the proxy may not have noticed that it ended), and for proxies that this start has not
//! heard of it is counted from the start itself.

use std::collections::{BTreeMap, BTreeSet};

use crate::{id::WatcherId, rules::unload::LEASE, time::Time};

#[derive(Debug)]
pub(super) struct Leases {
    /// The agent's start, if an earlier one may have granted leases.
    pub(super) restarted: Option<Time>,
    pub(super) pings: BTreeMap<WatcherId, Time>,
}

// === impl Leases ===

impl Leases {
    pub(super) fn new(restarted: Option<Time>) -> Self {
        Self { restarted, pings: BTreeMap::new() }
    }

    pub(super) fn ping(&mut self, watcher: WatcherId, now: Time) {
        let ping = self.pings.entry(watcher).or_insert(now);
        *ping = now.max(*ping);
        // Leases that have run out say nothing any more.
        self.pings.retain(|_, ping| *ping + LEASE > now);
    }

    /// When the last lease runs out of those that have not acknowledged: then nobody believes in the copy any more.
    pub(super) fn end(&self, acked: &BTreeSet<WatcherId>) -> Time {
        let unheard = self.restarted.map_or(Time::ZERO, |start| start + LEASE);
        let heard = self.pings.iter().filter(|(watcher, _)| !acked.contains(*watcher)).map(|(_, ping)| *ping + LEASE);
        heard.fold(unheard, Time::max)
    }
}
