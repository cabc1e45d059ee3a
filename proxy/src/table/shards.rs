//! A map in many small parts that are shared between versions: changing one entry copies one part, never the whole.

use std::{
    borrow::Borrow,
    collections::{HashMap, hash_map::RandomState},
    hash::{BuildHasher, Hash},
    sync::Arc,
};

/// Parts of a map. At a million entries a part holds about 250, so a change copies about 250 pointers.
pub const PARTS: usize = 4096;

/// A map from names to cheaply cloned values. Cloning it shares all parts.
#[derive(Clone)]
pub struct Shards<K, V> {
    hasher: RandomState,
    parts: Vec<Arc<HashMap<K, V, RandomState>>>,
    len: usize,
}

// === impl Shards ===

impl<K, V> Default for Shards<K, V> {
    fn default() -> Self {
        let hasher = RandomState::new();
        let empty = Arc::new(HashMap::with_hasher(hasher.clone()));
        Self { hasher, parts: vec![empty; PARTS], len: 0 }
    }
}

impl<K: Borrow<str> + Hash + Eq + Clone, V: Clone> Shards<K, V> {
    /// The value of `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&V> {
        self.parts[self.part(name)].get(name)
    }

    /// Whether there is a value of `name`.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Sets the value of `name` and returns the one before.
    pub fn insert(&mut self, name: K, value: V) -> Option<V> {
        let part = self.part(name.borrow());
        let before = Arc::make_mut(&mut self.parts[part]).insert(name, value);
        self.len += usize::from(before.is_none());
        before
    }

    /// Removes `name`; a part that does not hold it is not copied.
    pub fn remove(&mut self, name: &str) -> Option<V> {
        let part = self.part(name);
        if !self.parts[part].contains_key(name) {
            return None;
        }
        self.len -= 1;
        Arc::make_mut(&mut self.parts[part]).remove(name)
    }

    /// Entries in all.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All entries, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.parts.iter().flat_map(|part| part.iter())
    }

    /// Entries in those parts that `before` does not share: what a change has copied.
    #[must_use]
    pub fn copied_since(&self, before: &Self) -> usize {
        let parts = self.parts.iter().zip(&before.parts);
        parts.filter(|(now, then)| !Arc::ptr_eq(now, then)).map(|(now, _)| now.len()).sum()
    }

    fn part(&self, name: &str) -> usize {
        // The middle bits: the map inside a part uses the lowest and the highest ones.
        (self.hasher.hash_one(name) >> 40) as usize % PARTS
    }
}
