//! Whose turn it is: waiter, keep, scale, ahead; within one, first asked first.

use std::collections::BTreeMap;

use super::Why;
use crate::id::ModelId;

/// Loads of one kind that may wait.
const MAX_OF_A_KIND: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct Queue {
    models: BTreeMap<(Why, u64), ModelId>,
    asked: u64,
}

// === impl Queue ===

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.models.len()
    }

    /// Whether a further load of this kind may wait.
    pub(super) fn has_room(&self, why: Why) -> bool {
        self.iter_of(why).count() < MAX_OF_A_KIND
    }

    /// A new last number.
    pub(super) fn next_order(&mut self) -> u64 {
        self.asked += 1;
        self.asked
    }

    pub(super) fn insert(&mut self, why: Why, order: u64, model: ModelId) {
        self.models.insert((why, order), model);
    }

    pub(super) fn remove(&mut self, why: Why, order: u64) -> bool {
        self.models.remove(&(why, order)).is_some()
    }

    /// Loads before this one.
    pub(super) fn place(&self, why: Why, order: u64) -> usize {
        self.models.range(..(why, order)).count()
    }

    pub(super) fn iter_of(&self, why: Why) -> impl Iterator<Item = &ModelId> {
        self.models.range((why, 0)..=(why, u64::MAX)).map(|(_, model)| model)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &ModelId> {
        self.models.values()
    }
}
