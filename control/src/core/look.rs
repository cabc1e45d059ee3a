//! How control stands, for metrics.

use super::{Core, publish::Published};
use crate::metrics::Look;

// === impl Core ===

impl Core {
    /// How it stands.
    pub(super) fn look(&self) -> Look {
        let now = self.now();
        let table = self.published.table();
        let copies = &self.fleet.copies;
        let of_table = || table.models.keys().filter_map(|model| copies.get(model.as_str()));
        let mut look = Look {
            version: version(&self.published, self.epoch),
            models: table.models.len(),
            loaded: of_table().filter(|copies| !copies.ready.is_empty()).count(),
            failed: of_table().filter(|copies| !copies.failed.is_empty()).count(),
            wanted: table.wanted.values().map(|wanted| u64::from(wanted.copies)).sum(),
            ready: of_table().map(|copies| copies.ready.len()).sum(),
            asks: self.asks.count(),
            not_accepting: table.instances.values().filter(|instance| !instance.accepts_new).count(),
            frozen: self.catalog.as_ref().is_some_and(|catalog| catalog.frozen),
            notices: table.notices.len(),
            ..Look::default()
        };
        for service in self.services.services.values() {
            let state = if service.trouble.is_some() { 2 } else { usize::from(!service.vmodel.is_steady()) };
            look.services[state] += 1;
        }
        for agent in self.fleet.agents.values() {
            let state = match (agent.trouble.is_some(), agent.is_live(now)) {
                (_, true) => 0,
                (false, false) => 1,
                (true, false) => 2,
            };
            look.agents[state] += 1;
        }
        (look.proxies, look.observers, look.refusing) = self.proxies.census(look.version.1);
        look
    }
}

fn version(published: &Published, epoch: u64) -> (u64, u64) {
    let version = published.version(epoch);
    (version.epoch, version.n)
}
