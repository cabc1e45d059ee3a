//! A proxy's view against an agent that follows the contract (sections 4 to 6), over a network that delays, cuts and
//! re-opens streams: the view never shows READY under a live lease what the agent has unloaded.

use std::{collections::VecDeque, time::Duration};

use modelring_placement::{
    id::ModelId,
    pod::CopyState,
    time::Time,
    view::{AgentView, Status, ViewEvent},
};
use proptest::prelude::*;

const UNACKNOWLEDGED: Duration = Duration::from_secs(3);

/// From the proxy to the agent.
enum Up {
    Open,
    Ping(u64),
    Ack { boot: u64, seq: u64 },
}

/// One copy on one agent, watched by one proxy.
struct World {
    now: Time,
    view: AgentView,
    dialled: bool,
    pings: u64,
    up: VecDeque<Up>,
    down: VecDeque<ViewEvent>,
    /// Answers of `EnsureLoaded` on their way: boot and seq.
    loaded: Vec<(u64, u64)>,
    /// Whether the model server holds the model.
    holds: bool,
    boot: u64,
    started: Time,
    /// Whether the agent has a stream to write to.
    open: bool,
    /// Whether this boot has purged what the one before left.
    purged: bool,
    state: Option<CopyState>,
    seq: u64,
    /// Seq of the last change of the copy.
    changed: u64,
    last_ping: Time,
    acknowledged: bool,
}

impl World {
    fn new() -> Self {
        Self {
            now: Time::ZERO,
            view: AgentView::new(Time::ZERO),
            dialled: false,
            pings: 0,
            up: VecDeque::new(),
            down: VecDeque::new(),
            loaded: Vec::new(),
            holds: false,
            boot: 1,
            started: Time::ZERO,
            open: false,
            purged: true,
            state: None,
            seq: 0,
            changed: 0,
            last_ping: Time::ZERO,
            acknowledged: false,
        }
    }

    fn change(&mut self, state: CopyState) {
        self.seq += 1;
        self.changed = self.seq;
        if self.open {
            self.down.push_back(ViewEvent::Copy { seq: self.seq, model: model(), state: state.clone() });
        }
        self.state = (state != CopyState::Gone).then_some(state);
    }

    fn agent_reads(&mut self) {
        match self.up.pop_front() {
            Some(Up::Open) => {
                self.open = true;
                self.down.push_back(ViewEvent::Hello { boot: self.boot });
                if let Some(state) = self.state.clone() {
                    self.down.push_back(ViewEvent::Copy { seq: self.changed, model: model(), state });
                }
                self.down.push_back(ViewEvent::SnapshotEnd { seq: self.seq });
            }
            Some(Up::Ping(n)) if self.open => {
                self.last_ping = self.now;
                self.down.push_back(ViewEvent::Pong(n));
            }
            Some(Up::Ack { boot, seq }) if boot == self.boot && seq == self.changed => {
                self.acknowledged |= matches!(self.state, Some(CopyState::Draining { .. }));
            }
            _ => {}
        }
    }

    fn agent_may_unload(&self) -> bool {
        self.acknowledged || self.now >= self.last_ping.max(self.started) + UNACKNOWLEDGED
    }

    /// One of the things that may happen next.
    fn step(&mut self, what: u8, which: usize) {
        let draining = CopyState::Draining { bytes: 1, evict: true };
        match what {
            0..=5 => self.now = self.now + Duration::from_millis(20 * which as u64),
            6..=9 if self.dialled => {
                self.pings += 1;
                self.view.handle(self.now, ViewEvent::PingSent(self.pings));
                self.up.push_back(Up::Ping(self.pings));
            }
            10..=17 => self.agent_reads(),
            18..=25 => {
                if let Some(event) = self.down.pop_front() {
                    self.view.handle(self.now, event);
                }
            }
            26 => {
                // The proxy notices that its stream has ended.
                self.dialled = false;
                self.open = false;
                self.up.clear();
                self.down.clear();
                self.view.handle(self.now, ViewEvent::Ended);
            }
            27 | 28 if !self.dialled => {
                self.dialled = true;
                self.up.push_back(Up::Open);
            }
            29 | 30 if self.purged && self.state.is_none() => {
                self.holds = true;
                self.change(CopyState::Ready { bytes: 1, concurrency_limit: 0 });
                self.loaded.push((self.boot, self.seq));
            }
            31 | 32 if matches!(self.state, Some(CopyState::Ready { .. })) => {
                self.acknowledged = false;
                self.change(draining);
            }
            33 if self.state == Some(draining) => {
                self.change(CopyState::Ready { bytes: 1, concurrency_limit: 0 });
                self.loaded.push((self.boot, self.seq));
            }
            34..=36 if matches!(self.state, Some(CopyState::Draining { .. })) && self.agent_may_unload() => {
                self.holds = false;
                self.change(CopyState::Gone);
            }
            37 => {
                // The agent is killed and back: its end of the stream is gone, the proxy may still read what was sent.
                self.boot += 1;
                self.started = self.now;
                self.open = false;
                self.purged = false;
                self.state = None;
                self.seq = 0;
                self.changed = 0;
                self.acknowledged = false;
                self.up.clear();
            }
            38 if !self.purged && self.now >= self.started + UNACKNOWLEDGED => {
                self.holds = false;
                self.purged = true;
            }
            39 | 40 if !self.loaded.is_empty() => {
                let (boot, seq) = self.loaded.remove(which % self.loaded.len());
                self.view.loaded(self.now, boot, seq, &model());
            }
            41 | 42 => {
                let copy = self.view.copy(&model());
                if let Some(copy) = copy.filter(|copy| self.dialled && matches!(copy.state, CopyState::Draining { .. }))
                {
                    self.up.push_back(Up::Ack { boot: copy.boot, seq: copy.seq });
                }
            }
            _ => {}
        }
    }
}

fn model() -> ModelId {
    ModelId::from("mnist__isvc-0123456789")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    #[test]
    fn a_proxy_never_believes_in_a_copy_that_was_unloaded_behind_its_back(
        steps in prop::collection::vec((0u8..43, 0usize..40), 0..400),
    ) {
        let mut world = World::new();
        for (what, which) in steps {
            world.step(what, which);
            let usable = world.view.status(world.now, &model()) == Status::Ready;
            prop_assert!(!usable || world.holds, "usable to the proxy, unloaded by the agent at {}", world.now);
        }
    }
}

#[test]
fn a_quiet_network_lets_the_proxy_use_the_copy() {
    let mut world = World::new();
    for what in [29, 27, 10, 18, 18, 18, 6, 10, 18] {
        world.step(what, 1);
    }
    assert_eq!(world.view.status(world.now, &model()), Status::Ready);
    for what in [31, 18, 41, 10, 34] {
        world.step(what, 1);
    }
    assert!(!world.holds, "an acknowledged drain is unloaded at once");
}
