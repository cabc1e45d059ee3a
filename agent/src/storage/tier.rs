//! The account of the disk: files of loaded models, and of models that were unloaded and may come back.
//!
//! Pure: it says what may stay and what goes; `store` moves the files.

use std::collections::HashMap;

use modelring_placement::id::ModelId;

use super::record::Record;

/// The account.
#[derive(Debug)]
pub(super) struct Tier {
    /// Most bytes of all files.
    limit: u64,
    items: HashMap<ModelId, Item>,
    /// Counts uses, so that the least recent one is known.
    uses: u64,
}

/// Files of one model.
#[derive(Debug, Default)]
struct Item {
    /// On disk, or promised to a pull.
    bytes: u64,
    /// Who uses them: a pull, a load, a loaded copy.
    pins: u32,
    /// Known where the files are whole and may be used again.
    record: Option<Record>,
    used: u64,
}

/// Why there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoRoom {
    /// Bytes that all files may take.
    pub(super) limit: u64,
    /// Bytes of files in use.
    pub(super) in_use: u64,
    /// Bytes that the volume has for files: free, or taken by files that may go.
    pub(super) available: u64,
}

// === impl Tier ===

impl Tier {
    pub(super) fn new(limit: u64) -> Self {
        Self { limit, items: HashMap::new(), uses: 0 }
    }

    /// Files of an earlier start, the least recently used ones first.
    pub(super) fn add(&mut self, model: ModelId, record: Record) {
        self.uses += 1;
        self.items.insert(model, Item { bytes: record.bytes, pins: 0, record: Some(record), used: self.uses });
    }

    /// From now on the files of a model stay.
    pub(super) fn pin(&mut self, model: &ModelId) {
        self.uses += 1;
        let item = self.items.entry(model.clone()).or_default();
        item.pins += 1;
        item.used = self.uses;
    }

    /// One user less.
    pub(super) fn unpin(&mut self, model: &ModelId) {
        let Some(item) = self.items.get_mut(model) else { return };
        item.pins = item.pins.saturating_sub(1);
        self.uses += 1;
        item.used = self.uses;
        if item.pins == 0 && item.record.is_none() {
            self.items.remove(model);
        }
    }

    /// What is known of the files of a model.
    pub(super) fn record(&self, model: &ModelId) -> Option<&Record> {
        self.items.get(model)?.record.as_ref()
    }

    /// Whether anyone uses the files of a model.
    pub(super) fn is_pinned(&self, model: &ModelId) -> bool {
        self.items.get(model).is_some_and(|item| item.pins > 0)
    }

    /// Promises room to a pull of a pinned model, whose former files count no more. Says whose files must go for it.
    /// `free`: bytes that the volume has free.
    pub(super) fn reserve(&mut self, model: &ModelId, bytes: u64, free: u64) -> Result<Vec<ModelId>, NoRoom> {
        if let Some(item) = self.items.get_mut(model) {
            item.bytes = 0;
            item.record = None;
        }
        // What is promised to pulls is not written yet, or only in part.
        let promised: u64 = self.items.values().filter(|item| item.record.is_none()).map(|item| item.bytes).sum();
        let (mut used, mut free) = (self.used(), free.saturating_sub(promised));
        let mut idle: Vec<_> = self.items.iter().filter(|(_, item)| item.pins == 0).collect();
        idle.sort_unstable_by_key(|(_, item)| item.used);
        let mut victims = Vec::new();
        for (victim, item) in idle {
            if used.saturating_add(bytes) <= self.limit && bytes <= free {
                break;
            }
            used -= item.bytes;
            free += item.bytes;
            victims.push(victim.clone());
        }
        if used.saturating_add(bytes) > self.limit || bytes > free {
            return Err(NoRoom { limit: self.limit, in_use: used, available: free });
        }
        for victim in &victims {
            self.items.remove(victim);
        }
        self.items.entry(model.clone()).or_default().bytes = bytes;
        Ok(victims)
    }

    /// The files that were promised room are there.
    pub(super) fn keep(&mut self, model: &ModelId, record: Record) {
        let item = self.items.entry(model.clone()).or_default();
        item.bytes = record.bytes;
        item.record = Some(record);
    }

    /// The files of a model are not to be used again.
    pub(super) fn forget(&mut self, model: &ModelId) {
        if let Some(item) = self.items.get_mut(model) {
            item.record = None;
            if item.pins == 0 {
                self.items.remove(model);
            }
        }
    }

    /// Whose files must go for the rest to be within the limit.
    pub(super) fn trim(&mut self) -> Vec<ModelId> {
        let mut idle: Vec<_> = self.items.iter().filter(|(_, item)| item.pins == 0).collect();
        idle.sort_unstable_by_key(|(_, item)| item.used);
        let mut over = self.used().saturating_sub(self.limit);
        let mut victims = Vec::new();
        for (victim, item) in idle {
            if over == 0 {
                break;
            }
            over = over.saturating_sub(item.bytes);
            victims.push(victim.clone());
        }
        for victim in &victims {
            self.items.remove(victim);
        }
        victims
    }

    /// Bytes of all files, on disk or promised.
    pub(super) fn used(&self) -> u64 {
        self.items.values().map(|item| item.bytes).fold(0, u64::saturating_add)
    }

    /// Most bytes of all files.
    pub(super) fn limit(&self) -> u64 {
        self.limit
    }
}

#[cfg(test)]
#[path = "tier/tests.rs"]
mod tests;
