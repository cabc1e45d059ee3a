//! The table that proxies hold copies of: built anew from plain data, told as a snapshot in chunks and then as deltas.

use std::{collections::BTreeMap, sync::Arc};

use modelring_proto::v1::{
    Class, Instance, Model, Notice, Notices, RingParameters, RoutesUpdate, TableChange, Tuning, VModel, Version,
    Wanted, routes_update::Kind,
};

/// Entries in one chunk of a snapshot.
const CHUNK: usize = 1000;

/// A whole table. Maps are shared between versions as long as they are the same.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    /// Classes by id.
    pub classes: Arc<BTreeMap<String, Class>>,
    /// Models by id.
    pub models: Arc<BTreeMap<String, Model>>,
    /// VModels by name.
    pub vmodels: Arc<BTreeMap<String, VModel>>,
    /// Instances by id.
    pub instances: Arc<BTreeMap<String, Instance>>,
    /// Wanted copies by model.
    pub wanted: Arc<BTreeMap<String, Wanted>>,
    /// Settings.
    pub tuning: Tuning,
    /// Parameters of all rings.
    pub ring: RingParameters,
    /// Connected proxies.
    pub proxies: u32,
    /// What is wrong; for observers.
    pub notices: Vec<Notice>,
}

// === impl Table ===

impl Table {
    /// The whole table in chunks, one at a time: they are made as they are sent.
    pub fn snapshot(&self, version: Version, observer: bool) -> impl Iterator<Item = RoutesUpdate> {
        let update = move |kind: Kind, change: TableChange| RoutesUpdate {
            version: Some(version),
            kind: kind.into(),
            change: Some(change),
            observed: None,
        };
        let classes = chunks(&self.classes, |classes| TableChange { classes, ..TableChange::default() });
        let models = chunks(&self.models, |models| TableChange { models, ..TableChange::default() });
        let vmodels = chunks(&self.vmodels, |vmodels| TableChange { vmodels, ..TableChange::default() });
        let instances = chunks(&self.instances, |instances| TableChange { instances, ..TableChange::default() });
        let wanted = chunks(&self.wanted, |wanted| TableChange { wanted, ..TableChange::default() });
        let end = TableChange {
            tuning: Some(self.tuning.clone()),
            ring: Some(self.ring),
            proxies: Some(self.proxies),
            notices: observer.then(|| Notices { notices: self.notices.clone() }),
            ..TableChange::default()
        };
        classes
            .chain(models)
            .chain(vmodels)
            .chain(instances)
            .chain(wanted)
            .map(move |change| update(Kind::SnapshotChunk, change))
            .chain(std::iter::once(update(Kind::SnapshotEnd, end)))
    }
}

fn chunks<V: Clone>(
    map: &Arc<BTreeMap<String, V>>,
    change: impl Fn(Vec<V>) -> TableChange,
) -> impl Iterator<Item = TableChange> {
    // Each chunk is found from the last key, so that nothing but the map itself is held.
    let map = map.clone();
    let mut last: Option<String> = None;
    std::iter::from_fn(move || {
        let from = match &last {
            Some(last) => std::ops::Bound::Excluded(last.clone()),
            None => std::ops::Bound::Unbounded,
        };
        let chunk: Vec<(&String, &V)> = map.range((from, std::ops::Bound::Unbounded)).take(CHUNK).collect();
        let next = chunk.last().map(|(key, _)| (*key).clone())?;
        let values = chunk.into_iter().map(|(_, value)| value.clone()).collect();
        last = Some(next);
        Some(change(values))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(models: usize) -> Table {
        let model = |n: usize| (format!("m{n:06}"), VModel { name: format!("m{n:06}"), ..VModel::default() });
        Table { vmodels: Arc::new((0..models).map(model).collect()), ..Table::default() }
    }

    #[test]
    fn a_snapshot_of_many_models_comes_in_chunks_and_is_whole() {
        let table = table(2500);
        let updates: Vec<_> = table.snapshot(Version { epoch: 1, n: 7 }, false).collect();
        assert_eq!(updates.len(), 4);
        let names: Vec<_> = updates
            .iter()
            .flat_map(|update| update.change.clone().unwrap().vmodels)
            .map(|vmodel| vmodel.name)
            .collect();
        assert!(names.iter().eq(table.vmodels.keys()));
        assert_eq!(updates[3].kind, i32::from(Kind::SnapshotEnd));
        assert!(updates[3].change.as_ref().unwrap().notices.is_none());
    }
}
