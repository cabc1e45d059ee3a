//! A table as the snapshot that makes it: kept on disk over a restart.

use modelring_placement::{id::ModelRef, ring::RingParameters};
use modelring_proto::v1;

use super::{
    Table,
    entry::{Instance, Model, Tuning, VModel, Version},
};

impl Table {
    /// The update that makes this table, in the order of names.
    #[must_use]
    pub fn to_snapshot(&self) -> v1::RoutesUpdate {
        let classes = self.classes.values().map(|class| v1::Class {
            id: class.id.to_string(),
            runtimes: class.runtimes.iter().map(ToString::to_string).collect(),
        });
        let mut models: Vec<_> = self.models.iter().map(|(_, model)| model.to_proto()).collect();
        models.sort_by(|a, b| id_of(a).cmp(id_of(b)));
        let mut vmodels: Vec<_> = self.vmodels.iter().map(|(name, vmodel)| vmodel.to_proto(name)).collect();
        vmodels.sort_by(|a, b| a.name.cmp(&b.name));
        let wanted = self.wanted.iter().filter(|(id, _)| self.models.contains(id.as_str()));
        let mut wanted: Vec<_> =
            wanted.map(|(id, copies)| v1::Wanted { model: id.to_string(), copies: *copies }).collect();
        wanted.sort_by(|a, b| a.model.cmp(&b.model));
        let RingParameters { seed, points } = self.ring;
        let change = v1::TableChange {
            classes: classes.collect(),
            models,
            vmodels,
            instances: self.instances.values().map(|instance| instance.to_proto()).collect(),
            wanted,
            tuning: Some(self.tuning.to_proto()),
            ring: Some(v1::RingParameters { seed, points }),
            proxies: Some(self.proxies),
            ..Default::default()
        };
        v1::RoutesUpdate {
            version: Some(self.version.to_proto()),
            kind: v1::routes_update::Kind::SnapshotEnd.into(),
            change: Some(change),
            observed: None,
        }
    }
}

impl Version {
    /// As it travels.
    #[must_use]
    pub fn to_proto(self) -> v1::Version {
        v1::Version { epoch: self.epoch, n: self.n }
    }
}

impl From<v1::Version> for Version {
    fn from(version: v1::Version) -> Self {
        Self { epoch: version.epoch, n: version.n }
    }
}

impl Model {
    fn to_proto(&self) -> v1::Model {
        v1::Model {
            r#ref: Some(reference(&self.reference)),
            class: self.class.to_string(),
            max_copies: self.max_copies,
        }
    }
}

impl VModel {
    fn to_proto(&self, name: &str) -> v1::VModel {
        v1::VModel {
            name: name.to_owned(),
            active: self.active.to_string(),
            target: self.target.as_ref().map(ToString::to_string).unwrap_or_default(),
            target_weight: self.target_weight,
        }
    }
}

impl Instance {
    fn to_proto(&self) -> v1::Instance {
        v1::Instance {
            id: self.id.to_string(),
            pod_uid: self.pod_uid.to_string(),
            address: self.address.to_string(),
            runtime: self.runtime.to_string(),
            node: self.node.to_string(),
            zone: self.zone.to_string(),
            accepts_new: self.accepts_new,
            leaving: self.leaving,
        }
    }
}

impl Tuning {
    fn to_proto(&self) -> v1::Tuning {
        v1::Tuning {
            place_timeout_millis: u64::try_from(self.place_timeout.as_millis()).unwrap_or(u64::MAX),
            drain_timeout_millis: u64::try_from(self.drain_timeout.as_millis()).unwrap_or(u64::MAX),
            max_message_bytes: self.max_message as u64,
            rpcs: self.rules.to_proto(),
            allow_other_rpcs: Some(self.rules.allow_other),
        }
    }
}

/// A reference as agents are asked by it.
#[must_use]
pub fn reference(model: &ModelRef) -> v1::ModelRef {
    let load_timeout = model.load_timeout.map_or(0, |timeout| timeout.as_millis());
    v1::ModelRef {
        id: model.id.to_string(),
        r#type: model.model_type.clone(),
        path: model.path.clone(),
        key: model.key.clone(),
        size_hint: model.size_hint.unwrap_or_default(),
        load_timeout_millis: u64::try_from(load_timeout).unwrap_or(u64::MAX),
    }
}

fn id_of(model: &v1::Model) -> &str {
    model.r#ref.as_ref().map_or("", |reference| &reference.id)
}
