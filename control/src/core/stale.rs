//! What is to be derived anew. A change of one service costs what one service costs: only what bears on all of them (the
//! instances, who of them is live, the labels of the runtimes) has all of them looked at.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
};

use modelring_placement::{
    id::{InstanceId, ModelId},
    time::Time,
};
use modelring_proto::v1::Instance;

use super::{Core, catalog::Catalog, fleet::Copies};
use crate::classes::RuntimeLabels;

/// What changed since the last derivation.
#[derive(Debug, Default)]
pub(super) struct Stale {
    pub(super) all: bool,
    pub(super) names: BTreeSet<String>,
    around: Option<Around>,
    /// Models with failed copies: that ends with time.
    failing: BTreeSet<ModelId>,
}

/// What all services depend on.
#[derive(Debug, PartialEq)]
struct Around {
    instances: BTreeMap<String, Instance>,
    agents: Vec<Surrounding>,
    labels: RuntimeLabels,
}

/// One listed agent.
#[derive(Debug, PartialEq)]
struct Surrounding {
    address: String,
    id: Option<InstanceId>,
    runtime: String,
    live: bool,
    unknown: bool,
    load_timeout: u64,
    /// Counts its snapshots.
    told: u64,
}

// === impl Stale ===

impl Stale {
    /// Something about this model changed. Its id begins with the name of its service.
    pub(super) fn model(&mut self, model: &str) {
        let name = model.split("__").next().unwrap_or_default();
        if !self.names.contains(name) {
            self.names.insert(name.to_owned());
        }
    }
}

// === impl Core ===

impl Core {
    /// Has every service derived anew at the next evaluation: what comes of it is what is in force, or a change was missed.
    pub fn derive_all(&mut self) {
        self.stale.all = true;
    }

    /// Looks whether anything changed that bears on all services.
    pub(super) fn look_around(&mut self, now: Time, catalog: &Catalog, instances: &BTreeMap<String, Instance>) {
        let agents = self.fleet.agents.iter().map(|(address, agent)| Surrounding {
            address: address.clone(),
            id: agent.id(),
            runtime: agent.runtime().to_owned(),
            live: agent.is_live(now),
            unknown: agent.is_unknown(now),
            load_timeout: agent.hello.as_ref().map_or(0, |hello| hello.load_timeout_millis),
            told: agent.told,
        });
        let around = Around { instances: instances.clone(), agents: agents.collect(), labels: catalog.labels.clone() };
        // What is hot on an instance that leaves cools down with time.
        let leaving = instances.values().any(|instance| instance.leaving);
        self.stale.all |= leaving || self.published.is_first() || self.stale.around.as_ref() != Some(&around);
        self.stale.around = Some(around);
    }

    /// Counts the copies that moved; their services are stale. Returns all copies, and the models that moved.
    pub(super) fn recount(&mut self, now: Time) -> (std::collections::HashMap<ModelId, Copies>, BTreeSet<ModelId>) {
        let mut copies = mem::take(&mut self.fleet.copies);
        let mut moved = mem::take(&mut self.fleet.moved);
        moved.append(&mut self.stale.failing);
        if self.stale.all {
            copies = self.fleet.count_all(now, &self.namespace);
            self.stale.failing = failing(copies.iter());
            return (copies, moved);
        }
        if moved.is_empty() {
            return (copies, moved);
        }
        let present = self.fleet.present(&self.namespace);
        for model in &moved {
            self.stale.model(model.as_str());
            let counted = self.fleet.count(now, &present, model);
            if counted == Copies::default() {
                copies.remove(model);
            } else {
                copies.insert(model.clone(), counted);
            }
        }
        self.stale.failing = failing(moved.iter().filter_map(|model| copies.get_key_value(model)));
        (copies, moved)
    }

    /// Demand falls with time alone.
    pub(super) fn age_demand(&mut self, now: Time) {
        self.demand.retain(|model, wanted| {
            let copies = wanted.demand.copies(now);
            if copies != wanted.seen {
                wanted.seen = copies;
                self.stale.model(model.as_str());
            }
            !wanted.demand.is_over(now)
        });
        self.waits |= !self.demand.is_empty() || !self.stale.failing.is_empty();
    }

    /// The services to derive now.
    pub(super) fn take_stale(&mut self, catalog: &Catalog) -> BTreeSet<String> {
        let mut names = mem::take(&mut self.stale.names);
        if mem::take(&mut self.stale.all) {
            names.extend(catalog.services.keys().cloned());
            names.extend(self.services.services.keys().cloned());
            names.extend(self.services.records.keys().cloned());
        }
        names
    }
}

fn failing<'a>(copies: impl Iterator<Item = (&'a ModelId, &'a Copies)>) -> BTreeSet<ModelId> {
    copies.filter(|(_, copies)| !copies.failed.is_empty()).map(|(model, _)| model.clone()).collect()
}
