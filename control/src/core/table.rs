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
    /// Takes the maps of `before` where this table has the same.
    pub(crate) fn share_with(&mut self, before: &Self) {
        fn share<V: PartialEq>(own: &mut Arc<BTreeMap<String, V>>, before: &Arc<BTreeMap<String, V>>) {
            if own == before {
                own.clone_from(before);
            }
        }
        share(&mut self.classes, &before.classes);
        share(&mut self.models, &before.models);
        share(&mut self.vmodels, &before.vmodels);
        share(&mut self.instances, &before.instances);
        share(&mut self.wanted, &before.wanted);
    }

    /// What changed from `before` to this table; `None` if nothing did.
    pub(crate) fn change_since(&self, before: &Self) -> Option<TableChange> {
        let mut change = TableChange::default();
        let (wanted, dropped) = changed(&before.wanted, &self.wanted);
        change.wanted = wanted;
        // A model that is in the table no longer wants anything; one that stays and wants none is told so.
        change.wanted.extend(
            dropped
                .into_iter()
                .filter(|model| self.models.contains_key(model))
                .map(|model| Wanted { model, copies: 0 }),
        );
        (change.classes, change.removed_classes) = changed(&before.classes, &self.classes);
        (change.models, change.removed_models) = changed(&before.models, &self.models);
        (change.vmodels, change.removed_vmodels) = changed(&before.vmodels, &self.vmodels);
        (change.instances, change.removed_instances) = changed(&before.instances, &self.instances);
        change.tuning = (self.tuning != before.tuning).then(|| self.tuning.clone());
        change.ring = (self.ring != before.ring).then_some(self.ring);
        change.proxies = (self.proxies != before.proxies).then_some(self.proxies);
        change.notices = (self.notices != before.notices).then(|| Notices { notices: self.notices.clone() });
        (change != TableChange::default()).then_some(change)
    }

    /// The whole table in chunks, one at a time: they are made as they are sent.
    pub fn snapshot(&self, version: Version, observer: bool) -> impl Iterator<Item = RoutesUpdate> {
        let update = move |kind: Kind, change: TableChange| RoutesUpdate {
            version: Some(version),
            kind: kind.into(),
            change: Some(change),
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

/// The entries that are new or another, and the keys that are gone.
fn changed<V: Clone + PartialEq>(
    before: &Arc<BTreeMap<String, V>>,
    after: &Arc<BTreeMap<String, V>>,
) -> (Vec<V>, Vec<String>) {
    if Arc::ptr_eq(before, after) {
        return (Vec::new(), Vec::new());
    }
    let set = after.iter().filter(|(key, value)| before.get(*key) != Some(value)).map(|(_, value)| value.clone());
    let removed = before.keys().filter(|key| !after.contains_key(*key)).cloned();
    (set.collect(), removed.collect())
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

    #[test]
    fn a_change_names_what_is_new_and_what_is_gone_and_nothing_else() {
        let (before, mut after) = (table(5), table(4));
        assert_eq!(before.change_since(&before.clone()), None);
        Arc::make_mut(&mut after.vmodels).get_mut("m000001").unwrap().active = "x".to_owned();
        let change = after.change_since(&before).unwrap();
        assert_eq!(change.vmodels.len(), 1);
        assert_eq!(change.removed_vmodels, ["m000004"]);
        assert_eq!(change.proxies, None);
    }
}
