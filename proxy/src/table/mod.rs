//! What control tells the proxies: models, vmodels, classes, instances, wanted copies, tuning.
//!
//! A [`Table`] is one immutable value. A request loads it once and sees that version to its end (rule `one-version`).
//! Versions share all that did not change ([`Shards`]), so that a delta to a million models copies a few hundred
//! pointers. [`Inbox`] turns the updates of control into tables and refuses whole what does not apply.

mod draft;
mod entry;
mod export;
mod inbox;
mod rules;
mod shards;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc};

use modelring_placement::{
    id::{InstanceId, ModelId},
    ring::RingParameters,
};

pub use entry::{Class, Instance, Model, Tuning, VModel, Version};
pub use export::reference;
pub use inbox::{Inbox, Refusal};
pub use rules::{Rule, Rules};
pub use shards::{PARTS, Shards};

/// One version of the table.
#[derive(Clone, Default)]
pub struct Table {
    /// Its version.
    pub version: Version,
    /// Settings.
    pub tuning: Arc<Tuning>,
    /// Proxies that are connected to control; a copy's concurrency limit is shared among them.
    pub proxies: u32,
    models: Shards<ModelId, Arc<Model>>,
    vmodels: Shards<Arc<str>, Arc<VModel>>,
    wanted: Shards<ModelId, u32>,
    /// How many vmodels point at a model.
    references: Shards<ModelId, u32>,
    classes: Arc<BTreeMap<Arc<str>, Arc<Class>>>,
    instances: Arc<BTreeMap<InstanceId, Arc<Instance>>>,
    ring: RingParameters,
}

// === impl Table ===

impl Table {
    /// The model of this id.
    #[must_use]
    pub fn model(&self, id: &str) -> Option<&Arc<Model>> {
        self.models.get(id)
    }

    /// The vmodel of this name.
    #[must_use]
    pub fn vmodel(&self, name: &str) -> Option<&Arc<VModel>> {
        self.vmodels.get(name)
    }

    /// The class of this id.
    #[must_use]
    pub fn class(&self, id: &str) -> Option<&Arc<Class>> {
        self.classes.get(id)
    }

    /// The instance of this id.
    #[must_use]
    pub fn instance(&self, id: &str) -> Option<&Arc<Instance>> {
        self.instances.get(id)
    }

    /// All instances by id.
    #[must_use]
    pub fn instances(&self) -> &BTreeMap<InstanceId, Arc<Instance>> {
        &self.instances
    }

    /// Copies that a model should have; 0 where control said nothing.
    #[must_use]
    pub fn wanted(&self, id: &str) -> u32 {
        self.wanted.get(id).copied().unwrap_or_default()
    }

    /// Number of models.
    #[must_use]
    pub fn models(&self) -> usize {
        self.models.len()
    }
}
