//! The loads that control has asked for, and the refusals that it remembers.

use std::{
    collections::{BTreeSet, HashMap},
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

/// A model on an instance.
pub type Place = (ModelId, InstanceId);

/// Asked and refused loads.
#[derive(Debug, Default)]
pub(super) struct Asks {
    open: HashMap<ModelId, BTreeSet<InstanceId>>,
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
}

// === impl Asks ===

impl Asks {
    pub(super) fn begin(&mut self, place: Place) {
        let (model, instance) = place;
        self.open_count += usize::from(self.open.entry(model).or_default().insert(instance));
    }

    pub(super) fn count(&self) -> usize {
        self.open_count
    }

    pub(super) fn is_full(&self) -> bool {
        self.open_count >= MOST_OPEN
    }

    pub(super) fn is_open(&self, model: &ModelId, instance: &InstanceId) -> bool {
        self.open.get(model).is_some_and(|instances| instances.contains(instance))
    }

    /// The instances that are asked for a model.
    pub(super) fn open_of(&self, model: &ModelId) -> impl Iterator<Item = InstanceId> + use<> {
        self.open.get(model).cloned().unwrap_or_default().into_iter()
    }

    /// The text of some refusal of a model for want of space.
    pub(super) fn last_text(&self, model: &ModelId) -> Option<&str> {
        let of_model = self.refused.get(model)?.values().filter(|why| why.space);
        of_model.max_by_key(|why| why.until).map(|why| why.text.as_str())
    }

    /// Takes in what came of an ask.
    pub(super) fn end(&mut self, now: Time, place: Place, answer: &Answer) {
        if let Some(instances) = self.open.get_mut(&place.0) {
            self.open_count -= usize::from(instances.remove(&place.1));
            if instances.is_empty() {
                self.open.remove(&place.0);
            }
        }
        let refused = match answer {
            Answer::Loaded { .. } => None,
            // The copy itself shows the failure, and how long it counts.
            Answer::Failed(error) => {
                Some(Refused { until: now + AGAIN_AFTER_LOSS, space: false, text: error.text.clone() })
            }
            Answer::Refused { reason, retry_after, text } => {
                let space = matches!(reason, Reason::Full | Reason::Churn | Reason::Pinned | Reason::Disk);
                let pause = (*retry_after).max(if space && retry_after.is_zero() {
                    AGAIN_AFTER_SPACE
                } else {
                    AGAIN_AFTER_LOSS
                });
                Some(Refused { until: now + pause, space, text: text.clone() })
            }
            Answer::Lost(text) => Some(Refused { until: now + AGAIN_AFTER_LOSS, space: false, text: text.clone() }),
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

    /// Whether a place may be asked for now.
    pub(super) fn may_ask(&self, now: Time, model: &ModelId, instance: &InstanceId) -> bool {
        !self.is_open(model, instance) && self.refusal(model, instance).is_none_or(|refused| now >= refused.until)
    }

    /// Forgets the refusals of a model that is no more.
    pub(super) fn forget(&mut self, model: &ModelId) {
        self.refused.remove(model);
    }
}
