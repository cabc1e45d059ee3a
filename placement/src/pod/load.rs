//! What follows from the answers of storage and server.
//!
//! A load that was sent stays charged and keeps its slot until the server has answered, whatever became of its waiters
//! or its timeout; after a failed or timed-out load an unload is sent, so that server and account agree.

use std::time::Duration;

use super::{
    Action, Attempt, CopyState, LoadError, LoadedModel, ModelId, ModelRef, Pod, Refusal, Told, Why,
    ask::SOON,
    entry::{Copy, Held, Load, Sizing, Stage, Wanted},
    refusal::Refused,
    room::Demand,
    text::Size,
};
use crate::{evict, ledger::Account, time::Time};

/// A model that callers asked for within this long is tried again earlier after a permanent failure.
const ASKED_FOR: Duration = Duration::from_secs(3 * 60);
/// No model is larger; keeps sums far from overflow, whatever a server says.
const MOST_BYTES: u64 = 1 << 50;
const RESOURCE_EXHAUSTED: u32 = 8;
const FAILED_PRECONDITION: u32 = 9;

// === impl Pod ===

impl Pod {
    pub(super) fn sized(&mut self, now: Time, model: &ModelId, attempt: Attempt, result: Result<u64, LoadError>) {
        let Some(want) = self.entries.get_mut(model).and_then(|entry| entry.want.as_mut()) else { return };
        if !matches!(want.size, Sizing::Asked(asked, _) if asked == attempt) {
            return;
        }
        want.size = Sizing::Unknown;
        let reference = want.model.clone();
        match result {
            Ok(bytes) => {
                let bytes = self.failures.needs(&reference).unwrap_or(bytes).clamp(1, MOST_BYTES);
                want.size = Sizing::Known(attempt, bytes);
                self.known.learn(now, model, bytes);
                let replaces = want.replaces.clone();
                let demand = Demand { bytes, why: want.why, replaces: replaces.as_ref() };
                if bytes > self.ledger.capacity() {
                    let error = self.too_large_for_the_pod(bytes);
                    self.fail(now, &reference, error, None);
                } else if let Some(refused) = self.pinned(&demand, now) {
                    // Whatever is before it in the queue: no turn brings it a place.
                    self.refuse(model, refused);
                }
            }
            Err(error) => self.fail_before_the_server(now, &reference, error),
        }
    }

    pub(super) fn pulled(&mut self, now: Time, model: &ModelId, attempt: Attempt, result: Result<(), LoadError>) {
        let Some(entry) = self.entries.get_mut(model) else { return };
        let Held::Loading(load) = &mut entry.held else { return };
        if load.attempt != attempt || load.stage != Stage::Pulling {
            return;
        }
        match result {
            Ok(()) => {
                load.stage = Stage::Sent(Wanted::Yes);
                load.since = now;
                self.out.push(Action::Load(load.model.clone(), attempt));
            }
            Err(error) => {
                let reference = load.model.clone();
                self.ledger.release(load.bytes);
                entry.held = Held::Nothing;
                self.fail_before_the_server(now, &reference, error);
            }
        }
    }

    pub(super) fn loaded(
        &mut self,
        now: Time,
        model: &ModelId,
        attempt: Attempt,
        result: Result<LoadedModel, LoadError>,
    ) {
        let load_timeout = self.default_load_timeout();
        let Some(entry) = self.entries.get_mut(model) else { return };
        let wanted = match &entry.held {
            Held::Loading(Load { attempt: sent, stage: Stage::Sent(wanted), .. }) if *sent == attempt => *wanted,
            _ => return,
        };
        let Held::Loading(load) = std::mem::take(&mut entry.held) else { return };
        match result {
            Ok(loaded) => {
                let asked_for = entry.want.as_ref().is_some_and(|want| !want.is_forgotten(now));
                let keep = wanted == Wanted::Yes || wanted == Wanted::IfAskedFor && asked_for;
                self.load_times.observe(&load.model.model_type, load_timeout, now.since(load.since));
                self.settle(now, load, loaded, keep);
            }
            Err(error) => {
                entry.held = Held::Unloading { attempt, bytes: load.bytes, error: None };
                self.ledger.unload(Account::Reserved, load.bytes);
                if wanted != Wanted::No {
                    self.fail(now, &load.model, error, None);
                }
                self.out.push(Action::Unload(model.clone(), attempt));
            }
        }
    }

    /// The server holds the model.
    fn settle(&mut self, now: Time, load: Load, loaded: LoadedModel, keep: bool) {
        let id = load.model.id.clone();
        let bytes = loaded.bytes.unwrap_or(load.bytes).min(MOST_BYTES);
        self.ledger.settle(load.bytes, bytes);
        self.known.learn(now, &id, bytes);
        let worth = evict::worth(self.clock, 1, self.load_cost(&load.model), bytes);
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let last_asked = entry.want.as_ref().map_or(now, |want| want.asked_at(now));
        let copy = Copy {
            attempt: load.attempt,
            bytes,
            concurrency_limit: loaded.concurrency_limit,
            grown: bytes.saturating_sub(load.bytes),
            since: now,
            last_used: last_asked,
            last_asked,
            in_flight: None,
            uses: 1,
            worth,
            model: load.model,
        };
        let (reference, reserved) = (copy.model.clone(), load.bytes);
        entry.held = Held::Ready(copy);
        if keep && self.overrun_can_be_relieved(now, &id) {
            self.failures.forget(&id);
            self.become_ready(&id);
        } else if keep {
            let error = self.grown_too_large(&id, bytes, reserved);
            self.fail(now, &reference, error, Some(bytes));
            self.send_unload(&id, None);
        } else {
            self.refuse(&id, Refused { refusal: Refusal::Full, retry_after: Some(SOON), text: String::new() });
            self.send_unload(&id, None);
        }
    }

    pub(super) fn become_ready(&mut self, model: &ModelId) {
        let Some(Held::Ready(copy)) = self.entries.get(model).map(|entry| &entry.held) else { return };
        let state = CopyState::Ready { bytes: copy.bytes, concurrency_limit: copy.concurrency_limit };
        let seq = self.show(model, state);
        self.end_want(model, &Told::Loaded { seq });
    }

    pub(super) fn unloaded(&mut self, now: Time, model: &ModelId, attempt: Attempt) {
        let Some(entry) = self.entries.get_mut(model) else { return };
        if !matches!(entry.held, Held::Unloading { attempt: sent, .. } if sent == attempt) {
            return;
        }
        let Held::Unloading { bytes, error, .. } = std::mem::take(&mut entry.held) else { return };
        self.ledger.credit(bytes);
        let draining = matches!(entry.shown, Some((_, CopyState::Draining { .. })));
        if let Some(failed) = error {
            let (reference, error) = *failed;
            self.fail(now, &reference, error, Some(bytes));
        } else if draining {
            self.hide(model);
            if self.entries.get(model).is_some_and(|entry| entry.want.is_some()) {
                self.show(model, CopyState::Queued);
            }
        }
    }

    /// Remembers a failure, shows it and tells the waiters.
    pub(super) fn fail(&mut self, now: Time, model: &ModelRef, error: LoadError, needs: Option<u64>) {
        let want = self.entries.get(&model.id).and_then(|entry| entry.want.as_ref());
        let asked_for = want.is_some_and(|want| want.why == Why::Waiter && want.asked_at(now) + ASKED_FOR >= now);
        let until = self.failures.record(model, error.clone(), needs, asked_for, now);
        self.show(&model.id, CopyState::Failed { error: error.clone(), until });
        self.end_want(&model.id, &Told::Failed(error));
    }

    /// No disk is a refusal, not a failure of the model.
    fn fail_before_the_server(&mut self, now: Time, model: &ModelRef, error: LoadError) {
        if error.code == RESOURCE_EXHAUSTED {
            let refused = Refused { refusal: Refusal::Disk, retry_after: Some(SOON), text: error.text };
            self.refuse(&model.id, refused);
        } else {
            self.fail(now, model, error, None);
        }
    }

    fn too_large_for_the_pod(&self, bytes: u64) -> LoadError {
        let text = format!("needs {}, the pod has {} in all", Size(bytes), Size(self.ledger.capacity()));
        LoadError { code: FAILED_PRECONDITION, text, passing: false }
    }

    /// The error of a model that turned out larger than its reservation where nothing else may go for it. It passes if
    /// the model would fit once it is reserved for what it needs.
    pub(super) fn grown_too_large(&self, model: &ModelId, bytes: u64, reserved: u64) -> LoadError {
        let capacity = self.ledger.capacity();
        let kept = if self.hints.keeps(model) { self.kept_bytes().saturating_sub(bytes) } else { self.kept_bytes() };
        let text = format!(
            "needs {} where {} were reserved; the pod has {}, and what else it holds may not go",
            Size(bytes),
            Size(reserved),
            Size(capacity)
        );
        LoadError { code: RESOURCE_EXHAUSTED, text, passing: bytes.saturating_add(kept) <= capacity }
    }

    /// What it costs to load a model of this type again.
    pub(super) fn load_cost(&self, model: &ModelRef) -> Duration {
        self.load_times.estimate(&model.model_type, self.default_load_timeout())
    }
}

// === impl Copy ===

impl Copy {
    pub(super) fn use_once(&mut self, now: Time, clock: f64, cost: Duration) {
        self.last_used = self.last_used.max(now);
        self.uses = self.uses.saturating_add(1);
        self.worth = evict::worth(clock, self.uses, cost, self.bytes);
    }
}
