//! The decisions of one agent: which load runs, what is evicted for it, when a draining copy may be unloaded.
//!
//! [`Pod`] is a state machine: the agent turns whatever happens into [`Event`]s, hands them to [`Pod::handle`] with the
//! time, and carries out the [`Action`]s that come back. It owns the [`Ledger`], the load queue, the drains, the leases
//! that watchers hold and the memory of failures.
//!
//! A copy lives so (spec of the contract: sections 5 and 6):
//!
//! ```text
//!  ask ─▶ QUEUED ─▶ LOADING (pull, load) ─▶ READY ─▶ DRAINING ─▶ (unload) ─▶ GONE
//!            │            │                   ▲          │
//!            └─ refused   └─▶ FAILED          └──────────┘ called off
//! ```
//!
//! | file | decides |
//! |---|---|
//! | `ask` | whether an ask is answered, joins, queues or is refused |
//! | `queue` | whose turn it is |
//! | `admit` | when the first of the queue gets its place |
//! | `room` | what may go for it |
//! | `refusal` | why it gets none, and when to ask again |
//! | `load` | what follows from the answers of storage and server |
//! | `expire` | what follows from their silence, and what no longer counts |
//! | `drain` | when a draining copy is unloaded, and what calls that off |
//! | `overrun` | what goes when a model turned out larger than its reservation |
//! | `usage` | what use, hints and reports of proxies change |
//! | `server` | what follows from the start and end of the model server and of the instance |
//! | `known` | nothing: what models were last found to need |
//! | `look` | nothing: what metrics may see |
//! | `wake` | when time alone changes something |

mod admit;
mod ask;
mod drain;
mod entry;
mod event;
mod expire;
mod failure;
mod known;
mod lease;
mod load;
mod look;
mod overrun;
mod queue;
mod refusal;
mod room;
mod server;
mod text;
mod usage;
mod verify;
mod wake;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use entry::{Entry, Held, Stage};
pub use event::*;
pub use look::{Census, DrainCause};

use crate::{
    id::{BootId, ModelId, ModelRef, Seq},
    ledger::Ledger,
    loadtime::LoadTimes,
    rules::unload::LEASE,
    time::Time,
};

/// A pod serves on while a copy was used within this long and is not ready elsewhere (ModelMesh's rule).
const HOT: Duration = Duration::from_secs(60 * 60);
/// A load hangs when the server has not answered this many load timeouts after it was sent.
const HUNG_AFTER: u32 = 4;

/// The decisions of one agent, from its start to its end.
#[derive(Debug)]
pub struct Pod {
    boot: BootId,
    settings: Settings,
    started: Time,
    seq: Seq,
    /// Tries to load, so far.
    attempts: Attempt,
    server: Option<Server>,
    /// The newest life of the server that was heard of.
    life: Option<ServerLife>,
    leaving: bool,
    ledger: Ledger,
    entries: BTreeMap<ModelId, Entry>,
    waiters: BTreeMap<WaiterId, ModelId>,
    /// Waiters that were not told yet that they are accepted: their model is being sized.
    unaccepted: BTreeMap<ModelId, BTreeSet<WaiterId>>,
    queue: queue::Queue,
    leases: lease::Leases,
    failures: failure::Failures,
    known: known::Known,
    load_times: LoadTimes,
    hints: usage::Weights,
    /// Worth of the last copy that was evicted.
    clock: f64,
    wake: Option<Time>,
    out: Vec<Action>,
}

#[derive(Debug)]
struct Server {
    life: ServerLife,
    limits: ServerLimits,
}

// === impl Pod ===

impl Pod {
    /// A pod whose agent has just started.
    #[must_use]
    pub fn new(boot: BootId, settings: Settings, now: Time) -> Self {
        let settings = Settings { drain_timeout: settings.drain_timeout.max(LEASE), ..settings };
        Self {
            leases: lease::Leases::new(settings.started_before.then_some(now)),
            boot,
            settings,
            started: now,
            seq: 0,
            attempts: 0,
            server: None,
            life: None,
            leaving: false,
            ledger: Ledger::default(),
            entries: BTreeMap::new(),
            waiters: BTreeMap::new(),
            unaccepted: BTreeMap::new(),
            queue: queue::Queue::default(),
            failures: failure::Failures::default(),
            known: known::Known::default(),
            load_times: LoadTimes::default(),
            hints: usage::Weights::default(),
            clock: 0.0,
            wake: None,
            out: Vec::new(),
        }
    }

    /// Takes what happened and says what is to be done, in order.
    pub fn handle(&mut self, now: Time, event: Event) -> Vec<Action> {
        match event {
            Event::Ask { waiter, model, why, replaces } => self.ask(now, waiter, model, why, replaces),
            Event::WaiterGone(waiter) => self.waiter_gone(now, waiter),
            Event::Ping(watcher) => {
                self.leases.ping(watcher, now);
                if self.wake.is_none_or(|at| at > now) {
                    // By far the most frequent event, and it only puts off what drains wait for.
                    return Vec::new();
                }
            }
            Event::Touches { touches, .. } => self.touches(now, &touches),
            Event::Missing { model, boot, seq } => self.missing(&model, boot, seq),
            Event::DrainAck { watcher, model, boot, seq } => self.drain_ack(watcher, &model, boot, seq),
            Event::Hints(hints) => self.hints.replace(now, hints),
            Event::Sized(model, attempt, result) => self.sized(now, &model, attempt, result),
            Event::Pulled(model, attempt, result) => self.pulled(now, &model, attempt, result),
            Event::Loaded(model, attempt, result) => self.loaded(now, &model, attempt, result),
            Event::Unloaded(model, attempt) => self.unloaded(now, &model, attempt),
            Event::ServerReady(life, limits) => self.server_is_ready(life, limits),
            Event::ServerGone(life) => self.server_is_gone(life),
            Event::SecretChanged => self.secret_changed(),
            Event::Leave => self.leave(),
            Event::Tick => {}
        }
        self.advance(now);
        debug_assert_eq!(self.verify(), Ok(()), "{self:#?}");
        std::mem::take(&mut self.out)
    }

    /// When to send [`Event::Tick`] at the latest; later events may bring it forward or put it off.
    #[must_use]
    pub fn next_wake(&self) -> Option<Time> {
        self.wake
    }

    /// The account of the pod's memory. While a model needs more than was reserved for it, loaded + reserved + unloading
    /// exceeds the capacity by the overrun.
    #[must_use]
    pub fn ledger(&self, now: Time) -> LedgerState {
        let (ledger, next) = (&self.ledger, self.candidates(now, None).into_iter().next());
        LedgerState {
            capacity: ledger.capacity(),
            loaded: ledger.loaded(),
            reserved: ledger.reserved(),
            unloading: ledger.unloading(),
            overrun: ledger.overrun(),
            queue: self.queue.len(),
            hung: self.entries.values().filter(|entry| self.is_hung(&entry.held, now)).count(),
            next_victim_age: next.map(|candidate| now.since(candidate.last_used)),
        }
    }

    /// The last seq given to a change of a copy.
    #[must_use]
    pub fn last_seq(&self) -> Seq {
        self.seq
    }

    /// Number of this start of the agent.
    #[must_use]
    pub fn boot(&self) -> BootId {
        self.boot
    }

    /// Every copy that is not gone, each with the seq of its last change: the snapshot of a new watch stream.
    pub fn copies(&self) -> impl Iterator<Item = Change> + '_ {
        self.entries.iter().filter_map(|(model, entry)| {
            entry.shown.as_ref().map(|(seq, state)| Change { seq: *seq, model: model.clone(), state: state.clone() })
        })
    }

    /// Whether the handshake with a model server is done and that server is there.
    #[must_use]
    pub fn server_ready(&self) -> bool {
        self.server.is_some()
    }

    /// From when on the agent may begin the handshake, which purges what the server holds: 3 s after the agent's start
    /// (proxies may still believe in copies of an earlier start), at once where there was none.
    #[must_use]
    pub fn may_purge_at(&self) -> Time {
        if self.settings.started_before { self.started + LEASE } else { self.started }
    }

    /// The copies that keep a leaving pod here: used within the last hour and not yet known to be ready elsewhere.
    pub fn needed(&self, now: Time) -> impl Iterator<Item = &ModelId> + '_ {
        self.entries.iter().filter(move |(_, entry)| entry.is_needed(now)).map(|(model, _)| model)
    }

    /// Whether a leaving pod may end: no copy is needed here any more.
    #[must_use]
    pub fn is_idle(&self, now: Time) -> bool {
        self.needed(now).next().is_none()
    }

    /// Everything that follows from the new state and the time.
    fn advance(&mut self, now: Time) {
        if self.wake.is_some_and(|at| at <= now) {
            self.expire(now);
        }
        self.call_off_by_hints(now);
        self.drain_gone(now);
        self.relieve_overrun(now);
        self.forgive_what_outgrew(now);
        self.admit(now);
        self.call_off_what_nobody_needs(now);
        self.drain_for_leaving(now);
        self.finish_drains(now);
        self.accept_what_is_sized(now);
        self.entries.retain(|_, entry| !entry.is_empty());
        self.wake = self.next_change(now);
    }

    /// Tells all watchers.
    fn show(&mut self, model: &ModelId, state: CopyState) -> Seq {
        self.seq += 1;
        let shown = (state != CopyState::Gone).then(|| (self.seq, state.clone()));
        self.entries.entry(model.clone()).or_default().shown = shown;
        self.out.push(Action::Emit(Change { seq: self.seq, model: model.clone(), state }));
        self.seq
    }

    /// Tells all watchers that a copy is no more, if they know of one.
    fn hide(&mut self, model: &ModelId) {
        if self.entries.get(model).is_some_and(|entry| entry.shown.is_some()) {
            self.show(model, CopyState::Gone);
        }
    }

    fn tell(&mut self, waiter: WaiterId, told: Told) {
        if !matches!(told, Told::Accepted { .. }) {
            self.waiters.remove(&waiter);
        }
        self.out.push(Action::Tell(waiter, told));
    }

    /// Ends the want of a model: takes it out of the queue and tells its waiters.
    fn end_want(&mut self, model: &ModelId, told: &Told) {
        let Some(want) = self.entries.get_mut(model).and_then(|entry| entry.want.take()) else { return };
        self.queue.remove(want.why, want.order);
        self.unaccepted.remove(model);
        if let entry::Sizing::Asked(attempt, _) = want.size {
            self.out.push(Action::CancelPull(model.clone(), attempt));
        }
        for waiter in want.waiters.into_keys() {
            self.tell(waiter, told.clone());
        }
    }

    fn default_load_timeout(&self) -> Duration {
        self.server.as_ref().map_or(Duration::from_secs(90), |server| server.limits.load_timeout)
    }

    fn load_timeout(&self, model: &ModelRef) -> Duration {
        model.load_timeout.unwrap_or_else(|| self.default_load_timeout()).max(Duration::from_secs(1))
    }

    /// A copy used within this long is young.
    fn churn_age(&self, model: &ModelRef) -> Duration {
        self.settings.min_churn_age.unwrap_or_else(|| {
            let learned = self.load_times.estimate(&model.model_type, self.default_load_timeout());
            learned.saturating_mul(10).max(Duration::from_secs(1))
        })
    }

    fn is_hung(&self, held: &Held, now: Time) -> bool {
        match held {
            Held::Loading(load) if matches!(load.stage, Stage::Sent(_)) => {
                load.since + self.load_timeout(&load.model) * HUNG_AFTER <= now
            }
            _ => false,
        }
    }
}
