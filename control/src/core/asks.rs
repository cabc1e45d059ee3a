//! The loads that control has asked for, and the refusals that it remembers.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use modelring_placement::{
    id::{InstanceId, ModelId},
    time::Time,
};
use modelring_proto::v1::refused::Reason;

use super::dial::Answer;

/// Calls open at once.
const MOST_OPEN: usize = 256;
const AGAIN_AFTER_SPACE: Duration = Duration::from_secs(5);
const AGAIN_AFTER_LOSS: Duration = Duration::from_secs(1);
/// Loads ahead of use are asked for ever more rarely while an instance refuses them, but for when it has more memory free.
const AHEAD_AT_MOST: Duration = Duration::from_secs(60);

/// A model on an instance.
pub type Place = (ModelId, InstanceId);

/// Asked and refused loads.
#[derive(Debug, Default)]
pub(super) struct Asks {
    /// With whether they are ahead of use.
    open: HashMap<ModelId, BTreeMap<InstanceId, bool>>,
    open_count: usize,
    refused: HashMap<ModelId, HashMap<InstanceId, Refused>>,
}

/// Why a place is not asked for at the moment.
#[derive(Clone, Debug)]
pub(super) struct Refused {
    until: Time,
    /// It was for want of space.
    pub(super) space: bool,
    text: String,
    /// The load was ahead of use.
    ahead: Option<Ahead>,
}

/// A load ahead of use that was refused.
#[derive(Clone, Debug)]
struct Ahead {
    /// From when on it may be asked for again if something has changed.
    soon: Time,
    /// Bytes that were free on the instance.
    free: u64,
    /// Times in a row.
    row: u32,
}

// === impl Asks ===

impl Asks {
    /// A load is asked for; `ahead` of use.
    pub(super) fn begin(&mut self, place: Place, ahead: bool) {
        let (model, instance) = place;
        self.open_count += usize::from(self.open.entry(model).or_default().insert(instance, ahead).is_none());
    }

    pub(super) fn count(&self) -> usize {
        self.open_count
    }

    pub(super) fn is_full(&self) -> bool {
        self.open_count >= MOST_OPEN
    }

    pub(super) fn is_open(&self, model: &ModelId, instance: &InstanceId) -> bool {
        self.open.get(model).is_some_and(|instances| instances.contains_key(instance))
    }

    /// The instances that are asked for a model.
    pub(super) fn open_of(&self, model: &ModelId) -> impl Iterator<Item = InstanceId> + use<> {
        self.open.get(model).cloned().unwrap_or_default().into_keys()
    }

    /// The text of some refusal of a model for want of space.
    pub(super) fn last_text(&self, model: &ModelId) -> Option<&str> {
        let of_model = self.refused.get(model)?.values().filter(|why| why.space);
        of_model.max_by_key(|why| why.until).map(|why| why.text.as_str())
    }

    /// Takes in what came of an ask of an instance that has so many bytes free.
    pub(super) fn end(&mut self, now: Time, place: Place, answer: &Answer, free: u64) {
        let mut is_ahead = false;
        if let Some(instances) = self.open.get_mut(&place.0) {
            let ended = instances.remove(&place.1);
            self.open_count -= usize::from(ended.is_some());
            is_ahead = ended == Some(true);
            if instances.is_empty() {
                self.open.remove(&place.0);
            }
        }
        let before = self.refusal(&place.0, &place.1).and_then(|refused| refused.ahead.as_ref());
        let row = before.map_or(0, |ahead| ahead.row.saturating_add(1));
        let lost =
            |text: &str| Refused { until: now + AGAIN_AFTER_LOSS, space: false, text: text.to_owned(), ahead: None };
        let refused = match answer {
            Answer::Loaded { .. } => None,
            // The copy itself shows the failure, and how long it counts.
            Answer::Failed(error) => Some(lost(&error.text)),
            Answer::Refused { reason, retry_after, text } => {
                let space = matches!(reason, Reason::Full | Reason::Churn | Reason::Pinned | Reason::Disk);
                let pause = (*retry_after).max(if space && retry_after.is_zero() {
                    AGAIN_AFTER_SPACE
                } else {
                    AGAIN_AFTER_LOSS
                });
                let longer = pause.saturating_mul(2_u32.saturating_pow(row.min(10))).min(AHEAD_AT_MOST.max(pause));
                let ahead = (is_ahead && space).then_some(Ahead { soon: now + pause, free, row });
                let until = now + if ahead.is_some() { longer } else { pause };
                Some(Refused { until, space, text: text.clone(), ahead })
            }
            Answer::Lost(text) => Some(lost(text)),
        };
        let (model, instance) = place;
        match refused {
            Some(refused) => drop(self.refused.entry(model).or_default().insert(instance, refused)),
            None => drop(self.refused.get_mut(&model).and_then(|of_model| of_model.remove(&instance))),
        }
    }

    /// The last refusal of a place, also when it is over.
    pub(super) fn refusal(&self, model: &ModelId, instance: &InstanceId) -> Option<&Refused> {
        self.refused.get(model)?.get(instance)
    }

    /// Whether a place may be asked for now. `ahead`: for a load ahead of use; `free`: bytes that are free there.
    pub(super) fn may_ask(&self, now: Time, model: &ModelId, instance: &InstanceId, ahead: bool, free: u64) -> bool {
        let is_over = |refused: &Refused| {
            let changed = |before: &Ahead| now >= before.soon && (!ahead || free > before.free);
            now >= refused.until || refused.ahead.as_ref().is_some_and(changed)
        };
        !self.is_open(model, instance) && self.refusal(model, instance).is_none_or(is_over)
    }

    /// Forgets the refusals of a model that is no more.
    pub(super) fn forget(&mut self, model: &ModelId) {
        self.refused.remove(model);
    }
}
