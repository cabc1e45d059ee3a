//! What becomes of an ask: answered at once, joined to a load on its way, queued or refused.

use std::{collections::BTreeMap, time::Duration};

use super::{
    CopyState, ModelRef, Pod, Refusal, Told, WaiterId, Why,
    entry::{Held, Stage, Want, Wanted},
    refusal::Refused,
    room::{Demand, Room},
    text::Seconds,
};
use crate::{
    id::ModelId,
    pod::entry::{Drain, Sizing},
    time::Time,
};

/// When to ask again where the reason passes soon and nobody knows when.
pub(super) const SOON: Duration = Duration::from_secs(1);
/// How long a waiter hears nothing while its model is sized: less than the 2 s after which a proxy asks elsewhere.
pub(super) const UNSIZED: Duration = Duration::from_secs(1);
/// When to ask again for a model whose earlier load the server has not answered.
const UNANSWERED: Duration = Duration::from_secs(5);

// === impl Pod ===

impl Pod {
    pub(super) fn ask(&mut self, now: Time, waiter: WaiterId, model: ModelRef, why: Why, replaces: Option<ModelId>) {
        self.waiter_gone(now, waiter);
        if let Some(told) = self.answer_at_once(now, &model, why).or_else(|| self.refuse_at_once(now, &model, why)) {
            return self.tell(waiter, told);
        }
        let queued = self.entries.get(&model.id).is_some_and(|entry| entry.want.is_some());
        if !queued {
            let demand = Demand { bytes: self.least_size(now, &model, why), why, replaces: replaces.as_ref() };
            let is_first = self.queue.len() == 0 && self.free_slots() > 0;
            if is_first || why == Why::Ahead {
                // Later it may be refused once it is sized; what is hopeless for any size need not be sized first.
                if let Room::Never(refused) = self.room_for(&demand, now) {
                    return self.tell(waiter, refused.into());
                }
            }
        }
        let id = model.id.clone();
        self.want(now, waiter, model, why, replaces);
        self.unaccepted.entry(id).or_default().insert(waiter);
    }

    pub(super) fn waiter_gone(&mut self, now: Time, waiter: WaiterId) {
        let Some(model) = self.waiters.remove(&waiter) else { return };
        if let Some(want) = self.entries.get_mut(&model).and_then(|entry| entry.want.as_mut()) {
            want.waiters.remove(&waiter);
            want.last_asked = now;
        }
    }

    /// A ready copy answers, and so does a draining one whose drain an ask may call off.
    fn answer_at_once(&mut self, now: Time, model: &ModelRef, why: Why) -> Option<Told> {
        let held = self.entries.get(&model.id).map(|entry| &entry.held);
        if let Some(Held::Draining(_, drain)) = held
            && self.is_called_off_by_an_ask(&model.id, drain)
        {
            self.call_off(now, &model.id);
            if let Some(Held::Ready(copy)) = self.entries.get_mut(&model.id).map(|entry| &mut entry.held) {
                // Or the load that it drained for would take it again before the caller's first call.
                copy.in_flight = Some(now);
            }
        }
        let (clock, cost) = (self.clock, self.load_cost(model));
        let entry = self.entries.get_mut(&model.id)?;
        let (Held::Ready(copy), Some((seq, _))) = (&mut entry.held, &entry.shown) else { return None };
        copy.last_asked = now;
        if why == Why::Waiter {
            copy.use_once(now, clock, cost);
        }
        Some(Told::Loaded { seq: *seq })
    }

    /// Not while a load that callers wait for is queued for its memory.
    fn is_called_off_by_an_ask(&self, model: &ModelId, drain: &Drain) -> bool {
        let waited_for = || self.queue.iter_of(Why::Waiter).any(|queued| queued != model);
        !(drain.is_firm() || drain.evicts() && waited_for())
    }

    fn refuse_at_once(&mut self, now: Time, model: &ModelRef, why: Why) -> Option<Told> {
        let refused =
            |refusal, retry_after, text: &str| Some(Told::Refused { refusal, retry_after, text: text.to_owned() });
        if self.leaving {
            return refused(Refusal::Leaving, None, "the instance is going away");
        }
        if self.server.is_none() {
            return refused(Refusal::Full, Some(SOON), "the model server is not ready");
        }
        if let Some(Held::Loading(load)) = self.entries.get(&model.id).map(|entry| &entry.held)
            && load.stage == Stage::Sent(Wanted::No)
        {
            let text = format!("the model server has not answered a load of it for {}", Seconds(now.since(load.since)));
            return refused(Refusal::Failing, Some(UNANSWERED), &text);
        }
        if why == Why::Waiter && self.failures.standing(model, now).is_some() {
            self.ask_for_failed(now, &model.id);
        }
        if let Some(failure) = self.failures.standing(model, now) {
            return refused(Refusal::Failing, Some(failure.until.since(now)), &failure.error.text);
        }
        if self.entries.get(&model.id).is_some_and(|entry| entry.want.is_some()) {
            return None;
        }
        if !self.queue.has_room(why) {
            return refused(Refusal::Full, Some(SOON), "too many loads are queued");
        }
        self.is_stuck(now).then(|| Refused::stuck().into())
    }

    /// A permanent failure counts less long when callers ask for the model.
    fn ask_for_failed(&mut self, now: Time, model: &ModelId) {
        let Some(earlier) = self.failures.asked_for(model, now) else { return };
        let shown = self.entries.get(model).and_then(|entry| entry.shown.as_ref());
        if let Some((_, CopyState::Failed { error, .. })) = shown {
            let error = error.clone();
            self.show(model, CopyState::Failed { error, until: earlier });
        }
    }

    /// Joins what is on its way, or queues a new load.
    fn want(&mut self, now: Time, waiter: WaiterId, model: ModelRef, why: Why, replaces: Option<ModelId>) {
        let id = model.id.clone();
        let entry = self.entries.entry(id.clone()).or_default();
        self.waiters.insert(waiter, id.clone());
        if let Some(want) = &mut entry.want {
            want.waiters.insert(waiter, why);
            want.last_asked = now;
            want.replaces = want.replaces.take().or(replaces);
            if why < want.why {
                if self.queue.remove(want.why, want.order) {
                    self.queue.insert(why, want.order, id);
                }
                want.why = why;
            }
            return;
        }
        let order = self.queue.next_order();
        let draining = matches!(entry.shown, Some((_, CopyState::Draining { .. })));
        let waiters = BTreeMap::from([(waiter, why)]);
        entry.want = Some(Want { model, why, order, waiters, last_asked: now, replaces, size: Sizing::Unknown });
        self.queue.insert(why, order, id.clone());
        if !draining {
            self.show(&id, CopyState::Queued);
        }
    }

    /// Tells those who wait that their model has a place, unless its size is about to be known: a refusal for want of room
    /// is to come before the word that ends the search for a place.
    pub(super) fn accept_what_is_sized(&mut self, now: Time) {
        let due: Vec<_> = self.unaccepted.keys().filter(|model| !self.is_being_sized(model, now)).cloned().collect();
        for model in due {
            self.accept(&model);
        }
    }

    fn is_being_sized(&self, model: &ModelId, now: Time) -> bool {
        let Some(entry) = self.entries.get(model) else { return false };
        let sizing = |want: &Want| matches!(want.size, Sizing::Asked(_, since) if since + UNSIZED > now);
        matches!(entry.held, Held::Nothing) && entry.want.as_ref().is_some_and(sizing)
    }

    /// Tells all who wait for a model and were not told.
    pub(super) fn accept(&mut self, model: &ModelId) {
        let waiters = self.unaccepted.remove(model).unwrap_or_default();
        let Some(entry) = self.entries.get(model) else { return };
        let want = entry.want.as_ref().filter(|_| entry.is_queued());
        let place = want.map_or(0, |want| self.queue.place(want.why, want.order));
        for waiter in waiters {
            if self.waiters.get(&waiter) == Some(model) {
                self.tell(waiter, Told::Accepted { place });
            }
        }
    }

    /// The least that a model may need, before it is sized.
    fn least_size(&self, now: Time, model: &ModelRef, why: Why) -> u64 {
        let known = || self.known.get(now, &model.id).filter(|_| why != Why::Waiter);
        let least = model.size_hint.or(self.failures.needs(model)).or_else(known);
        least.unwrap_or(1).clamp(1, self.ledger.capacity().max(1))
    }

    /// Takes a load that has no place yet, or has it and was not sent, off the list.
    pub(super) fn refuse(&mut self, model: &ModelId, refused: Refused) {
        let queued = self.entries.get(model).and_then(|entry| entry.shown.as_ref());
        if matches!(queued, Some((_, CopyState::Queued | CopyState::Loading { .. }))) {
            self.hide(model);
        }
        self.end_want(model, &refused.into());
    }
}
