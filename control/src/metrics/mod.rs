//! How control stands, asked of its core when somebody scrapes.

mod names;

use std::time::Duration;

use modelring_process::metrics::{Collect, Collecting, Page};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

pub use names::METRICS;
use names::{
    AGENTS, ASKS, EPOCH, FROZEN, MODELS_FAILED, MODELS_LOADED, MODELS_MANAGED, NOT_ACCEPTING, NOTICES, OBSERVERS,
    PROXIES, READY, REFUSING, SERVICES, VERSION, WANTED,
};

use crate::core::Event;

/// How long the core may take to say how it stands.
const PATIENCE: Duration = Duration::from_secs(2);

/// How control stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// Epoch and number of the newest table.
    pub version: (u64, u64),
    /// Models of the table.
    pub models: usize,
    /// Of those, ready somewhere.
    pub loaded: usize,
    /// Of those, failed somewhere, which still counts.
    pub failed: usize,
    /// InferenceServices that are steady, changing, troubled.
    pub services: [usize; 3],
    /// Wanted copies.
    pub wanted: u64,
    /// Ready copies.
    pub ready: usize,
    /// Open asks.
    pub asks: usize,
    /// Agents that are live, silent, unreachable.
    pub agents: [usize; 3],
    /// Instances that get no new copies.
    pub not_accepting: usize,
    /// Proxies that have the newest table, and that do not.
    pub proxies: [usize; 2],
    /// Proxies that refused a table.
    pub refusing: usize,
    /// Observers.
    pub observers: usize,
    /// Whether the last state of the source stays.
    pub frozen: bool,
    /// Notices.
    pub notices: usize,
}

/// Everything of control that is shown.
#[derive(Debug)]
pub(crate) struct Shown(pub(crate) mpsc::Sender<Event>);

impl Collect for Shown {
    fn collect<'a>(&'a self, page: &'a mut Page) -> Collecting<'a> {
        Box::pin(async move {
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
        self.0.send(Event::Look(answer)).await.ok()?;
        look.await.ok()
    }
}

// === impl Look ===

impl Look {
    fn show(&self, page: &mut Page) {
        page.value(&MODELS_MANAGED, self.models);
        page.value(&MODELS_LOADED, self.loaded);
        page.value(&MODELS_FAILED, self.failed);
        let mut services = page.series(&SERVICES);
        for (state, count) in ["steady", "changing", "troubled"].iter().zip(self.services) {
            services.value(&[state], count);
        }
        page.value(&WANTED, self.wanted);
        page.value(&READY, self.ready);
        page.value(&ASKS, self.asks);
        let mut agents = page.series(&AGENTS);
        for (state, count) in ["live", "silent", "unreachable"].iter().zip(self.agents) {
            agents.value(&[state], count);
        }
        page.value(&NOT_ACCEPTING, self.not_accepting);
        let mut proxies = page.series(&PROXIES);
        for (table, count) in ["current", "behind"].iter().zip(self.proxies) {
            proxies.value(&[table], count);
        }
        page.value(&REFUSING, self.refusing);
        page.value(&OBSERVERS, self.observers);
        page.value(&EPOCH, self.version.0);
        page.value(&VERSION, self.version.1);
        page.value(&FROZEN, self.frozen);
        page.value(&NOTICES, self.notices);
    }
}
