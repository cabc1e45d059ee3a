//! What this proxy believes of one agent, and what follows from it for the copies that the request threads see.
//!
//! Everything that the agent says passes through [`Peer::handle`] under one lock, so that a copy's READY and its DRAINING
//! are never stored out of order. Acknowledgements of drains are found here ([`Peer::acks`]) and sent by the watcher.

use std::{
    collections::HashMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use modelring_placement::{
    id::{BootId, ModelId, Seq},
    pod::CopyState,
    time::Time,
    view::{AgentView, SeenCopy, Status, ViewChange, ViewEvent},
    word::WordState,
};
use modelring_proto::v1;
use parking_lot::Mutex;
use tokio::{sync::mpsc, task::AbortHandle};
use tonic::transport::Channel;

use super::{Fleet, copy::Copy, host::Host};
use crate::table::Instance;

/// Commands that may wait for a watcher.
pub(super) const COMMANDS: usize = 64;

/// How much sooner than the agent a proxy ends the calls of a drain that is over its time.
const DRAIN_AHEAD: Duration = Duration::from_millis(500);

/// Asked of the task that watches an agent.
#[derive(Debug)]
pub(super) enum Command {
    /// Ping now.
    Ping,
    /// Say that the server denies a model.
    Missing(v1::Missing),
}

/// One listed instance.
pub struct Peer {
    /// As the table lists it.
    pub listed: Arc<Instance>,
    /// What the request threads know of it.
    pub host: Arc<Host>,
    pub(super) fleet: Weak<Fleet>,
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) channel: ArcSwapOption<Channel>,
    pub(super) task: Mutex<Option<AbortHandle>>,
    told: AtomicBool,
    state: Mutex<State>,
}

struct State {
    view: AgentView,
    copies: HashMap<ModelId, Arc<Copy>>,
    drains: HashMap<ModelId, Drain>,
    /// The instance left the table; what its task still hands over is not taken.
    retired: bool,
}

/// A drain that is not acknowledged yet.
struct Drain {
    copy: Arc<Copy>,
    seq: Seq,
    until: Time,
}

// === impl Peer ===

impl Peer {
    pub(super) fn new(listed: Arc<Instance>, fleet: &Arc<Fleet>) -> (Arc<Self>, mpsc::Receiver<Command>) {
        let (commands, asked) = mpsc::channel(COMMANDS);
        let host = Arc::new(Host::new(listed.id.clone(), fleet.clock.clone()));
        host.set_listed_leaving(listed.leaving);
        let view = AgentView::new(fleet.clock.now());
        let state = Mutex::new(State { view, copies: HashMap::new(), drains: HashMap::new(), retired: false });
        let fleet = Arc::downgrade(fleet);
        let (channel, task) = (ArcSwapOption::empty(), Mutex::default());
        (Arc::new(Self { listed, host, fleet, commands, channel, task, told: AtomicBool::new(false), state }), asked)
    }

    /// Takes in what happened on the stream. Returns use that has to be reported at once: of copies that drain to be
    /// evicted while calls are in flight.
    pub fn handle(&self, event: ViewEvent) -> Vec<v1::Touch> {
        let Some(fleet) = self.fleet.upgrade() else { return Vec::new() };
        let mut state = self.state.lock();
        if state.retired {
            return Vec::new();
        }
        let changes = state.view.handle(fleet.clock.now(), event);
        self.apply(&fleet, &mut state, changes)
    }

    /// `EnsureLoaded` said that the model is loaded.
    pub fn loaded(&self, boot: BootId, seq: Seq, model: &ModelId) {
        let Some(fleet) = self.fleet.upgrade() else { return };
        let mut state = self.state.lock();
        if state.retired {
            return;
        }
        let changes = state.view.loaded(fleet.clock.now(), boot, seq, model);
        self.apply(&fleet, &mut state, changes);
    }

    /// What its copy of a model is worth now.
    #[must_use]
    pub fn status(&self, now: Time, model: &ModelId) -> Status {
        self.state.lock().view.status(now, model)
    }

    /// Whether it has ever told its copies, to the end.
    #[must_use]
    pub fn has_told(&self) -> bool {
        self.told.load(Ordering::Acquire)
    }

    /// Says to the agent that its server denies a model.
    pub fn missing(&self, missing: v1::Missing) {
        // Where the watcher is so far behind, the next call that is denied tells it.
        let _ = self.commands.try_send(Command::Missing(missing));
    }

    /// The gRPC channel to the agent, while there is one.
    #[must_use]
    pub fn channel(&self) -> Option<Channel> {
        self.channel.load().as_deref().cloned()
    }

    /// Acknowledgements that are due: the drained copies that no call is on. A drain that is over its time loses its calls.
    #[must_use]
    pub fn acks(&self, now: Time) -> Vec<v1::DrainAck> {
        let mut state = self.state.lock();
        let due = state.drains.extract_if(|_, drain| drain.is_over(now));
        due.map(|(model, drain)| v1::DrainAck { model: model.to_string(), boot_id: drain.copy.boot, seq: drain.seq })
            .collect()
    }

    /// Use of its copies since the last time.
    #[must_use]
    pub fn touches(&self, now: Time) -> Vec<v1::Touch> {
        self.state.lock().copies.values().filter_map(|copy| copy.touch(now)).collect()
    }

    /// What the calls of its copies did since the last time.
    #[must_use]
    pub fn usage(&self) -> Vec<v1::CopyUsage> {
        self.state.lock().copies.values().filter_map(|copy| copy.usage()).collect()
    }

    /// So many proxies share the concurrency limits.
    pub(super) fn share_among(&self, proxies: u32) {
        self.state.lock().copies.values().for_each(|copy| copy.share_among(proxies));
    }

    /// The instance left the table, or is another one now: nothing of it may be used.
    pub fn retire(&self) {
        self.host.retire();
        if let Some(task) = self.task.lock().take() {
            task.abort();
        }
        self.channel.store(None);
        self.handle(ViewEvent::Refused);
        let Some(fleet) = self.fleet.upgrade() else { return };
        let mut state = self.state.lock();
        state.retired = true;
        state.drains.clear();
        for (_, copy) in state.copies.drain() {
            copy.store(WordState::Absent);
            fleet.index.remove(&copy);
        }
    }

    fn apply(&self, fleet: &Arc<Fleet>, state: &mut State, changes: Vec<ViewChange>) -> Vec<v1::Touch> {
        let mut urgent = Vec::new();
        for change in changes {
            match change {
                ViewChange::Copy(model, seen) => {
                    urgent.extend(self.copy_changed(fleet, state, &model, &seen));
                    fleet.loads.wake(&model);
                }
                ViewChange::Gone(model) => {
                    state.forget(fleet, &model);
                    fleet.loads.wake(&model);
                }
                ViewChange::Lease(until) => {
                    let had_run_out = self.host.set_lease(state.view.boot().unwrap_or_default(), until);
                    if had_run_out || until == Time::ZERO {
                        fleet.loads.wake_all();
                        // Calls that wait for their turn elsewhere may come here now; those that wait here may not.
                        state.copies.keys().for_each(|model| look_again(fleet, model));
                    }
                }
                ViewChange::Unknown => {
                    state.drains.clear();
                    for copy in state.copies.values() {
                        copy.store(WordState::Absent);
                    }
                    self.host.set_leaving(false);
                    fleet.loads.wake_all();
                }
                ViewChange::Known => {
                    self.told.store(true, Ordering::Release);
                    fleet.look_whether_ready();
                    fleet.loads.wake_all();
                }
                ViewChange::Leaving => self.host.set_leaving(true),
                ViewChange::LoadTook(model, took) => fleet.load_took(&model, took, &self.host),
            }
        }
        urgent
    }

    fn copy_changed(
        &self,
        fleet: &Arc<Fleet>,
        state: &mut State,
        model: &ModelId,
        seen: &SeenCopy,
    ) -> Option<v1::Touch> {
        match seen.state {
            CopyState::Ready { concurrency_limit, .. } => {
                let copy = self.copy(fleet, state, model, seen.boot);
                state.drains.remove(model);
                copy.ready(seen.seq, concurrency_limit, fleet.proxies());
                copy.store(WordState::Ready);
                fleet.loads.promise(model, || copy.promise());
                look_again(fleet, model);
                None
            }
            CopyState::Draining { evict, .. } => {
                let copy = self.copy(fleet, state, model, seen.boot);
                let in_flight = copy.store(WordState::Draining);
                let now = fleet.clock.now();
                let known = state.drains.get(model).filter(|drain| drain.seq == seen.seq).map(|drain| drain.until);
                let until = known.unwrap_or_else(|| now + fleet.drain_timeout().saturating_sub(DRAIN_AHEAD));
                state.drains.insert(model.clone(), Drain { copy: copy.clone(), seq: seen.seq, until });
                self.host.drained.notify_one();
                (evict && in_flight > 0).then(|| copy.touch(now)).flatten()
            }
            _ => {
                state.forget(fleet, model);
                None
            }
        }
    }

    /// The shared form of a copy: the one that there is, if it is of this boot.
    fn copy(&self, fleet: &Arc<Fleet>, state: &mut State, model: &ModelId, boot: BootId) -> Arc<Copy> {
        if let Some(copy) = state.copies.get(model).filter(|copy| copy.boot == boot) {
            return copy.clone();
        }
        state.forget(fleet, model);
        let copy = Arc::new(Copy::new(model.clone(), self.host.clone(), boot, fleet.per_copy));
        state.copies.insert(model.clone(), copy.clone());
        fleet.index.add(&copy);
        copy
    }
}

/// All who wait for their turn on a copy of this model look again.
fn look_again(fleet: &Fleet, model: &ModelId) {
    fleet.index.with(model.as_str(), |copies| copies.iter().for_each(|copy| copy.look_again()));
}

// === impl State ===

impl State {
    fn forget(&mut self, fleet: &Fleet, model: &ModelId) {
        self.drains.remove(model);
        if let Some(copy) = self.copies.remove(model) {
            copy.store(WordState::Absent);
            fleet.index.remove(&copy);
        }
    }
}

// === impl Drain ===

impl Drain {
    /// Whether it may be acknowledged. The state was stored before; a count of 0 seen now says that no call is left.
    fn is_over(&self, now: Time) -> bool {
        if self.copy.in_flight() == 0 {
            return true;
        }
        let overdue = now >= self.until;
        if overdue {
            self.copy.revoke();
            tracing::warn!(model = %self.copy.model, instance = %self.copy.host.id, "drain is over its time, calls are reset");
        }
        overdue
    }
}
