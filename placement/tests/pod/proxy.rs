//! A proxy over a network that delays, cuts and re-opens its stream.

use std::collections::{BTreeMap, VecDeque};

use modelring_placement::{
    id::{BootId, ModelId, Seq, WatcherId},
    pod::{CopyState, Event, Pod, Touch},
    time::Time,
    view::{AgentView, Status, ViewChange, ViewEvent},
};

pub(crate) struct Proxy {
    pub(crate) id: WatcherId,
    pub(crate) view: AgentView,
    /// Whether the agent writes to its stream.
    pub(crate) open: bool,
    /// Whether it believes to have a stream.
    dialled: bool,
    pings: u64,
    up: VecDeque<Up>,
    pub(crate) down: VecDeque<ViewEvent>,
    /// Answers of `EnsureLoaded` on their way.
    pub(crate) told: VecDeque<(BootId, Seq, ModelId)>,
    calls: BTreeMap<ModelId, u32>,
}

/// From the proxy to the agent.
#[derive(Clone, Debug)]
enum Up {
    Open,
    Ping(u64),
    Ack { model: ModelId, boot: BootId, seq: Seq },
    Touch { model: ModelId, in_flight: u32 },
}

impl Proxy {
    pub(crate) fn new(id: &str, now: Time) -> Self {
        Self {
            id: WatcherId::from(id),
            view: AgentView::new(now),
            open: false,
            dialled: false,
            pings: 0,
            up: VecDeque::new(),
            down: VecDeque::new(),
            told: VecDeque::new(),
            calls: BTreeMap::new(),
        }
    }

    pub(crate) fn believes(&self, now: Time, model: &ModelId) -> bool {
        self.view.status(now, model) == Status::Ready
    }

    /// Dials where it has no stream, and pings.
    pub(crate) fn ping(&mut self, now: Time) {
        if !self.dialled {
            self.dialled = true;
            self.up.push_back(Up::Open);
        }
        self.pings += 1;
        self.view.handle(now, ViewEvent::PingSent(self.pings));
        self.up.push_back(Up::Ping(self.pings));
    }

    /// The connection is cut; what was on its way is lost. The agent may notice later than the proxy, or earlier.
    pub(crate) fn cut(&mut self, now: Time) {
        self.open = false;
        self.dialled = false;
        self.up.clear();
        self.down.clear();
        self.view.handle(now, ViewEvent::Ended);
    }

    /// Begins a call, if the view has a copy; says which READY it believed in.
    pub(crate) fn call(&mut self, now: Time, model: &ModelId) -> Option<(BootId, Seq)> {
        if !self.believes(now, model) {
            return None;
        }
        *self.calls.entry(model.clone()).or_default() += 1;
        self.view.copy(model).map(|seen| (seen.boot, seen.seq))
    }

    pub(crate) fn end_call(&mut self, model: &ModelId) {
        if let Some(calls) = self.calls.get_mut(model).filter(|calls| **calls > 0) {
            *calls -= 1;
            self.acknowledge(model);
        }
    }

    /// Tells of the calls in flight.
    pub(crate) fn report(&mut self) {
        if self.dialled {
            let calls = self.calls.iter().filter(|(_, calls)| **calls > 0);
            self.up.extend(calls.map(|(model, calls)| Up::Touch { model: model.clone(), in_flight: *calls }));
        }
    }

    /// An answer of `EnsureLoaded` comes: the caller is counted in flight, then the copy is looked at.
    pub(crate) fn hear(&mut self, now: Time) -> Option<ModelId> {
        let (boot, seq, model) = self.told.pop_front()?;
        self.view.loaded(now, boot, seq, &model);
        Some(model)
    }

    /// Reads one event of the stream.
    pub(crate) fn read(&mut self, now: Time) -> bool {
        let Some(event) = self.down.pop_front() else { return false };
        let whole = matches!(event, ViewEvent::SnapshotEnd { .. });
        for change in self.view.handle(now, event) {
            if let ViewChange::Copy(model, seen) = change
                && let CopyState::Draining { evict, .. } = seen.state
            {
                let in_flight = self.calls.get(&model).copied().unwrap_or(0);
                if evict && in_flight > 0 {
                    self.up.push_back(Up::Touch { model: model.clone(), in_flight });
                }
                self.acknowledge(&model);
            }
        }
        if whole {
            let models: Vec<_> = self.view.copies().map(|(model, _)| model.clone()).collect();
            models.iter().for_each(|model| self.acknowledge(model));
        }
        true
    }

    fn acknowledge(&mut self, model: &ModelId) {
        let Some(seen) = self.view.copy(model) else { return };
        let idle = self.calls.get(model).is_none_or(|calls| *calls == 0);
        if self.dialled && idle && matches!(seen.state, CopyState::Draining { .. }) {
            self.up.push_back(Up::Ack { model: model.clone(), boot: seen.boot, seq: seen.seq });
        }
    }

    /// One message reaches the agent: what the pod is to hear. The answer of a ping goes out when `pong` is called.
    pub(crate) fn deliver(&mut self, now: Time, pod: &Pod) -> Option<Delivered> {
        let up = self.up.pop_front()?;
        let watcher = self.id.clone();
        Some(match up {
            Up::Open => {
                self.open = true;
                self.down.push_back(ViewEvent::Hello { boot: pod.boot() });
                let copies = pod.copies();
                self.down.extend(copies.map(|c| ViewEvent::Copy { seq: c.seq, model: c.model, state: c.state }));
                self.down.push_back(ViewEvent::SnapshotEnd { seq: pod.last_seq() });
                Delivered::Nothing
            }
            Up::Ping(n) => Delivered::Ping(Event::Ping(watcher), n),
            Up::Ack { model, boot, seq } => Delivered::Event(Event::DrainAck { watcher, model, boot, seq }),
            Up::Touch { model, in_flight } => {
                let touches = vec![Touch { model, last_used: now, count: 1, in_flight }];
                Delivered::Event(Event::Touches { watcher, touches })
            }
        })
    }

    pub(crate) fn wants_to_open(&self) -> bool {
        matches!(self.up.front(), Some(Up::Open))
    }
}

pub(crate) enum Delivered {
    Nothing,
    Ping(Event, u64),
    Event(Event),
}
