//! The table that is in force, and its versions.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use modelring_proto::v1::{Class, Instance, Model, ModelRef, RingParameters, Tuning, VModel, Version, Wanted};

use super::{Core, about_service, catalog::Catalog, proxies::Delta, services::Service, table::Table};
use crate::{dataplane::Dataplane, settings::Settings, source::Notice};

/// Seed and points of all rings: the same in every control, so that a restart moves nothing.
pub(super) const RING: RingParameters = RingParameters { seed: 0, points: 160 };

/// The table in force.
#[derive(Debug, Default)]
pub(super) struct Published {
    table: Arc<Table>,
    /// n of its version; 0 = none was published.
    n: u64,
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
    /// Puts a table in force and tells all. Nothing is told where nothing changed.
    pub(super) fn publish(&mut self, mut table: Table) {
        table.proxies = self.proxies.count();
        let before = self.published.table.clone();
        table.share_with(&before);
        let change = table.change_since(&before);
        if change.is_none() && !self.published.is_first() {
            self.admit();
            return;
        }
        self.published.n += 1;
        let version = self.published.version(self.epoch);
        let change = change.unwrap_or_default();
        let changed: BTreeSet<&str> = change.vmodels.iter().map(|vmodel| vmodel.name.as_str()).collect();
        for (name, service) in &mut self.services.services {
            if service.changed_at.is_none() || changed.contains(name.as_str()) {
                service.changed_at = Some(version.n);
            }
        }
        self.published.table = Arc::new(table);
        self.health.ready.set(Ok(()));
        // Who is dropped here changes the count of proxies: that is the next change.
        let dropped = self.proxies.send(&Arc::new(Delta { version, change }));
        self.admit();
        self.dirty |= dropped;
    }

    fn admit(&mut self) {
        let version = self.published.version(self.epoch);
        let before = self.proxies.count();
        self.proxies.admit(version, &self.published.table);
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
        notices.extend(troubles.filter_map(|(name, service)| Some(about_service(name, service.trouble.clone()?))));
        notices.extend(self.proxies.notices());
        notices
    }

    /// The table of all that is known.
    pub(super) fn table(
        &self,
        catalog: &Catalog,
        instances: BTreeMap<String, Instance>,
        wanted: BTreeMap<String, Wanted>,
    ) -> Table {
        let (mut classes, mut models, mut vmodels) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for (name, service) in &self.services.services {
            for (_, kept) in service.named() {
                let class = &kept.model_type;
                if !classes.contains_key(class) {
                    let runtimes = catalog.labels.serving(class);
                    classes.insert(class.clone(), Class { id: class.clone(), runtimes });
                }
                models.insert(kept.id.clone(), service.entry(kept));
            }
            vmodels.insert(name.clone(), service.vmodel_entry(name));
        }
        Table {
            classes: Arc::new(classes),
            models: Arc::new(models),
            vmodels: Arc::new(vmodels),
            instances: Arc::new(instances),
            wanted: Arc::new(wanted),
            tuning: tuning(&catalog.settings, &self.dataplane),
            ring: RING,
            proxies: 0,
            notices: self.notices(catalog).into_iter().map(notice).collect(),
        }
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
