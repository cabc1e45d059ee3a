//! The connected proxies and observers: what each has acknowledged, and the deltas on their way to it.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use modelring_placement::{
    copies::{Present, Report},
    id::ModelId,
    time::Time,
};
use modelring_proto::v1::{Observed, ProxyState, Role, RoutesHello, TableChange, Usage, Version};
use tokio::sync::{mpsc, oneshot, watch};

use super::{Core, Table};
use crate::{Error, source::Notice};

/// Deltas on their way to one proxy; one that does not take them is dropped.
const DELTAS: usize = 256;

/// Refusals that are remembered.
const MOST_REFUSALS: usize = 64;

/// One connection of a proxy or observer, counted up by the service.
pub type Connection = u64;

/// Something that came from a proxy.
#[derive(Debug)]
pub enum ProxyMessage {
    /// It said hello and waits for a table.
    Joins {
        /// Its connection.
        connection: Connection,
        /// What it said.
        hello: RoutesHello,
        /// Gets the table once there is one.
        reply: oneshot::Sender<Joined>,
    },
    /// A version is in force.
    Ack {
        /// Its connection.
        connection: Connection,
        /// The version.
        version: Version,
    },
    /// A version was refused.
    Nack {
        /// Its connection.
        connection: Connection,
        /// The version.
        version: Version,
        /// Why.
        reason: String,
    },
    /// What its calls did.
    Usage {
        /// By copy and by model.
        usage: Usage,
    },
    /// It is gone.
    Leaves {
        /// Its connection.
        connection: Connection,
    },
}

/// A table to begin with, and the changes that follow it.
#[derive(Debug)]
pub struct Joined {
    /// Version of the table.
    pub version: Version,
    /// The table.
    pub table: Arc<Table>,
    /// The changes.
    pub deltas: mpsc::Receiver<Arc<Delta>>,
    /// How it stands beside the table, for an observer.
    pub observed: Option<watch::Receiver<Observed>>,
}

/// A change from one version to the next.
#[derive(Debug)]
pub struct Delta {
    /// The version that it leads to.
    pub version: Version,
    /// What changes.
    pub change: TableChange,
}

/// All connected proxies and observers.
#[derive(Debug, Default)]
pub(super) struct Proxies {
    connected: BTreeMap<Connection, Proxy>,
    /// Those that wait for the first table.
    waiting: BTreeMap<Connection, (RoutesHello, oneshot::Sender<Joined>)>,
    /// Why a proxy, by its id, refused a table; until it has taken one.
    refused: BTreeMap<String, String>,
}

#[derive(Debug)]
struct Proxy {
    id: String,
    /// Observers are told more, are not counted and owe no acknowledgement.
    observer: bool,
    deltas: mpsc::Sender<Arc<Delta>>,
    acknowledged: u64,
}

// === impl Proxies ===

impl Proxies {
    /// Connected proxies, observers not counted.
    pub(super) fn count(&self) -> u32 {
        let proxies = self.connected.values().filter(|proxy| !proxy.observer).count();
        u32::try_from(proxies).unwrap_or(u32::MAX)
    }

    /// Proxies that have the table of this n and that do not, observers, and proxies that refused a table.
    pub(super) fn census(&self, n: u64) -> ([usize; 2], usize, usize) {
        let current = self.connected.values().filter(|proxy| !proxy.observer && proxy.acknowledged >= n).count();
        let observers = self.connected.values().filter(|proxy| proxy.observer).count();
        ([current, self.connected.len() - observers - current], observers, self.refused.len())
    }

    /// What each connected proxy has in force.
    pub(super) fn states(&self) -> Vec<ProxyState> {
        let proxies = self.connected.values().filter(|proxy| !proxy.observer);
        proxies.map(|proxy| ProxyState { id: proxy.id.clone(), acknowledged: proxy.acknowledged }).collect()
    }

    /// Whether all connected proxies have the table of this n, or a later one, in force.
    pub(super) fn have(&self, n: u64) -> bool {
        self.connected.values().all(|proxy| proxy.observer || proxy.acknowledged >= n)
    }

    /// Sends a change to all. Who does not keep up is dropped, not waited for.
    pub(super) fn send(&mut self, delta: &Arc<Delta>) -> bool {
        let before = self.connected.len();
        self.connected.retain(|_, proxy| {
            let taken = proxy.deltas.try_send(delta.clone()).is_ok();
            if !taken {
                tracing::warn!(proxy = proxy.id, "a proxy does not take its updates and is dropped");
            }
            taken
        });
        self.connected.len() != before
    }

    /// Gives the table to those that wait for it.
    pub(super) fn admit(&mut self, version: Version, table: &Arc<Table>, observed: &watch::Sender<Observed>) {
        for (connection, (hello, reply)) in std::mem::take(&mut self.waiting) {
            let (deltas, rest) = mpsc::channel(DELTAS);
            let observer = hello.role() != Role::Proxy;
            let observed = observer.then(|| observed.subscribe());
            let joined = Joined { version, table: table.clone(), deltas: rest, observed };
            if reply.send(joined).is_ok() {
                let proxy = Proxy { id: hello.id, observer, deltas, acknowledged: 0 };
                self.connected.insert(connection, proxy);
            }
        }
    }

    fn note_refusal(&mut self, id: String, reason: String) {
        if self.refused.len() >= MOST_REFUSALS {
            self.refused.pop_first();
        }
        self.refused.insert(id, reason);
    }

    /// Ends all connections; proxies dial again and get a whole table.
    fn drop_all(&mut self) {
        self.connected.clear();
    }

    pub(super) fn notices(&self) -> impl Iterator<Item = Notice> {
        self.refused.iter().map(|(id, reason)| Notice {
            subject: format!("proxy/{id}"),
            text: format!("it refused a table and keeps its last good one: {reason}"),
        })
    }
}

// === impl Core ===

impl Core {
    pub(super) fn proxy(&mut self, now: Time, message: ProxyMessage) -> Result<(), Error> {
        match message {
            ProxyMessage::Joins { connection, hello, reply } => {
                self.heard_of(hello.last.unwrap_or_default())?;
                self.proxies.waiting.insert(connection, (hello, reply));
            }
            ProxyMessage::Ack { connection, version } => {
                if let Some(proxy) = self.proxies.connected.get_mut(&connection).filter(|_| version.epoch == self.epoch)
                {
                    proxy.acknowledged = proxy.acknowledged.max(version.n);
                    self.proxies.refused.remove(&proxy.id);
                }
            }
            ProxyMessage::Nack { connection, version, reason } => {
                // It is no longer waited for; when it dials again it gets a whole table.
                if let Some(proxy) = self.proxies.connected.remove(&connection) {
                    tracing::warn!(proxy = proxy.id, version.n, reason, "a proxy refused a table");
                    self.proxies.note_refusal(proxy.id, reason);
                }
            }
            ProxyMessage::Usage { usage } => {
                self.usage(now, &usage);
                return Ok(());
            }
            ProxyMessage::Leaves { connection } => {
                self.proxies.waiting.remove(&connection);
                self.proxies.connected.remove(&connection);
            }
        }
        self.dirty = true;
        Ok(())
    }

    /// A proxy holds a table of this version. If its epoch is higher than ours, either another control took over or the
    /// count was lost; if it is ours and the table is one that we have not made, the count was lost too.
    fn heard_of(&mut self, heard: Version) -> Result<(), Error> {
        let ours = self.published.version(self.epoch);
        if (heard.epoch, heard.n) <= (ours.epoch, ours.n) {
            return Ok(());
        }
        let theirs = self.memory.epoch()?;
        if theirs > self.epoch {
            return Err(Error::Superseded { theirs, ours: self.epoch });
        }
        self.epoch = self.memory.next_epoch(heard.epoch)?;
        tracing::warn!(
            heard = heard.epoch,
            epoch = self.epoch,
            "a proxy had a higher epoch than was kept, starting over above it"
        );
        self.published.start_over();
        self.stale.all = true;
        self.services.services.values_mut().for_each(|service| service.changed_at = None);
        self.proxies.drop_all();
        Ok(())
    }

    fn usage(&mut self, now: Time, usage: &Usage) {
        let mut busy: HashMap<&str, Duration> = HashMap::new();
        for copy in &usage.copies {
            *busy.entry(&copy.instance).or_default() += Duration::from_micros(copy.busy_micros);
        }
        for agent in self.fleet.agents.values_mut() {
            let reported = agent.hello.as_ref().and_then(|hello| busy.get(hello.instance_id.as_str()));
            agent.busy = agent.busy.saturating_add(reported.copied().unwrap_or_default());
        }
        for copy in &usage.copies {
            let model = ModelId::from(copy.model.as_str());
            let Some(entry) = self.published.table().models.get(model.as_str()) else { continue };
            let new = self.fleet.moved.contains(&model);
            let new = new.then(|| self.fleet.count(now, &self.fleet.present(&self.namespace), &model));
            let seen = new.as_ref().or_else(|| self.fleet.copies.get(&model));
            let runtimes = self.published.table().classes.get(&entry.class).map(|class| class.runtimes.as_slice());
            let present = Present {
                ready: seen.map_or(0, |seen| u32::try_from(seen.ready.len()).unwrap_or(u32::MAX)),
                concurrency_limit: seen.map_or(0, |seen| seen.concurrency_limit),
                spare: runtimes.is_some_and(|runtimes| self.fleet.has_spare(runtimes)),
            };
            let report = Report {
                requests: copy.requests,
                busy: Duration::from_micros(copy.busy_micros),
                in_flight: copy.in_flight,
                saturated: copy.saturated,
            };
            self.heats.report(now, &model, copy);
            let wanted = self.demand.entry(model).or_default();
            wanted.demand.report(now, report, present);
            self.dirty |= wanted.demand.copies(now) != wanted.seen;
        }
    }
}
