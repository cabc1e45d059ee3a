//! When a draining copy is unloaded, and what calls a drain off.
//!
//! DRAINING goes out with a seq; each proxy with a lease acknowledges that very seq when it has no call in flight. The
//! unload is sent when all have, or their leases have run out, or after the drain timeout.

use std::{collections::BTreeSet, time::Duration};

use super::{
    Action, BootId, CopyState, Pod, Seq,
    entry::{Cause, Copy, Drain, Held},
};
use crate::{
    evict::Rank,
    id::{ModelId, WatcherId},
    ledger::Account,
    pod::entry::DrainError,
    rules,
    time::Time,
};

/// A copy whose model is gone goes when no proxy has reported it in flight for this long.
const GONE_UNUSED: Duration = Duration::from_secs(60);

// === impl Pod ===

impl Pod {
    pub(super) fn start_drain(&mut self, now: Time, model: &ModelId, cause: Cause) {
        let Some(entry) = self.entries.get_mut(model) else { return };
        let copy = match std::mem::take(&mut entry.held) {
            Held::Ready(copy) => copy,
            other => {
                entry.held = other;
                return;
            }
        };
        let mut drain = Drain { seq: 0, since: now, cause, acked: BTreeSet::new() };
        let state = CopyState::Draining { bytes: copy.bytes, evict: drain.evicts() };
        drain.seq = self.show(model, state);
        self.entries.entry(model.clone()).or_default().held = Held::Draining(copy, drain);
    }

    pub(super) fn drain_ack(&mut self, watcher: WatcherId, model: &ModelId, boot: BootId, seq: Seq) {
        if let Some(Held::Draining(_, drain)) = self.entries.get_mut(model).map(|entry| &mut entry.held)
            && boot == self.boot
            && seq == drain.seq
        {
            drain.acked.insert(watcher);
        }
    }

    /// The copy is ready again; whoever waited for its model has it.
    pub(super) fn call_off(&mut self, now: Time, model: &ModelId) {
        let Some(entry) = self.entries.get_mut(model) else { return };
        match std::mem::take(&mut entry.held) {
            Held::Draining(mut copy, _) => {
                if entry.want.is_some() {
                    (copy.last_used, copy.last_asked) = (now, now);
                }
                entry.held = Held::Ready(copy);
                self.become_ready(model);
            }
            other => entry.held = other,
        }
    }

    /// A copy that is to be kept does not go, nor does one for a model that is in a table again.
    pub(super) fn call_off_by_hints(&mut self, now: Time) {
        let kept = self.drains(|pod, model, drain| match drain.cause {
            Cause::Gone => !pod.is_hinted_gone(model),
            _ => drain.evicts() && !drain.is_firm() && pod.hints.keeps(model),
        });
        for model in kept {
            self.call_off(now, &model);
        }
    }

    /// A copy whose model is in no table goes once it is out of use.
    pub(super) fn drain_gone(&mut self, now: Time) {
        if !self.leaving {
            self.drain_all(
                now,
                |pod, model, copy| pod.is_hinted_gone(model) && copy.unused_at() <= now,
                || Cause::Gone,
            );
        }
    }

    /// What control calls surplus is ready elsewhere and not used here any more, until it is asked for here or kept. That
    /// later hints do not name it means nothing: a copy that drains is not one of the ready ones that control counts.
    pub(super) fn drain_for_leaving(&mut self, now: Time) {
        if !self.leaving || self.ledger.overrun() > 0 {
            return;
        }
        self.drain_all(
            now,
            |pod, model, copy| {
                let elsewhere = pod.hints.rank(model) != Rank::Ordinary && !pod.hints.keeps(model);
                elsewhere && copy.last_asked < pod.hints.since
            },
            || Cause::Leave { done: false },
        );
        let kept = self.drains(|pod, model, drain| !drain.evicts() && pod.hints.keeps(model));
        for model in kept {
            self.call_off(now, &model);
        }
    }

    /// Memory that no load waits for any more is not taken from anyone.
    pub(super) fn call_off_what_nobody_needs(&mut self, now: Time) {
        let needed = self.ledger.overrun() > 0
            || self
                .queue
                .iter()
                .any(|model| self.entries.get(model).is_none_or(|entry| !matches!(entry.held, Held::Draining(..))));
        if needed {
            return;
        }
        let unneeded = self.drains(|_, _, drain| matches!(drain.cause, Cause::Room { .. } | Cause::Overrun));
        for model in unneeded {
            self.call_off(now, &model);
        }
    }

    pub(super) fn finish_drains(&mut self, now: Time) {
        let due = self.drains(|pod, _, drain| pod.drain_ends(drain) <= now);
        for model in due {
            let Some(Held::Draining(copy, drain)) = self.entries.get_mut(&model).map(|entry| &mut entry.held) else {
                continue;
            };
            let error = match &mut drain.cause {
                Cause::Leave { done } => {
                    *done = true;
                    continue;
                }
                Cause::TooLarge(error) => Some(Box::new((copy.model.clone(), error.clone()))),
                Cause::Room { .. } | Cause::Overrun => {
                    self.clock = self.clock.max(copy.worth);
                    None
                }
                Cause::Gone => None,
            };
            debug_assert_eq!(
                rules::unload::check(rules::unload::Facts {
                    now,
                    restarted: self.leases.restarted,
                    since: drain.since,
                    drain_timeout: self.settings.drain_timeout,
                    pings: &self.leases.pings,
                    acked: &drain.acked,
                }),
                Ok(()),
                "never-unready: {model}"
            );
            self.send_unload(&model, error);
        }
    }

    /// When a drain ends if nobody acknowledges any more.
    pub(super) fn drain_ends(&self, drain: &Drain) -> Time {
        self.leases.end(&drain.acked).min(drain.since + self.settings.drain_timeout)
    }

    pub(super) fn send_unload(&mut self, model: &ModelId, error: DrainError) {
        let Some(entry) = self.entries.get_mut(model) else { return };
        match std::mem::take(&mut entry.held) {
            Held::Ready(copy) | Held::Draining(copy, _) => {
                let Copy { attempt, bytes, .. } = copy;
                entry.held = Held::Unloading { attempt, bytes, error };
                self.ledger.unload(Account::Loaded, bytes);
                self.out.push(Action::Unload(model.clone(), attempt));
            }
            other => entry.held = other,
        }
    }

    pub(super) fn is_hinted_gone(&self, model: &ModelId) -> bool {
        self.hints.rank(model) == Rank::Gone && !self.hints.keeps(model)
    }

    fn drain_all(&mut self, now: Time, which: impl Fn(&Self, &ModelId, &Copy) -> bool, cause: impl Fn() -> Cause) {
        let ready = self.entries.iter().filter_map(|(model, entry)| match &entry.held {
            Held::Ready(copy) if which(self, model, copy) => Some(model.clone()),
            _ => None,
        });
        for model in ready.collect::<Vec<_>>() {
            self.start_drain(now, &model, cause());
        }
    }

    fn drains(&self, which: impl Fn(&Self, &ModelId, &Drain) -> bool) -> Vec<ModelId> {
        let drains = self.entries.iter().filter_map(|(model, entry)| match &entry.held {
            Held::Draining(_, drain) if which(self, model, drain) => Some(model.clone()),
            _ => None,
        });
        drains.collect()
    }
}

// === impl Copy ===

impl Copy {
    /// From when on it counts as out of use, if its model is gone.
    pub(super) fn unused_at(&self) -> Time {
        self.since.max(self.last_asked).max(self.in_flight.unwrap_or(Time::ZERO)) + GONE_UNUSED
    }
}
