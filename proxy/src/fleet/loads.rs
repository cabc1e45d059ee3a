//! The models that calls wait for: one search per model, whatever the number of callers ("single flight").
//!
//! A [`Load`] lives as long as somebody waits: its last [`Waiter`] takes it away and with it the open `EnsureLoaded`.
//! The search itself is a task of the policy; here is what it shares with the callers and with the watchers of the
//! agents, who wake it.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use modelring_placement::{
    id::ModelId,
    seek::{Ending, Seek},
};
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, watch},
    task::AbortHandle,
};

use super::copy::Promise;
use crate::table::Model;

/// Searches by model.
#[derive(Default)]
pub struct Loads(Mutex<HashMap<ModelId, Entry>>);

struct Entry {
    load: Arc<Load>,
    waiters: usize,
    task: Option<AbortHandle>,
}

/// The search for a copy of one model.
pub struct Load {
    /// The model as the first caller saw it.
    pub model: Arc<Model>,
    /// What is known of the search.
    pub seek: Mutex<Seek>,
    /// Wakes the search: something changed.
    pub changed: Notify,
    /// How far it is, for the callers.
    pub phase: watch::Sender<Phase>,
    promises: Mutex<Vec<Promise>>,
    /// Whether somebody keeps it going for callers that could not wait.
    kept: AtomicBool,
}

/// How far a search is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It goes on.
    Seeking {
        /// An agent has accepted the load, which may take so long.
        accepted: Option<Duration>,
    },
    /// A copy is ready: choose.
    Use,
    /// Nobody can load it.
    Ended(Ending),
}

/// One who waits for a model.
pub struct Waiter {
    loads: Arc<Loads>,
    load: Arc<Load>,
}

// === impl Loads ===

impl Loads {
    /// Waits for a model; the first one to wait for it starts the search by `spawn`.
    pub fn join(self: &Arc<Self>, model: &Arc<Model>, spawn: impl FnOnce(Arc<Load>) -> AbortHandle) -> Waiter {
        let mut loads = self.0.lock();
        let entry = loads.entry(model.id().clone()).or_insert_with(|| {
            let load = Arc::new(Load::new(model.clone()));
            Entry { load, waiters: 0, task: None }
        });
        entry.waiters += 1;
        if entry.task.is_none() {
            entry.task = Some(spawn(entry.load.clone()));
        }
        Waiter { loads: self.clone(), load: entry.load.clone() }
    }

    /// A search is over: later callers begin another one, those that wait are told.
    pub fn finish(&self, load: &Arc<Load>, phase: Phase) {
        let mut loads = self.0.lock();
        if loads.get(load.model.id()).is_some_and(|entry| Arc::ptr_eq(&entry.load, load)) {
            loads.remove(load.model.id());
        }
        drop(loads);
        load.phase.send_replace(phase);
    }

    /// Something changed for this model.
    pub fn wake(&self, model: &ModelId) {
        if let Some(entry) = self.0.lock().get(model) {
            entry.load.changed.notify_one();
        }
    }

    /// Something changed for all.
    pub fn wake_all(&self) {
        for entry in self.0.lock().values() {
            entry.load.changed.notify_one();
        }
    }

    /// Whoever waits for this model is owed a copy that has just become ready.
    pub(super) fn promise(&self, model: &ModelId, promise: impl FnOnce() -> Option<Promise>) {
        let load = self.0.lock().get(model).map(|entry| entry.load.clone());
        if let Some(load) = load {
            load.promises.lock().extend(promise());
        }
    }

    /// Models that are waited for.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.lock().len()
    }

    /// Whether nobody waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

// === impl Load ===

impl Load {
    fn new(model: Arc<Model>) -> Self {
        Self {
            seek: Mutex::new(Seek::new(model.id().clone(), &*model.reference.model_type)),
            model,
            changed: Notify::new(),
            phase: watch::Sender::new(Phase::Seeking { accepted: None }),
            promises: Mutex::default(),
            kept: AtomicBool::new(false),
        }
    }

    /// Tells the callers that the search goes on.
    pub fn seeking(&self, accepted: Option<Duration>) {
        let next = Phase::Seeking { accepted };
        self.phase.send_if_modified(|phase| {
            let changed = *phase != next;
            *phase = next;
            changed
        });
    }

    /// Whether the asker is the one to keep it going.
    #[must_use]
    pub fn keep(&self) -> bool {
        !self.kept.swap(true, Ordering::Relaxed)
    }
}

// === impl Waiter ===

impl Waiter {
    /// The search that is waited for.
    #[must_use]
    pub fn load(&self) -> &Arc<Load> {
        &self.load
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut loads = self.loads.0.lock();
        let id = self.load.model.id();
        let Some(entry) = loads.get_mut(id).filter(|entry| Arc::ptr_eq(&entry.load, &self.load)) else { return };
        entry.waiters -= 1;
        let task = (entry.waiters == 0).then(|| loads.remove(id)).flatten().and_then(|entry| entry.task);
        drop(loads);
        if let Some(task) = task {
            task.abort();
        }
    }
}
