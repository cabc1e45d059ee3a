//! The view of one agent.

use std::{collections::HashMap, time::Duration};

use super::{SeenCopy, Status, ViewChange, ViewEvent, lease::Lease};
use crate::{
    id::{BootId, ModelId, Seq},
    pod::CopyState,
    rules::never_unready,
    time::Time,
};

/// How long an agent that is being dialled, or whose snapshot is on the way, is worth waiting for.
const PATIENCE: Duration = Duration::from_secs(2);

/// What one watcher believes of one agent. It outlives streams; one task hands it the events in the order in which they
/// came. Events that the protocol does not allow (a copy before `Hello`, an unknown pong) change nothing.
#[derive(Debug)]
pub struct AgentView {
    copies: HashMap<ModelId, Held>,
    /// Boot of the last `Hello`.
    boot: Option<BootId>,
    stream: Stream,
    /// Counts the `Hello`s, to tell the copies of a snapshot from those before it.
    snapshot: u64,
    /// Highest seq received on a stream of this boot. What `loaded` told does not count: it says nothing of other copies.
    highest: Seq,
    lease: Lease,
    /// Until when an unknown agent is waited for.
    patience: Time,
    leaving: bool,
}

#[derive(Debug)]
struct Held {
    seen: SeenCopy,
    /// The snapshot that the stream last showed it in or after; what only `loaded` told was in none.
    snapshot: u64,
    /// Whether the watcher saw it enter its state, rather than found it so in a snapshot.
    watched: bool,
}

/// How far the stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stream {
    /// None yet, or none since the connection was refused.
    None,
    /// `Hello` came, the snapshot is not whole.
    Snapshot,
    /// The snapshot is whole, no ping was answered after it.
    Whole,
    /// The snapshot is whole and a ping was answered after it.
    Live,
    /// It ended after its snapshot was whole; what it said counts until the lease is over.
    Ended,
}

// === impl AgentView ===

impl AgentView {
    /// Nothing known of an agent that is dialled now for the first time.
    #[must_use]
    pub fn new(now: Time) -> Self {
        Self {
            copies: HashMap::new(),
            boot: None,
            stream: Stream::None,
            snapshot: 0,
            highest: 0,
            lease: Lease::default(),
            patience: now + PATIENCE,
            leaving: false,
        }
    }

    /// Takes an event in and says what it changed, in order.
    pub fn handle(&mut self, now: Time, event: ViewEvent) -> Vec<ViewChange> {
        match event {
            ViewEvent::PingSent(n) => {
                self.lease.ping_sent(now, n);
                Vec::new()
            }
            ViewEvent::Hello { boot } => self.hello(now, boot),
            ViewEvent::Copy { seq, model, state } => self.copy_changed(now, seq, model, state),
            ViewEvent::SnapshotEnd { seq } => self.snapshot_end(seq),
            ViewEvent::Pong(n) => self.pong(n),
            ViewEvent::Ended => self.ended(),
            ViewEvent::Refused => self.refused(),
            ViewEvent::Leaving => self.leave(),
        }
    }

    /// `EnsureLoaded` answered `loaded`. The copy becomes READY only if `boot` is the current one and `seq` is higher than any
    /// received from this agent; otherwise (no change, an empty list) the view is already newer and the waiter looks at it. Size and
    /// concurrency limit are 0 until the stream tells them. Count the waiters in flight before this is called.
    pub fn loaded(&mut self, now: Time, boot: BootId, seq: Seq, model: &ModelId) -> Vec<ViewChange> {
        let told = self.copies.get(model).is_some_and(|held| held.seen.boot == boot && held.seen.seq >= seq);
        if self.stream == Stream::None || self.boot != Some(boot) || seq <= self.highest || told {
            return Vec::new();
        }
        let shown = self.copies.get(model).filter(|held| held.seen.boot == boot).map_or(0, |held| held.snapshot);
        self.enter(now, seq, model.clone(), CopyState::Ready { bytes: 0, concurrency_limit: 0 }, shown)
    }

    /// Until when READY copies may be used; [`Time::ZERO`] = no lease.
    #[must_use]
    pub fn lease_until(&self) -> Time {
        self.lease.until()
    }

    /// Boot of the last `Hello`.
    #[must_use]
    pub fn boot(&self) -> Option<BootId> {
        self.boot
    }

    /// Whether the copies are known: a snapshot was whole, and no newer `Hello` has come.
    #[must_use]
    pub fn known(&self) -> bool {
        matches!(self.stream, Stream::Whole | Stream::Live | Stream::Ended)
    }

    /// Whether the agent said that it is going away.
    #[must_use]
    pub fn leaving(&self) -> bool {
        self.leaving
    }

    /// Whether a ping that was sent at or after `time` was answered in this boot: proves that an address which was connected
    /// at `time` is still this instance's.
    #[must_use]
    pub fn answered_since(&self, time: Time) -> bool {
        self.lease.answered().is_some_and(|sent| sent >= time)
    }

    /// The copies as last seen. Nothing is said about whether they may be used.
    pub fn copies(&self) -> impl Iterator<Item = (&ModelId, &SeenCopy)> {
        self.copies.iter().map(|(model, held)| (model, &held.seen))
    }

    /// A copy as last seen.
    #[must_use]
    pub fn copy(&self, model: &ModelId) -> Option<&SeenCopy> {
        self.copies.get(model).map(|held| &held.seen)
    }

    /// What the copy is worth at this moment.
    #[must_use]
    pub fn status(&self, now: Time, model: &ModelId) -> Status {
        if now >= self.lease.until() || !self.known() {
            let settled = matches!(self.stream, Stream::Live | Stream::Ended);
            return if settled || now >= self.patience {
                Status::NoLease
            } else {
                Status::Unknown { until: self.patience }
            };
        }
        let Some(SeenCopy { state, since, .. }) = self.copy(model) else { return Status::Absent };
        let since = *since;
        let status = match state {
            CopyState::Queued => Status::Queued { since },
            CopyState::Loading { .. } => Status::Loading { since },
            CopyState::Ready { .. } => Status::Ready,
            CopyState::Draining { .. } => Status::Draining,
            CopyState::Failed { error, until } if now < *until => {
                Status::Failed { since, until: *until, error: error.clone() }
            }
            CopyState::Failed { .. } | CopyState::Gone => Status::Absent,
        };
        debug_assert!(
            status != Status::Ready || never_unready::may_send(Some(state), self.known(), self.lease.until(), now)
        );
        status
    }

    fn hello(&mut self, now: Time, boot: BootId) -> Vec<ViewChange> {
        if !matches!(self.stream, Stream::None | Stream::Ended) {
            // A stream that began without the end of the one before: its pings are not ours.
            self.lease.forget_pings();
        }
        if self.boot != Some(boot) {
            self.boot = Some(boot);
            self.highest = 0;
            self.lease.new_boot();
        }
        self.stream = Stream::Snapshot;
        self.snapshot += 1;
        self.leaving = false;
        self.patience = now + PATIENCE;
        let mut changes = self.end_lease();
        changes.push(ViewChange::Unknown);
        changes
    }

    fn copy_changed(&mut self, now: Time, seq: Seq, model: ModelId, state: CopyState) -> Vec<ViewChange> {
        if !self.streaming() {
            return Vec::new();
        }
        self.highest = self.highest.max(seq);
        self.enter(now, seq, model, state, self.snapshot)
    }

    /// A copy has a state, unless the view has a newer one of this boot (`loaded` was faster than the stream).
    fn enter(&mut self, now: Time, seq: Seq, model: ModelId, state: CopyState, shown: u64) -> Vec<ViewChange> {
        let Some(boot) = self.boot else { return Vec::new() };
        let before = self.copies.get_mut(&model).filter(|held| held.seen.boot == boot);
        if let Some(newer) = before.filter(|held| held.seen.seq > seq) {
            newer.snapshot = shown;
            return Vec::new();
        }
        if state == CopyState::Gone {
            return self.copies.remove(&model).map(|_| ViewChange::Gone(model)).into_iter().collect();
        }
        let before = self.copies.get(&model).filter(|held| held.seen.boot == boot);
        let same = before.filter(|held| std::mem::discriminant(&held.seen.state) == std::mem::discriminant(&state));
        let loading = before.filter(|held| held.watched && matches!(held.seen.state, CopyState::Loading { .. }));
        let took = loading.filter(|_| matches!(state, CopyState::Ready { .. })).map(|held| now.since(held.seen.since));
        let since = same.map_or(now, |held| held.seen.since);
        let watched = same.map_or(self.stream != Stream::Snapshot, |held| held.watched);

        let seen = SeenCopy { boot, seq, state, since };
        let mut changes = vec![ViewChange::Copy(model.clone(), seen.clone())];
        changes.extend(took.map(|took| ViewChange::LoadTook(model.clone(), took)));
        self.copies.insert(model, Held { seen, snapshot: shown, watched });
        changes
    }

    fn snapshot_end(&mut self, seq: Seq) -> Vec<ViewChange> {
        if self.stream != Stream::Snapshot {
            return Vec::new();
        }
        self.stream = Stream::Whole;
        self.highest = self.highest.max(seq);
        let (boot, snapshot) = (self.boot, self.snapshot);
        // What `loaded` told after the snapshot was taken is newer than its absence.
        let stays = |held: &Held| held.snapshot == snapshot || Some(held.seen.boot) == boot && held.seen.seq > seq;
        let gone = self.copies.extract_if(|_, held| !stays(held));
        let mut changes: Vec<ViewChange> = gone.map(|(model, _)| ViewChange::Gone(model)).collect();
        changes.push(ViewChange::Known);
        changes
    }

    fn pong(&mut self, n: u64) -> Vec<ViewChange> {
        let Some(sent) = self.lease.pong(n) else { return Vec::new() };
        if !matches!(self.stream, Stream::Whole | Stream::Live) {
            return Vec::new();
        }
        self.stream = Stream::Live;
        self.lease.grant(sent).map(ViewChange::Lease).into_iter().collect()
    }

    fn ended(&mut self) -> Vec<ViewChange> {
        self.lease.forget_pings();
        // A stream that ended before its snapshot was whole leaves the copies unknown.
        self.stream = if self.known() { Stream::Ended } else { Stream::None };
        Vec::new()
    }

    fn refused(&mut self) -> Vec<ViewChange> {
        self.lease.forget_pings();
        self.stream = Stream::None;
        self.patience = Time::ZERO;
        self.end_lease()
    }

    fn leave(&mut self) -> Vec<ViewChange> {
        let news = self.streaming() && !self.leaving;
        self.leaving |= news;
        news.then_some(ViewChange::Leaving).into_iter().collect()
    }

    fn streaming(&self) -> bool {
        matches!(self.stream, Stream::Snapshot | Stream::Whole | Stream::Live)
    }

    fn end_lease(&mut self) -> Vec<ViewChange> {
        self.lease.end().then_some(ViewChange::Lease(Time::ZERO)).into_iter().collect()
    }
}
