//! What goes when a model turned out larger than its reservation: first what would go anyway, then young copies; where
//! everything else is kept or in flight, the model itself.

use super::{
    CopyState, Pod,
    entry::{Cause, Held},
    room::Step,
};
use crate::{id::ModelId, time::Time};

// === impl Pod ===

impl Pod {
    pub(super) fn relieve_overrun(&mut self, now: Time) {
        while self.ledger.overrun() > self.coming() {
            let Some(culprit) = self.culprit() else { return };
            match self.relief(now, &culprit) {
                Some(steps) => {
                    for step in steps {
                        match step {
                            Step::GiveUp(model) => self.give_up(&model),
                            Step::Drain { model, .. } => self.start_drain(now, &model, Cause::Overrun),
                            Step::Disown(_) => {}
                        }
                    }
                }
                None => {
                    let Some(Held::Ready(copy)) = self.entries.get(&culprit).map(|entry| &entry.held) else { return };
                    let error = self.grown_too_large(&culprit, copy.bytes, copy.bytes - copy.grown);
                    self.start_drain(now, &culprit, Cause::TooLarge(error));
                }
            }
        }
    }

    /// Whether what this model needs beyond its reservation can be had from others.
    pub(super) fn overrun_can_be_relieved(&self, now: Time, culprit: &ModelId) -> bool {
        self.ledger.overrun() <= self.coming() || self.relief(now, culprit).is_some()
    }

    /// What is kept has become less: a model that did not fit beside it is worth another try, for which what it needs is
    /// reserved from the start.
    pub(super) fn forgive_what_outgrew(&mut self, now: Time) {
        let room = self.ledger.capacity().saturating_sub(self.kept_bytes());
        for model in self.failures.end_those_that_fit(room, now) {
            if matches!(self.entries.get(&model).map(|entry| &entry.shown), Some(Some((_, CopyState::Failed { .. })))) {
                self.hide(&model);
            }
        }
    }

    /// The copy that grew last.
    fn culprit(&self) -> Option<ModelId> {
        let grown = self.entries.iter().filter_map(|(model, entry)| match &entry.held {
            Held::Ready(copy) if copy.grown > 0 => Some((copy.since, model)),
            _ => None,
        });
        grown.max().map(|(_, model)| model.clone())
    }

    /// What must go beside the culprit, or none if that is not enough.
    fn relief(&self, now: Time, culprit: &ModelId) -> Option<Vec<Step>> {
        let short = self.ledger.overrun().saturating_sub(self.coming());
        let mut candidates = self.candidates(now, Some(culprit));
        candidates.retain(|candidate| candidate.in_flight_until <= now);
        candidates.sort_by_key(|candidate| candidate.young_until > now);
        let drains = candidates
            .into_iter()
            .map(|candidate| (candidate.bytes, Some(Step::Drain { model: candidate.model.clone(), firm: false })));
        let mut freed = 0;
        let mut steps = Vec::new();
        for (bytes, step) in self.forgotten_pulls(now).chain(drains) {
            if freed >= short {
                break;
            }
            freed += bytes;
            steps.extend(step);
        }
        (freed >= short).then_some(steps)
    }
}
