//! The memory of failed loads: what failed is not tried again at once.
//!
//! A permanent failure (bad model, missing object, denied) counts for 15 min, or 7.5 if callers ask for the model; a
//! passing one (connection, timeout, 5xx of the storage) for 5 s, doubled by each further one up to 5 min. All end when
//! the storage Secret changes, and one ends when its model is asked for by another reference. That of a model that outgrew its
//! reservation beside what is kept ends when that leaves room for it.

use std::{collections::BTreeMap, time::Duration};

use super::LoadError;
use crate::{
    id::{ModelId, ModelRef},
    time::Time,
};

const PERMANENT: Duration = Duration::from_secs(15 * 60);
const PERMANENT_ASKED_FOR: Duration = Duration::from_secs(15 * 30);
const PASSING: Duration = Duration::from_secs(5);
const PASSING_MOST: Duration = Duration::from_secs(5 * 60);
/// A failure within this long after the end of the last one continues its doubling.
const REMEMBERED: Duration = Duration::from_secs(10 * 60);
/// Records kept; beyond, the one that ends first is forgotten.
const MAX_RECORDS: usize = 10_000;

#[derive(Debug, Default)]
pub(super) struct Failures {
    records: BTreeMap<ModelId, Failure>,
}

#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) error: LoadError,
    /// Until when it counts.
    pub(super) until: Time,
    /// Bytes that the model turned out to need.
    pub(super) needs: Option<u64>,
    /// It failed because it needs them.
    outgrew: bool,
    at: Time,
    /// Passing failures in a row.
    row: u32,
    reference: ModelRef,
}

// === impl Failures ===

impl Failures {
    /// The failure that still counts against this reference.
    pub(super) fn standing(&self, model: &ModelRef, now: Time) -> Option<&Failure> {
        self.records.get(&model.id).filter(|failure| failure.until > now && failure.is_of(model))
    }

    /// Bytes that the model needed when it was last tried in vain.
    pub(super) fn needs(&self, model: &ModelRef) -> Option<u64> {
        self.records.get(&model.id).filter(|failure| failure.is_of(model)).and_then(|failure| failure.needs)
    }

    /// Remembers a failure and says until when it counts. `asked_for`: callers asked for it within the last 3 min.
    pub(super) fn record(
        &mut self,
        model: &ModelRef,
        error: LoadError,
        needs: Option<u64>,
        asked_for: bool,
        now: Time,
    ) -> Time {
        let before = self.records.get(&model.id).filter(|failure| failure.is_of(model));
        let row = match before {
            Some(before) if error.passing && now < before.until + REMEMBERED => before.row.saturating_add(1),
            _ => 1,
        };
        let length = match (error.passing, asked_for) {
            (true, _) => (PASSING * 2_u32.saturating_pow((row - 1).min(10))).min(PASSING_MOST),
            (false, true) => PERMANENT_ASKED_FOR,
            (false, false) => PERMANENT,
        };
        let row = if error.passing { row } else { 0 };
        let outgrew = needs.is_some();
        let needs = needs.or(before.and_then(|before| before.needs));
        let failure = Failure { error, until: now + length, needs, outgrew, at: now, row, reference: model.clone() };
        self.make_room(&model.id);
        self.records.insert(model.id.clone(), failure);
        now + length
    }

    /// A caller asked for a model that failed: a permanent failure now ends early. Says until when, if that changed.
    pub(super) fn asked_for(&mut self, id: &ModelId, now: Time) -> Option<Time> {
        let failure = self.records.get_mut(id)?;
        let until = (failure.at + PERMANENT_ASKED_FOR).max(now);
        (!failure.error.passing && until < failure.until).then(|| {
            failure.until = until;
            until
        })
    }

    /// Ends the permanent failures of models that needed too much beside what was kept and would fit into `room`: says whose.
    pub(super) fn end_those_that_fit(&mut self, room: u64, now: Time) -> Vec<ModelId> {
        let fits = |failure: &Failure| failure.outgrew && failure.needs.is_some_and(|needs| needs <= room);
        let standing = |failure: &Failure| !failure.error.passing && failure.until > now;
        let ended = self.records.iter_mut().filter(|(_, failure)| standing(failure) && fits(failure));
        let ended = ended.map(|(id, failure)| {
            failure.until = now;
            id.clone()
        });
        ended.collect()
    }

    pub(super) fn forget(&mut self, id: &ModelId) {
        self.records.remove(id);
    }

    /// Forgets what no longer matters.
    pub(super) fn prune(&mut self, now: Time) {
        self.records.retain(|_, failure| failure.until + REMEMBERED > now);
    }

    pub(super) fn clear(&mut self) {
        self.records.clear();
    }

    fn make_room(&mut self, id: &ModelId) {
        if self.records.len() < MAX_RECORDS || self.records.contains_key(id) {
            return;
        }
        let first = self.records.iter().min_by_key(|(_, failure)| failure.until).map(|(id, _)| id.clone());
        if let Some(first) = first {
            self.records.remove(&first);
        }
    }
}

// === impl Failure ===

impl Failure {
    fn is_of(&self, model: &ModelRef) -> bool {
        let known = &self.reference;
        (&known.path, &known.model_type, &known.key) == (&model.path, &model.model_type, &model.key)
    }
}
