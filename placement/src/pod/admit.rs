//! When the first of the queue gets its place: sized, then memory reserved before all others, then pulled.
//!
//! Some more than may be loaded are sized, so that what can have no place here is refused while its callers may still be told so
//! before `accepted`, and so that the next need not be sized when its turn comes. That changes no order.

use std::time::Duration;

use super::{
    Action, CopyState, Pod,
    entry::{Cause, Entry, Held, Load, Sizing, Stage, Wanted},
    refusal::Refused,
    room::{Demand, Room, Step},
};
use crate::{id::ModelId, pod::Why, time::Time};

/// A model whose size is not known after this long does not hold up others.
pub(super) const SLOW: Duration = Duration::from_secs(2);
/// Models that are sized beside those whose turn it is.
const SIZED_AHEAD: usize = 8;

// === impl Pod ===

impl Pod {
    pub(super) fn admit(&mut self, now: Time) {
        if self.is_stuck(now) {
            for model in self.queue.iter().cloned().collect::<Vec<_>>() {
                self.refuse(&model, Refused::stuck());
            }
        }
        if self.server.is_some() {
            self.size_the_first(now);
        }
        while self.server.is_some() && (self.free_slots() > 0 || self.free_a_slot(now)) {
            self.size_the_first(now);
            let Some(head) = self.head(now) else { return };
            let Some(want) = self.entries.get(&head).and_then(|entry| entry.want.as_ref()) else { return };
            let Sizing::Known(_, bytes) = want.size else { return };
            match self.room_for(&Demand { bytes, why: want.why, replaces: want.replaces.as_ref() }, now) {
                Room::Free => self.start(now, &head),
                Room::Coming => return,
                Room::Make(steps) => self.make_room(now, steps),
                Room::Never(refused) => self.refuse(&head, refused),
            }
        }
    }

    /// Loads that may be begun beside those that run.
    pub(super) fn free_slots(&self) -> usize {
        let limit = self.server.as_ref().map_or(0, |server| server.limits.loading_concurrency.max(1));
        let running = self.entries.values().filter(|entry| matches!(entry.held, Held::Loading(_))).count();
        limit.saturating_sub(running)
    }

    /// Whether every slot is taken by a load that the server does not answer.
    pub(super) fn is_stuck(&self, now: Time) -> bool {
        let hung = self.entries.values().filter(|entry| self.is_hung(&entry.held, now)).count();
        hung > 0 && self.server.as_ref().is_some_and(|server| hung >= server.limits.loading_concurrency)
    }

    /// The first of the queue that is sized, among as many as may be loaded.
    fn head(&self, now: Time) -> Option<ModelId> {
        let sized = |model: &&ModelId| {
            let want = self.entries.get(*model).and_then(|entry| entry.want.as_ref());
            want.is_some_and(|want| matches!(want.size, Sizing::Known(..)))
        };
        self.turns(now).take(self.free_slots()).find(sized).cloned()
    }

    /// The queue without those that wait for their own former copy to be gone, and those whose storage is slow: they do not
    /// hold up those behind them.
    fn turns(&self, now: Time) -> impl Iterator<Item = &ModelId> {
        let slow = move |entry: &Entry| matches!(&entry.want, Some(want) if matches!(want.size, Sizing::Asked(_, since) if since + SLOW <= now));
        self.queue.iter().filter(move |model| self.may_start(model) && !self.entries.get(*model).is_some_and(slow))
    }

    fn may_start(&self, model: &ModelId) -> bool {
        self.entries.get(model).is_some_and(|entry| matches!(entry.held, Held::Nothing))
    }

    /// A pull that nobody has asked for gives its slot to a load that callers wait for.
    fn free_a_slot(&mut self, now: Time) -> bool {
        if !self.queue.iter_of(Why::Waiter).any(|model| self.may_start(model)) {
            return false;
        }
        let step = self.forgotten_pulls(now).find_map(|(_, step)| step);
        match step {
            Some(Step::GiveUp(model)) => {
                self.give_up(&model);
                true
            }
            _ => false,
        }
    }

    /// Sizes as many of the first as may be loaded, and some more.
    fn size_the_first(&mut self, now: Time) {
        let first: Vec<_> = self.turns(now).take(self.free_slots() + SIZED_AHEAD).cloned().collect();
        for model in first {
            let attempt = self.attempts + 1;
            let want = self.entries.get_mut(&model).and_then(|entry| entry.want.as_mut());
            if let Some(want) = want.filter(|want| want.size == Sizing::Unknown) {
                want.size = Sizing::Asked(attempt, now);
                self.attempts = attempt;
                self.out.push(Action::Size(want.model.clone(), attempt));
            }
        }
    }

    fn start(&mut self, now: Time, model: &ModelId) {
        // Before the news of the pull.
        self.accept(model);
        let Some(entry) = self.entries.get_mut(model) else { return };
        let Some(want) = &entry.want else { return };
        let Sizing::Known(attempt, bytes) = want.size else { return };
        let granted = self.ledger.reserve(bytes);
        debug_assert!(granted, "a place was free and is not: {:?}", self.ledger);
        if !granted {
            return;
        }
        let load = Load { model: want.model.clone(), attempt, bytes, stage: Stage::Pulling, since: now };
        self.queue.remove(want.why, want.order);
        self.out.push(Action::Pull(load.model.clone(), attempt));
        entry.held = Held::Loading(load);
        self.show(model, CopyState::Loading { bytes });
    }

    fn make_room(&mut self, now: Time, steps: Vec<Step>) {
        for step in steps {
            match step {
                Step::GiveUp(model) => self.give_up(&model),
                Step::Disown(model) => self.disown(&model),
                Step::Drain { model, firm } => {
                    let cause = Cause::Room { firm };
                    self.start_drain(now, &model, cause);
                }
            }
        }
    }

    /// Ends a pull; its memory is free at once.
    pub(super) fn give_up(&mut self, model: &ModelId) {
        self.abort_pull(model);
        let refused = Refused {
            refusal: super::Refusal::Full,
            retry_after: Some(super::ask::SOON),
            text: "its place was needed for a load that callers wait for".to_owned(),
        };
        self.refuse(model, refused);
    }

    pub(super) fn abort_pull(&mut self, model: &ModelId) {
        let Some(entry) = self.entries.get_mut(model) else { return };
        if let Held::Loading(Load { stage: Stage::Pulling, attempt, bytes, .. }) = entry.held {
            entry.held = Held::Nothing;
            self.ledger.release(bytes);
            self.out.push(Action::CancelPull(model.clone(), attempt));
        }
    }

    fn disown(&mut self, model: &ModelId) {
        if let Some(Held::Loading(load)) = self.entries.get_mut(model).map(|entry| &mut entry.held)
            && load.stage == Stage::Sent(Wanted::Yes)
        {
            load.stage = Stage::Sent(Wanted::IfAskedFor);
        }
    }
}
