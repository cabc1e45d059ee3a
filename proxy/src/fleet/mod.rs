//! What a proxy knows of the mesh: the table from control, the copies from the agents.
//!
//! A [`Fleet`] runs tasks on the proxy's own background threads: `routes` takes tables, a `watch` per listed instance
//! keeps the view of its agent. The request threads read what these write, by atomics and [`ArcSwap`]s: [`Fleet::table`],
//! [`Fleet::index`], and each copy's own word. Nobody here waits for a request, and no request waits for a lock held
//! across I/O.

mod backoff;
mod copy;
mod host;
mod index;
mod loads;
mod peer;
mod per_copy;
mod routes;
mod sights;
mod store;
mod usage;
mod watch;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use modelring_placement::{
    id::{InstanceId, ModelId, WatcherId},
    loadtime::LoadTimes,
    time::Time,
};
use modelring_process::tls::{Connector, Identity, Name};
use modelring_proto::{PROTOCOL, v1};
use parking_lot::Mutex;
use rand::Rng;
use tokio::{runtime::Handle, sync::Notify, sync::watch as signal, task::AbortHandle};
use tonic::transport::Endpoint;

pub use copy::{Copy, Denial, Entry, InFlight, Queued};
pub use host::{Host, LOAD_TIMEOUT, Paths, Serving};
pub use index::Index;
pub use loads::{Load, Loads, Phase, Waiter};
pub use peer::Peer;
pub use per_copy::PerCopy;
pub use sights::Sights;
pub use usage::Holds;
pub use watch::copy_state;

use crate::{
    clock::Clock,
    table::{Instance, Table},
};

/// How long snapshots of agents are waited for before the proxy says that it is ready.
const READY_AFTER: Duration = Duration::from_secs(5);
/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(2);
/// How often a silent connection is asked whether it is there, and how long it may take to say so.
const KEEPALIVE: Duration = Duration::from_secs(2);

/// What a proxy knows of the mesh.
pub struct Fleet {
    /// Random id of this process start.
    pub id: WatcherId,
    /// The clock that leases are measured by.
    pub clock: Clock,
    /// Where the tasks run.
    pub runtime: Handle,
    /// Copies by model.
    pub index: Index,
    /// Models that calls wait for.
    pub loads: Arc<Loads>,
    /// Holds, for control.
    pub holds: Holds,
    /// Tells control at once that a copy is saturated.
    pub saturated: Notify,
    table: ArcSwapOption<Table>,
    version: signal::Sender<store::Seen>,
    peers: ArcSwap<BTreeMap<InstanceId, Arc<Peer>>>,
    load_times: Mutex<LoadTimes>,
    /// Whether control is connected.
    connected: AtomicBool,
    /// When the table in force was taken, nanoseconds.
    installed_at: AtomicU64,
    waited: AtomicBool,
    ending: AtomicBool,
    ready: signal::Sender<bool>,
    links: Links,
    per_copy: PerCopy,
    /// Held while the peers are changed.
    installing: Mutex<()>,
    /// The tasks that watch control and keep the table.
    tasks: Mutex<Vec<AbortHandle>>,
}

/// How the other processes are dialled.
#[derive(Clone, Debug)]
pub struct Links {
    /// Agents, for their gRPC and their relay endpoints.
    pub agent: Connector,
    /// Control.
    pub control: Connector,
}

/// Where the fleet gets its table from, and where it keeps it.
#[derive(Clone, Debug)]
pub struct Source {
    /// Control's Routes service, `http://host:port`.
    pub control: String,
    /// Namespace whose table is asked for.
    pub namespace: String,
    /// Where the last table is kept.
    pub state_dir: Option<PathBuf>,
}

// === impl Source ===

impl Source {
    fn store(&self) -> Option<store::Store> {
        self.state_dir.as_ref().map(|dir| store::Store::new(dir.clone(), self.namespace.clone()))
    }
}

// === impl Fleet ===

impl Fleet {
    /// A fleet that knows nothing and asks nobody; its tasks run on `runtime`. It will speak plaintext.
    #[must_use]
    pub fn new(clock: Clock, runtime: Handle) -> Arc<Self> {
        Self::dialling(clock, runtime, Links::plaintext(), PerCopy::default())
    }

    /// As [`Fleet::new`], with its own way of dialling and its own limit of the calls on a copy.
    #[must_use]
    pub fn dialling(clock: Clock, runtime: Handle, links: Links, per_copy: PerCopy) -> Arc<Self> {
        let id = format!("{:032x}", rand::rng().random::<u128>());
        Arc::new(Self {
            id: id.into(),
            clock,
            runtime,
            index: Index::default(),
            loads: Arc::default(),
            holds: Holds::default(),
            saturated: Notify::new(),
            table: ArcSwapOption::empty(),
            version: signal::Sender::new(None),
            peers: ArcSwap::default(),
            load_times: Mutex::default(),
            connected: AtomicBool::new(false),
            installed_at: AtomicU64::new(0),
            waited: AtomicBool::new(false),
            ending: AtomicBool::new(false),
            ready: signal::Sender::new(false),
            links,
            per_copy,
            installing: Mutex::default(),
            tasks: Mutex::default(),
        })
    }

    /// Takes up the table on disk, if there is one: done before anyone may call, so that nobody is told that there is none.
    pub fn recall(self: &Arc<Self>, source: &Source) {
        if let Some(table) = source.store().and_then(|store| store.read()) {
            tracing::info!(version = %table.version, models = table.models(), "starting from the kept table");
            self.install(table);
        }
    }

    /// Watches control, and keeps its tables on disk.
    pub fn start(self: &Arc<Self>, source: Source) {
        if let Some(store) = source.store() {
            let keep = self.runtime.spawn(store.keep(self.clone()));
            self.tasks.lock().push(keep.abort_handle());
        }
        let watch = self.runtime.spawn(routes::run(self.clone(), source.control, source.namespace));
        self.tasks.lock().push(watch.abort_handle());
    }

    /// The table in force.
    #[must_use]
    pub fn table(&self) -> Option<Arc<Table>> {
        self.table.load_full()
    }

    /// Whether calls may be sent here: there is a table, and every listed agent has told its copies or has had its time.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        *self.ready.borrow()
    }

    /// Why it is not ready, where it is not.
    #[must_use]
    pub fn why_not_ready(&self) -> &'static str {
        if self.ending.load(Ordering::Acquire) {
            "stopping"
        } else if self.table.load().is_none() {
            "no table from control yet"
        } else {
            "not every listed agent has told its copies yet"
        }
    }

    /// Tells when the proxy becomes ready.
    #[must_use]
    pub fn ready(&self) -> signal::Receiver<bool> {
        self.ready.subscribe()
    }

    /// Whether control is connected now.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }

    /// When the table in force was taken.
    #[must_use]
    pub fn installed_at(&self) -> Time {
        Time::from_nanos(self.installed_at.load(Ordering::Relaxed))
    }

    /// A listed instance.
    #[must_use]
    pub fn peer(&self, id: &str) -> Option<Arc<Peer>> {
        self.peers.load().get(id).cloned()
    }

    /// All listed instances.
    #[must_use]
    pub fn peers(&self) -> Arc<BTreeMap<InstanceId, Arc<Peer>>> {
        self.peers.load_full()
    }

    /// How long a load of this type may be expected to take at most.
    #[must_use]
    pub fn load_time(&self, model_type: &str, load_timeout: Duration) -> Duration {
        self.load_times.lock().estimate(model_type, load_timeout)
    }

    /// Puts a table in force: watches who is listed now, forgets who is not.
    pub fn install(self: &Arc<Self>, table: Table) {
        let _one_at_a_time = self.installing.lock();
        let table = Arc::new(table);
        let before = self.peers.load_full();
        let mut peers = BTreeMap::new();
        for (id, listed) in table.instances() {
            let kept = before.get(id).filter(|peer| is_same(&peer.listed, listed)).cloned();
            let peer = kept.unwrap_or_else(|| self.watch(listed.clone()));
            peer.host.set_listed_leaving(listed.leaving);
            peers.insert(id.clone(), peer);
        }
        let first = self.table.load().is_none();
        let version = table.version;
        self.peers.store(Arc::new(peers));
        self.table.store(Some(table));
        self.installed_at.store(self.clock.now().as_nanos(), Ordering::Relaxed);
        let peers = self.peers.load();
        peers.values().for_each(|peer| peer.share_among(self.proxies()));
        before.values().filter(|peer| !peers.get(&peer.listed.id).is_some_and(|now| Arc::ptr_eq(now, peer))).for_each(
            |peer| {
                peer.retire();
            },
        );
        self.version.send_replace(Some(version));
        self.loads.wake_all();
        if first {
            let fleet = self.clone();
            self.runtime.spawn(async move {
                tokio::time::sleep(READY_AFTER).await;
                fleet.waited.store(true, Ordering::Release);
                fleet.look_whether_ready();
            });
        }
        self.look_whether_ready();
    }

    /// The proxy is going away: says that it is not ready, so that nobody new comes.
    pub fn set_unready(&self) {
        self.ending.store(true, Ordering::Release);
        self.ready.send_replace(false);
    }

    /// Ends all tasks; nothing may be used any more.
    pub fn stop(&self) {
        self.tasks.lock().drain(..).for_each(|task| task.abort());
        let peers = self.peers.swap(Arc::default());
        peers.values().for_each(|peer| peer.retire());
    }

    fn watch(self: &Arc<Self>, listed: Arc<Instance>) -> Arc<Peer> {
        let (peer, commands) = Peer::new(listed, self);
        let task = self.runtime.spawn(watch::run(self.clone(), peer.clone(), commands));
        *peer.task.lock() = Some(task.abort_handle());
        peer
    }

    fn versions(&self) -> signal::Receiver<store::Seen> {
        self.version.subscribe()
    }

    fn proxies(&self) -> u32 {
        self.table.load().as_ref().map_or(1, |table| table.proxies)
    }

    /// How long a drain may take, by the table.
    fn drain_timeout(&self) -> Duration {
        self.table.load().as_ref().map_or(Duration::from_secs(30), |table| table.tuning.drain_timeout)
    }

    fn watcher_hello(&self) -> v1::WatcherHello {
        v1::WatcherHello { protocol: PROTOCOL, role: v1::Role::Proxy.into(), id: self.id.to_string() }
    }

    /// What the calls did since the last time this was asked.
    #[must_use]
    pub fn usage(&self) -> v1::Usage {
        let copies = self.peers.load().values().flat_map(|peer| peer.usage()).collect();
        v1::Usage { copies, models: self.holds.take() }
    }

    fn load_took(&self, model: &ModelId, took: Duration, host: &Host) {
        let table = self.table.load();
        let Some(model) = table.as_ref().and_then(|table| table.model(model.as_str())) else { return };
        let timeout = host.load_timeout(&model.reference);
        self.load_times.lock().observe(&model.reference.model_type, timeout, took);
    }

    fn look_whether_ready(&self) {
        if self.ending.load(Ordering::Acquire) {
            return;
        }
        let known = || self.peers.load().values().all(|peer| peer.has_told());
        if self.table.load().is_some() && (self.waited.load(Ordering::Acquire) || known()) {
            self.ready.send_if_modified(|ready| !std::mem::replace(ready, true));
        }
    }
}

// === impl Links ===

impl Links {
    /// mTLS with an identity, else plaintext; the agents are those of this namespace.
    ///
    /// # Errors
    ///
    /// The namespace cannot stand in a certificate.
    pub fn of(identity: Option<Identity>, namespace: &str) -> Result<Self, modelring_process::Error> {
        let agent = Connector::new(identity.clone(), Name::agent(namespace)?);
        Ok(Self { agent, control: Connector::new(identity, Name::control()) })
    }

    /// Plaintext, on this machine.
    #[must_use]
    pub fn plaintext() -> Self {
        Self { agent: Connector::plaintext(), control: Connector::plaintext() }
    }
}

/// Whether a listed instance is the one that is watched already; marks may have changed.
fn is_same(watched: &Instance, listed: &Instance) -> bool {
    watched.pod_uid == listed.pod_uid && watched.address == listed.address
}

/// How an internal service is dialled.
fn dial(address: &str) -> Result<Endpoint, tonic::transport::Error> {
    let endpoint = Endpoint::from_shared(address.to_owned())?;
    Ok(endpoint
        .connect_timeout(CONNECT)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        .keep_alive_while_idle(true))
}
