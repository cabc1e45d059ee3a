//! A copy as the threads of a proxy share it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use modelring_placement::{
    choice::{Candidate, SharedLatency, Standing},
    id::{BootId, ModelId, Seq},
    time::Time,
    word::{CopyWord, Entered, Left, WordState},
};
use modelring_proto::v1;
use tokio::sync::{Notify, futures::Notified};
use tokio_util::sync::CancellationToken;

use super::{host::Host, per_copy::PerCopy};

/// A model that is ready, or was, on one instance and in one boot of its agent.
pub struct Copy {
    /// The model.
    pub model: ModelId,
    /// Where it is.
    pub host: Arc<Host>,
    /// Boot of the agent that said so.
    pub boot: BootId,
    per_copy: PerCopy,
    /// Most calls of this proxy at once; 0 = no limit.
    share: AtomicU32,
    /// Most calls of this proxy that wait for their turn.
    line: AtomicU32,
    limit: AtomicU32,
    word: CopyWord,
    latency: SharedLatency,
    ready_seq: AtomicU64,
    /// Seq of the READY that the server was last said to deny, plus one.
    denied: AtomicU64,
    /// When it was.
    denied_at: AtomicU64,
    /// Calls that wait for one to end.
    queued: AtomicU32,
    freed: Notify,
    changed: Notify,
    was_saturated: AtomicBool,
    last_used: AtomicU64,
    touched: AtomicU64,
    finished: AtomicU64,
    /// Time in flight since the last report, of calls that have ended.
    busy_micros: AtomicU64,
    /// When use was last reported.
    reported: AtomicU64,
    /// Calls that began since then, and those of them that have ended.
    began: AtomicU64,
    ended: AtomicU64,
    /// Calls that were promised a place before the copy became ready (see [`Promise`]).
    promised: AtomicU32,
    revoked: ArcSwap<CancellationToken>,
}

/// One call in flight on a copy; dropped when it is over.
pub struct InFlight {
    copy: Arc<Copy>,
    since: Time,
    revoked: Arc<CancellationToken>,
}

/// Keeps a copy that has just become ready in flight until those who waited for it have had their chance: else it could be
/// drained under their hands.
pub(super) struct Promise(Arc<Copy>);

/// Whether a call got into a copy.
pub enum Entry {
    /// It is in.
    In(InFlight),
    /// The copy is not ready any more: choose again.
    NotReady,
    /// As many as may run run already; wait in line ([`Copy::queue`]).
    Full,
    /// As many as may wait wait already.
    Overload,
}

/// Whether it is news that the server denies a copy's model.
pub enum Denial {
    /// It is, since this READY: the agent is to be told.
    News(v1::Missing),
    /// The agent was told so long ago.
    Since(Duration),
}

/// A call that waits for its turn on a copy.
pub struct Queued(Arc<Copy>);

// === impl Copy ===

impl Copy {
    pub(super) fn new(model: ModelId, host: Arc<Host>, boot: BootId, per_copy: PerCopy) -> Self {
        let now = host.clock.now().as_nanos();
        Self {
            model,
            host,
            boot,
            per_copy,
            share: AtomicU32::new(0),
            line: AtomicU32::new(0),
            limit: AtomicU32::new(0),
            word: CopyWord::new(WordState::Absent),
            latency: SharedLatency::default(),
            ready_seq: AtomicU64::new(0),
            denied: AtomicU64::new(0),
            denied_at: AtomicU64::new(0),
            queued: AtomicU32::new(0),
            freed: Notify::new(),
            changed: Notify::new(),
            was_saturated: AtomicBool::new(false),
            last_used: AtomicU64::new(0),
            touched: AtomicU64::new(0),
            finished: AtomicU64::new(0),
            busy_micros: AtomicU64::new(0),
            reported: AtomicU64::new(now),
            began: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            promised: AtomicU32::new(0),
            revoked: ArcSwap::default(),
        }
    }

    /// Lets a call in. `in_line`: it has waited for its turn; others do not overtake those who wait.
    pub fn enter(self: &Arc<Self>, now: Time, in_line: bool) -> Entry {
        let Entered::Ready { in_flight } = self.entered() else { return Entry::NotReady };
        // Read after the word, which shows what was told before READY.
        let share = self.share.load(Ordering::Relaxed);
        let overtakes = || !in_line && self.queued.load(Ordering::Relaxed) > 0;
        if share > 0 && (in_flight > share + self.promised.load(Ordering::Relaxed) || overtakes()) {
            self.take_back(share);
            self.was_saturated.store(true, Ordering::Relaxed);
            let overload = self.queued.load(Ordering::Relaxed) >= self.line.load(Ordering::Relaxed);
            return if overload { Entry::Overload } else { Entry::Full };
        }
        self.last_used.store(now.as_nanos(), Ordering::Relaxed);
        self.touched.fetch_add(1, Ordering::Relaxed);
        self.began.fetch_add(1, Ordering::Relaxed);
        Entry::In(InFlight { copy: self.clone(), since: now, revoked: self.revoked.load_full() })
    }

    /// Counts those who waited for the copy in flight, as one.
    pub(super) fn promise(self: &Arc<Self>) -> Option<Promise> {
        let Entered::Ready { .. } = self.entered() else { return None };
        self.promised.fetch_add(1, Ordering::Relaxed);
        Some(Promise(self.clone()))
    }

    /// Waits in line for a call to end, or for the copy to change.
    #[must_use]
    pub fn queue(self: &Arc<Self>) -> Queued {
        self.queued.fetch_add(1, Ordering::Relaxed);
        Queued(self.clone())
    }

    /// Whether it is ready under a live lease.
    #[must_use]
    pub fn is_usable(&self, now: Time) -> bool {
        self.word.state() == WordState::Ready && self.host.is_live(now)
    }

    /// Resolves when its state changes; enable it before looking at the state.
    pub fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    /// Calls of this proxy in flight on it.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.word.in_flight()
    }

    /// An attempt brought an answer, or failed (then `took` is what a failure counts).
    pub fn observe(&self, now: Time, took: Duration) {
        self.latency.observe(now, took);
    }

    /// The server said that it has not the model.
    #[must_use]
    pub fn deny(&self, now: Time) -> Denial {
        let seq = self.ready_seq.load(Ordering::Relaxed);
        if self.denied.swap(seq + 1, Ordering::Relaxed) != seq + 1 {
            self.denied_at.store(now.as_nanos(), Ordering::Relaxed);
            return Denial::News(v1::Missing { model: self.model.to_string(), boot_id: self.boot, seq });
        }
        Denial::Since(now.since(Time::from_nanos(self.denied_at.load(Ordering::Relaxed))))
    }

    /// Sets the state; returns the calls in flight at that moment. The task that watches the agent alone does this.
    pub(super) fn store(&self, state: WordState) -> u32 {
        let in_flight = self.word.store(state);
        self.freed.notify_waiters();
        self.changed.notify_waiters();
        in_flight
    }

    /// READY with this seq and concurrency limit, among so many proxies.
    pub(super) fn ready(&self, seq: Seq, limit: u32, proxies: u32) {
        self.ready_seq.store(seq, Ordering::Relaxed);
        self.limit.store(limit, Ordering::Relaxed);
        self.share_among(proxies);
        if self.revoked.load().is_cancelled() {
            self.revoked.store(Arc::default());
        }
    }

    /// So many proxies share the concurrency limit.
    pub(super) fn share_among(&self, proxies: u32) {
        let (share, line) = match self.limit.load(Ordering::Relaxed) {
            0 => (0, 0),
            limit => self.per_copy.of((limit / proxies.max(1)).max(1), proxies),
        };
        self.share.store(share, Ordering::Relaxed);
        self.line.store(line, Ordering::Relaxed);
    }

    /// Ends the calls that are in flight: their drain is over its time.
    pub(super) fn revoke(&self) {
        self.revoked.load().cancel();
    }

    /// Use since the last time; `None` = none.
    pub(super) fn touch(&self, now: Time) -> Option<v1::Touch> {
        let count = self.touched.swap(0, Ordering::Relaxed);
        let in_flight = self.in_flight();
        let age = now.since(Time::from_nanos(self.last_used.load(Ordering::Relaxed)));
        (count > 0 || in_flight > 0).then(|| v1::Touch {
            model: self.model.to_string(),
            age_millis: if in_flight > 0 { 0 } else { u64::try_from(age.as_millis()).unwrap_or(u64::MAX) },
            count,
            in_flight,
        })
    }

    /// What its calls did since the last time; `None` = nothing.
    pub(super) fn usage(&self) -> Option<v1::CopyUsage> {
        let now = self.host.clock.now();
        let last = Time::from_nanos(self.reported.swap(now.as_nanos(), Ordering::Relaxed));
        let requests = self.finished.swap(0, Ordering::Relaxed);
        let in_flight = self.in_flight();
        // A call of an hour is reported as it goes, not when it ends. What began since the last report counts when it ends, or
        // from here on.
        let new = self.began.swap(0, Ordering::Relaxed).saturating_sub(self.ended.swap(0, Ordering::Relaxed));
        let old = in_flight.saturating_sub(u32::try_from(new).unwrap_or(u32::MAX));
        let going_on = u64::try_from(now.since(last).saturating_mul(old).as_micros()).unwrap_or(u64::MAX);
        let busy_micros = self.busy_micros.swap(0, Ordering::Relaxed).saturating_add(going_on);
        let saturated = self.was_saturated.swap(false, Ordering::Relaxed);
        (requests > 0 || in_flight > 0 || saturated).then(|| v1::CopyUsage {
            model: self.model.to_string(),
            instance: self.host.id.to_string(),
            requests,
            busy_micros,
            in_flight,
            saturated,
        })
    }

    fn entered(&self) -> Entered {
        let entered = self.word.enter();
        if let Entered::NotReady(left) = entered {
            self.left(left);
        }
        entered
    }

    fn leave(&self) {
        let left = self.word.leave();
        self.left(left);
        self.next_turn();
    }

    /// A call that did not get in takes its increment back. It may have kept another one out for that moment.
    fn take_back(&self, share: u32) {
        let left = self.word.leave();
        self.left(left);
        if self.in_flight() < share {
            self.next_turn();
        }
    }

    fn next_turn(&self) {
        if self.queued.load(Ordering::Relaxed) > 0 {
            self.freed.notify_one();
        }
    }

    /// All who wait for their turn look again: there is another copy.
    pub(super) fn look_again(&self) {
        self.freed.notify_waiters();
    }

    fn left(&self, left: Left) {
        if left == Left::Drained {
            self.host.drained.notify_one();
        }
    }
}

impl Candidate for Copy {
    fn standing(&self) -> Standing {
        let now = self.host.clock.now();
        let in_flight = self.in_flight();
        let share = self.share.load(Ordering::Relaxed);
        Standing {
            usable: self.is_usable(now),
            latency: self.latency.average(now),
            in_flight,
            leaving: self.host.is_leaving(),
            ejected: self.host.is_ejected(now),
            saturated: share > 0 && in_flight >= share,
        }
    }
}

// === impl InFlight ===

impl InFlight {
    /// The copy that it is on.
    #[must_use]
    pub fn copy(&self) -> &Arc<Copy> {
        &self.copy
    }

    /// Cancelled when the call has to end because the drain of its copy is over its time.
    #[must_use]
    pub fn revoked(&self) -> &Arc<CancellationToken> {
        &self.revoked
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let now = self.copy.host.clock.now();
        let reported = Time::from_nanos(self.copy.reported.load(Ordering::Relaxed));
        if self.since >= reported {
            self.copy.ended.fetch_add(1, Ordering::Relaxed);
        }
        let busy = u64::try_from(now.since(self.since.max(reported)).as_micros()).unwrap_or(u64::MAX);
        self.copy.finished.fetch_add(1, Ordering::Relaxed);
        self.copy.busy_micros.fetch_add(busy, Ordering::Relaxed);
        self.copy.last_used.store(now.as_nanos(), Ordering::Relaxed);
        self.copy.leave();
    }
}

// === impl Promise ===

impl Drop for Promise {
    fn drop(&mut self) {
        self.0.promised.fetch_sub(1, Ordering::Relaxed);
        self.0.leave();
    }
}

// === impl Queued ===

impl Queued {
    /// Resolves when it is worth another try. To miss no turn, enable it and try once more before it is awaited.
    pub fn turn(&self) -> Notified<'_> {
        self.0.freed.notified()
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        // The turn that this one was told of, and does not take, goes to the next.
        if self.0.queued.fetch_sub(1, Ordering::Relaxed) > 1 {
            self.0.freed.notify_one();
        }
    }
}
