//! Which copies of a model may be ready, for the request threads: read without a lock.

use std::{
    collections::{HashMap, hash_map::RandomState},
    hash::BuildHasher,
    sync::Arc,
};

use arc_swap::ArcSwap;
use modelring_placement::id::ModelId;
use parking_lot::Mutex;

use super::copy::Copy;

const PARTS: usize = 1024;

type Part = HashMap<ModelId, Arc<[Arc<Copy>]>>;

/// Copies by model. A change copies the part that it is in.
pub struct Index {
    hasher: RandomState,
    parts: Vec<ArcSwap<Part>>,
    /// Held by whoever changes a part.
    writer: Mutex<()>,
}

// === impl Index ===

impl Default for Index {
    fn default() -> Self {
        let parts = (0..PARTS).map(|_| ArcSwap::default()).collect();
        Self { hasher: RandomState::new(), parts, writer: Mutex::default() }
    }
}

impl Index {
    /// Looks at the copies of a model; each says itself whether it is usable.
    pub fn with<R>(&self, model: &str, look: impl FnOnce(&[Arc<Copy>]) -> R) -> R {
        let part = self.part(model).load();
        look(part.get(model).map_or(&[], |copies| copies))
    }

    /// Adds a copy.
    pub(super) fn add(&self, copy: &Arc<Copy>) {
        self.change(&copy.model, |copies| copies.push(copy.clone()));
    }

    /// Takes a copy out.
    pub(super) fn remove(&self, copy: &Arc<Copy>) {
        self.change(&copy.model, |copies| copies.retain(|other| !Arc::ptr_eq(other, copy)));
    }

    fn change(&self, model: &ModelId, change: impl FnOnce(&mut Vec<Arc<Copy>>)) {
        let _one_writer = self.writer.lock();
        let part = self.part(model.as_str());
        let mut next = Part::clone(&part.load());
        let mut copies = next.get(model).map(|copies| copies.to_vec()).unwrap_or_default();
        change(&mut copies);
        if copies.is_empty() {
            next.remove(model);
        } else {
            next.insert(model.clone(), copies.into());
        }
        part.store(Arc::new(next));
    }

    fn part(&self, model: &str) -> &ArcSwap<Part> {
        &self.parts[self.hasher.hash_one(model) as usize % PARTS]
    }
}
