//! The table that is in force, and its versions.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use modelring_placement::id::ModelId;
use modelring_proto::v1::{
    Class, Instance, Model, ModelRef, Notices, RingParameters, TableChange, Tuning, VModel, Version, Wanted,
};

use super::{Core, catalog::Catalog, evaluate::Want, proxies::Delta, services::Service, table::Table};
use crate::{dataplane::Dataplane, settings::Settings, source::Notice};

/// Seed and points of all rings: the same in every control, so that a restart moves nothing.
pub(super) const RING: RingParameters = RingParameters { seed: 0, points: 160 };

/// The table in force.
#[derive(Debug, Default)]
pub(super) struct Published {
    table: Arc<Table>,
    /// n of its version; 0 = none was published.
    n: u64,
    /// Models of the table by class.
    classes: BTreeMap<String, usize>,
    /// Services of which it is not known in which table their entry last changed: the next one.
    undated: BTreeSet<String>,
}

// === impl Published ===

impl Published {
    pub(super) fn table(&self) -> &Arc<Table> {
        &self.table
    }

    pub(super) fn is_first(&self) -> bool {
        self.n == 0
    }

    /// Version of the table in force.
    pub(super) fn version(&self, epoch: u64) -> Version {
        Version { epoch, n: self.n }
    }

    /// A new epoch begins: the next table is its first.
    pub(super) fn start_over(&mut self) {
        self.n = 0;
    }
}

// === impl Core ===

impl Core {
    /// Puts the table with this change in force and tells all. Nothing is told where nothing changed.
    pub(super) fn publish(
        &mut self,
        catalog: &Catalog,
        instances: &BTreeMap<String, Instance>,
        all: bool,
        mut change: TableChange,
    ) {
        let (tuning, notices) = (tuning(&catalog.settings, &self.dataplane), self.notices(catalog));
        let (proxies, notices) = (self.proxies.count(), notices.into_iter().map(notice).collect::<Vec<_>>());
        let table = Arc::make_mut(&mut self.published.table);
        if all {
            for id in table.classes.keys().cloned().collect::<Vec<_>>() {
                let class = Class { runtimes: catalog.labels.serving(&id), id: id.clone() };
                set(&mut table.classes, id, class, &mut change.classes);
            }
            let gone: Vec<_> = table.instances.keys().filter(|id| !instances.contains_key(*id)).cloned().collect();
            for id in gone {
                unset(&mut table.instances, id, &mut change.removed_instances);
            }
            for (id, instance) in instances {
                set(&mut table.instances, id.clone(), instance.clone(), &mut change.instances);
            }
        }
        if table.tuning != tuning {
            change.tuning = Some(tuning.clone());
            table.tuning = tuning;
        }
        if table.ring != RING {
            change.ring = Some(RING);
            table.ring = RING;
        }
        if table.proxies != proxies {
            change.proxies = Some(proxies);
            table.proxies = proxies;
        }
        if table.notices != notices {
            change.notices = Some(Notices { notices: notices.clone() });
            table.notices = notices;
        }
        if change == TableChange::default() && !self.published.is_first() {
            self.admit();
            return;
        }
        self.published.n += 1;
        let version = self.published.version(self.epoch);
        let changed = change.vmodels.iter().map(|vmodel| &vmodel.name);
        for name in changed.chain(&std::mem::take(&mut self.published.undated)) {
            if let Some(service) = self.services.services.get_mut(name) {
                service.changed_at = Some(version.n);
            }
        }
        self.health.ready.set(Ok(()));
        // Who is dropped here changes the count of proxies: that is the next change.
        let dropped = self.proxies.send(&Arc::new(Delta { version, change }));
        self.admit();
        self.dirty |= dropped;
    }

    /// Lists a service in the table: its name, its models, the copies that they should have.
    pub(super) fn list(&mut self, catalog: &Catalog, name: &str, wants: Vec<Want>, change: &mut TableChange) {
        let Some(service) = self.services.services.get_mut(name) else { return };
        let table = Arc::make_mut(&mut self.published.table);
        let entries: Vec<Model> = service.named().map(|(_, kept)| service.entry(kept)).collect();
        for entry in entries {
            let id = entry.r#ref.as_ref().map(|reference| reference.id.clone()).unwrap_or_default();
            if table.models.get(&id).is_none_or(|before| before.class != entry.class) {
                let class = Class { id: entry.class.clone(), runtimes: catalog.labels.serving(&entry.class) };
                *self.published.classes.entry(entry.class.clone()).or_default() += 1;
                set(&mut table.classes, entry.class.clone(), class, &mut change.classes);
            }
            set(&mut table.models, id, entry, &mut change.models);
        }
        let vmodel = service.vmodel_entry(name);
        if service.changed_at.is_none() {
            self.published.undated.insert(name.to_owned());
        }
        set(&mut table.vmodels, name.to_owned(), vmodel, &mut change.vmodels);
        let before = std::mem::replace(&mut service.listed, wants.iter().map(|want| want.model.clone()).collect());
        let gone: Vec<ModelId> = before.into_iter().filter(|id| !service.listed.contains(id)).collect();
        for want in wants {
            let id = want.model.to_string();
            match want.copies {
                // One that stays and wants none is told so.
                0 => {
                    if Arc::make_mut(&mut table.wanted).remove(&id).is_some() {
                        change.wanted.push(Wanted { model: id, copies: 0 });
                    }
                }
                copies => set(&mut table.wanted, id.clone(), Wanted { model: id, copies }, &mut change.wanted),
            }
            self.wants.insert(want.model.clone(), want);
        }
        self.delist_models(&gone, change);
    }

    /// Takes a service out that is no longer asked for.
    pub(super) fn delist(&mut self, name: &str, change: &mut TableChange) {
        let memory = self.memory.clone();
        let service = self.services.remove(&*memory, name);
        if self.services.records.contains_key(name) {
            self.stale.names.insert(name.to_owned());
        }
        let Some(service) = service else { return };
        unset(&mut Arc::make_mut(&mut self.published.table).vmodels, name.to_owned(), &mut change.removed_vmodels);
        self.delist_models(&service.listed, change);
    }

    fn delist_models(&mut self, models: &[ModelId], change: &mut TableChange) {
        let table = Arc::make_mut(&mut self.published.table);
        for model in models {
            let id = model.to_string();
            Arc::make_mut(&mut table.wanted).remove(&id);
            if let Some(class) = table.models.get(&id).map(|entry| entry.class.clone())
                && let Some(count) = self.published.classes.get_mut(&class)
            {
                *count -= 1;
                if *count == 0 {
                    self.published.classes.remove(&class);
                    unset(&mut table.classes, class, &mut change.removed_classes);
                }
            }
            unset(&mut table.models, id, &mut change.removed_models);
            self.wants.remove(model);
            self.settled.remove(model);
            self.demand.remove(model);
            self.asks.forget(model);
        }
    }

    fn admit(&mut self) {
        let version = self.published.version(self.epoch);
        let before = self.proxies.count();
        self.proxies.admit(version, &self.published.table, &self.observed);
        self.dirty |= self.proxies.count() != before;
    }

    /// All that is wrong, for observers.
    pub(super) fn notices(&self, catalog: &Catalog) -> Vec<Notice> {
        let mut notices = catalog.notices.clone();
        notices.extend(self.dataplane_trouble.clone());
        for (address, agent) in &self.fleet.agents {
            let subject = format!("instance/{address}");
            notices.extend(agent.trouble.clone().map(|text| Notice { subject: subject.clone(), text }));
            if agent.ledger.hung > 0 {
                let text = format!("{} loads hang beyond all their timeouts: it gets no new ones", agent.ledger.hung);
                notices.push(Notice { subject, text });
            }
        }
        let troubles = self.services.services.iter();
        notices.extend(troubles.filter_map(|(name, service)| Some(catalog.about(name, service.trouble.clone()?))));
        notices.extend(self.proxies.notices());
        notices
    }
}

// === impl Service ===

impl Service {
    fn entry(&self, kept: &crate::source::KeptModel) -> Model {
        Model {
            r#ref: Some(self.reference(kept)),
            class: kept.model_type.clone(),
            max_copies: self.limits.max.unwrap_or(0),
        }
    }

    /// The complete reference of one of its models.
    pub(super) fn reference(&self, kept: &crate::source::KeptModel) -> ModelRef {
        let millis = self.load_timeout.map_or(0, |timeout| u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX));
        ModelRef {
            id: kept.id.clone(),
            r#type: kept.model_type.clone(),
            path: kept.path.clone(),
            key: kept.key.clone(),
            size_hint: 0,
            load_timeout_millis: millis,
        }
    }

    fn vmodel_entry(&self, name: &str) -> VModel {
        VModel {
            name: name.to_owned(),
            active: self.vmodel.active().to_string(),
            target: self.vmodel.target().map(ToString::to_string).unwrap_or_default(),
            target_weight: self.weight,
        }
    }
}

/// Sets an entry; one that is another than before is noted as changed.
fn set<V: Clone + PartialEq>(map: &mut Arc<BTreeMap<String, V>>, key: String, value: V, changed: &mut Vec<V>) {
    if map.get(&key) != Some(&value) {
        changed.push(value.clone());
        Arc::make_mut(map).insert(key, value);
    }
}

/// Takes an entry out; one that was there is noted as removed.
fn unset<V: Clone>(map: &mut Arc<BTreeMap<String, V>>, key: String, removed: &mut Vec<String>) {
    if map.contains_key(&key) {
        Arc::make_mut(map).remove(&key);
        removed.push(key);
    }
}

fn tuning(settings: &Settings, dataplane: &Dataplane) -> Tuning {
    let millis = |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    Tuning {
        place_timeout_millis: millis(settings.place_timeout),
        drain_timeout_millis: millis(settings.drain_timeout),
        max_message_bytes: settings.max_message_bytes,
        rpcs: dataplane.rules(),
        allow_other_rpcs: Some(dataplane.allow_other_rpcs),
    }
}

fn notice(notice: Notice) -> modelring_proto::v1::Notice {
    modelring_proto::v1::Notice { subject: notice.subject, text: notice.text }
}
