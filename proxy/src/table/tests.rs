//! Deltas make the table that a snapshot of the same state makes; what does not apply changes nothing; a change is small.

use std::collections::BTreeMap;

use modelring_proto::v1::{self, routes_update::Kind};
use proptest::prelude::*;

use super::{Inbox, Refusal, Table, Version};

fn class(id: &str, runtimes: &[&str]) -> v1::Class {
    v1::Class { id: id.into(), runtimes: runtimes.iter().map(ToString::to_string).collect() }
}

fn model(id: &str, class: &str) -> v1::Model {
    let reference = v1::ModelRef { id: id.into(), r#type: class.into(), path: format!("p/{id}"), ..Default::default() };
    v1::Model { r#ref: Some(reference), class: class.into(), max_copies: 0 }
}

fn vmodel(name: &str, active: &str, target: &str) -> v1::VModel {
    v1::VModel { name: name.into(), active: active.into(), target: target.into(), target_weight: 0 }
}

fn instance(id: &str, runtime: &str) -> v1::Instance {
    let address = format!("10.0.0.1:{}", 10_000 + id.len());
    v1::Instance { id: id.into(), address, runtime: runtime.into(), accepts_new: true, ..Default::default() }
}

fn update(epoch: u64, n: u64, kind: Kind, change: v1::TableChange) -> v1::RoutesUpdate {
    v1::RoutesUpdate {
        version: Some(v1::Version { epoch, n }),
        kind: kind.into(),
        change: Some(change),
        observed: None,
    }
}

fn snapshot(n: u64, change: v1::TableChange) -> Table {
    let made = Inbox::default().receive(None, update(1, n, Kind::SnapshotEnd, change));
    made.expect("a snapshot that fits").expect("a whole snapshot")
}

fn small() -> Table {
    snapshot(
        1,
        v1::TableChange {
            classes: vec![class("c", &["r"])],
            models: vec![model("m", "c"), model("n", "c")],
            vmodels: vec![vmodel("v", "m", "")],
            instances: vec![instance("i", "r"), instance("ii", "r"), instance("other", "s")],
            ..Default::default()
        },
    )
}

fn delta(base: &Table, change: v1::TableChange) -> Result<Option<Table>, Refusal> {
    let Version { epoch, n } = base.version;
    Inbox::default().receive(Some(base), update(epoch, n + 1, Kind::Delta, change))
}

#[test]
fn a_snapshot_counts_only_when_it_is_whole() {
    let mut inbox = Inbox::default();
    let chunk = |kind, change| inbox.receive(None, update(1, 7, kind, change));
    let mut chunk = chunk;
    let models = v1::TableChange { models: vec![model("m", "c")], ..Default::default() };
    assert!(chunk(Kind::SnapshotChunk, models).expect("a chunk").is_none());
    let classes = v1::TableChange { classes: vec![class("c", &["r"])], ..Default::default() };
    let table = chunk(Kind::SnapshotEnd, classes).expect("a chunk").expect("the end");
    assert_eq!(table.version, Version { epoch: 1, n: 7 });
    assert!(table.model("m").is_some());
}

#[test]
fn chunks_of_two_snapshots_do_not_mix() {
    let mut inbox = Inbox::default();
    let classes = v1::TableChange { classes: vec![class("c", &["r"])], ..Default::default() };
    assert!(inbox.receive(None, update(1, 1, Kind::SnapshotChunk, classes)).expect("a chunk").is_none());
    let models = v1::TableChange { models: vec![model("m", "c")], ..Default::default() };
    let refused = inbox.receive(None, update(1, 2, Kind::SnapshotEnd, models)).err();
    assert_eq!(refused, Some(Refusal::Wrong("model `m` is of unknown class `c`".into())));
}

#[test]
fn a_change_that_does_not_fit_is_refused_with_its_reason() {
    let table = small();
    let reason = |change| delta(&table, change).err().map(|refusal| refusal.to_string()).unwrap_or_default();
    let dangling = v1::TableChange { vmodels: vec![vmodel("w", "nowhere", "")], ..Default::default() };
    assert_eq!(reason(dangling), "vmodel `w` points at unknown model `nowhere`");
    let removed = v1::TableChange { removed_models: vec!["m".into()], ..Default::default() };
    assert_eq!(reason(removed), "model `m` was removed while a vmodel points at it");
    let classless = v1::TableChange { models: vec![model("x", "nope")], ..Default::default() };
    assert_eq!(reason(classless), "model `x` is of unknown class `nope`");
    let orphans = v1::TableChange { removed_classes: vec!["c".into()], ..Default::default() };
    assert!(reason(orphans).ends_with("is of unknown class `c`"));
    let nameless = v1::TableChange { models: vec![v1::Model::default()], ..Default::default() };
    assert_eq!(reason(nameless), "a model has no id");
}

#[test]
fn a_delta_applies_to_the_table_just_before_it_alone() {
    let table = small();
    let receive = |last, epoch, n| {
        let change = v1::TableChange { proxies: Some(3), ..Default::default() };
        Inbox::default().receive(last, update(epoch, n, Kind::Delta, change))
    };
    assert_eq!(receive(Some(&table), 1, 2).expect("the next").expect("a table").proxies, 3);
    for (epoch, n) in [(1, 1), (1, 3), (2, 2)] {
        let refused = receive(Some(&table), epoch, n).err();
        assert_eq!(refused, Some(Refusal::OtherBase { of: Version { epoch, n }, last: Some(table.version) }));
    }
    assert!(matches!(receive(None, 1, 1), Err(Refusal::OtherBase { last: None, .. })));
}

#[test]
fn a_table_of_a_lower_epoch_is_refused() {
    let table = snapshot(4, v1::TableChange::default());
    let older = update(0, 9, Kind::SnapshotEnd, v1::TableChange::default());
    let refused = Inbox::default().receive(Some(&table), older).err();
    let expected = Refusal::OlderControl { of: Version { epoch: 0, n: 9 }, last: table.version };
    assert_eq!(refused, Some(expected));
    let newer = update(2, 1, Kind::SnapshotEnd, v1::TableChange::default());
    assert!(Inbox::default().receive(Some(&table), newer).expect("a newer epoch").is_some());
}

#[test]
fn candidates_are_the_instances_of_the_class_and_change_with_its_marks() {
    let table = small();
    let order = |table: &Table| {
        let model = table.model("m").expect("it is there");
        let class = table.class(&model.class).expect("it is there");
        assert_eq!(model.candidates(class).to_vec(), model.all_candidates(class));
        model.candidates(class).iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let before = order(&table);
    assert_eq!(before.len(), 2);
    let first = v1::Instance { accepts_new: false, ..instance(&before[0], "r") };
    let marked = v1::TableChange { instances: vec![first], ..Default::default() };
    let after = delta(&table, marked).expect("a mark").expect("a table");
    assert_eq!(order(&after), [before[1].clone(), before[0].clone()]);
    assert_eq!(order(&table), before, "the old version still sees its own order");
}

#[test]
fn one_model_more_among_100_000_copies_few_entries() {
    let models = (0..100_000).map(|n| model(&format!("model-{n}__isvc-0123456789"), "c")).collect();
    let vmodels = (0..100_000).map(|n| vmodel(&format!("v{n}"), &format!("model-{n}__isvc-0123456789"), ""));
    let classes = vec![class("c", &["r"])];
    let table = snapshot(1, v1::TableChange { classes, models, vmodels: vmodels.collect(), ..Default::default() });
    let change = v1::TableChange {
        models: vec![model("new", "c")],
        vmodels: vec![vmodel("v7", "new", "model-7__isvc-0123456789")],
        removed_vmodels: vec!["v8".into()],
        removed_models: vec!["model-8__isvc-0123456789".into()],
        ..Default::default()
    };
    let after = delta(&table, change).expect("it fits").expect("a table");
    assert_eq!(after.models(), 100_000);
    let copied = after.models.copied_since(&table.models)
        + after.vmodels.copied_since(&table.vmodels)
        + after.references.copied_since(&table.references);
    assert!((1..1_000).contains(&copied), "{copied} entries were copied");
    assert_eq!(after.wanted.copied_since(&table.wanted), 0);
}

/// The desired state as plain maps: what the table should be.
#[derive(Clone, Debug, Default)]
struct State {
    classes: BTreeMap<String, v1::Class>,
    models: BTreeMap<String, v1::Model>,
    vmodels: BTreeMap<String, v1::VModel>,
    instances: BTreeMap<String, v1::Instance>,
    wanted: BTreeMap<String, u32>,
    proxies: u32,
}

impl State {
    fn apply(&mut self, change: &v1::TableChange) {
        change.removed_classes.iter().for_each(|id| drop(self.classes.remove(id)));
        for id in &change.removed_models {
            self.models.remove(id);
            self.wanted.remove(id);
        }
        change.removed_vmodels.iter().for_each(|name| drop(self.vmodels.remove(name)));
        change.removed_instances.iter().for_each(|id| drop(self.instances.remove(id)));
        self.classes.extend(change.classes.iter().map(|class| (class.id.clone(), class.clone())));
        let id = |model: &v1::Model| model.r#ref.clone().unwrap_or_default().id;
        self.models.extend(change.models.iter().map(|model| (id(model), model.clone())));
        self.vmodels.extend(change.vmodels.iter().map(|vmodel| (vmodel.name.clone(), vmodel.clone())));
        self.instances.extend(change.instances.iter().map(|instance| (instance.id.clone(), instance.clone())));
        let known = change.wanted.iter().filter(|wanted| self.models.contains_key(&wanted.model));
        self.wanted.extend(known.map(|wanted| (wanted.model.clone(), wanted.copies)));
        self.proxies = change.proxies.unwrap_or(self.proxies);
    }

    fn fits(&self) -> bool {
        let points = self.vmodels.values().flat_map(|vmodel| [&vmodel.active, &vmodel.target]);
        self.models.values().all(|model| self.classes.contains_key(&model.class))
            && points.filter(|id| !id.is_empty()).all(|id| self.models.contains_key(id))
    }

    fn change(&self) -> v1::TableChange {
        let wanted = self.wanted.iter().filter(|(id, _)| self.models.contains_key(*id));
        v1::TableChange {
            classes: self.classes.values().cloned().collect(),
            models: self.models.values().cloned().collect(),
            vmodels: self.vmodels.values().cloned().collect(),
            instances: self.instances.values().cloned().collect(),
            wanted: wanted.map(|(model, copies)| v1::Wanted { model: model.clone(), copies: *copies }).collect(),
            proxies: Some(self.proxies),
            ..Default::default()
        }
    }
}

fn changes() -> impl Strategy<Value = v1::TableChange> {
    let name = |prefix: &'static str, n: u32| (0..n).prop_map(move |at| format!("{prefix}{at}"));
    let names = move |prefix, n| proptest::collection::vec(name(prefix, n), 0..2);
    let target = prop_oneof![2 => Just(String::new()), 1 => name("m", 6)];
    let vmodels = (name("v", 4), name("m", 6), target).prop_map(|(v, active, target)| vmodel(&v, &active, &target));
    let models = (name("m", 6), name("c", 3)).prop_map(|(id, class)| model(&id, &class));
    let classes = (name("c", 3), name("r", 3)).prop_map(|(id, runtime)| class(&id, &[&runtime]));
    let instances = (name("i", 4), name("r", 3), any::<bool>())
        .prop_map(|(id, runtime, leaving)| v1::Instance { leaving, ..instance(&id, &runtime) });
    let wanted = (name("m", 6), 0..4_u32).prop_map(|(model, copies)| v1::Wanted { model, copies });
    let sets = (
        proptest::collection::vec(classes, 0..2),
        proptest::collection::vec(models, 0..4),
        proptest::collection::vec(vmodels, 0..2),
        proptest::collection::vec(instances, 0..2),
        proptest::collection::vec(wanted, 0..2),
    );
    let removed = (names("c", 3), names("m", 6), names("v", 4), names("i", 4));
    (sets, removed, proptest::option::of(0..5_u32)).prop_map(|(sets, removed, proxies)| v1::TableChange {
        classes: sets.0,
        models: sets.1,
        vmodels: sets.2,
        instances: sets.3,
        wanted: sets.4,
        removed_classes: removed.0,
        removed_models: removed.1,
        removed_vmodels: removed.2,
        removed_instances: removed.3,
        proxies,
        ..Default::default()
    })
}

proptest! {
    #[test]
    fn deltas_make_the_table_that_a_snapshot_makes(changes in proptest::collection::vec(changes(), 1..40)) {
        let start = State { classes: BTreeMap::from([("c0".into(), class("c0", &["r0"]))]), ..State::default() };
        let mut state = start.clone();
        let mut table = snapshot(1, start.change());
        for change in changes {
            let mut next = state.clone();
            next.apply(&change);
            match delta(&table, change) {
                Ok(applied) => {
                    prop_assert!(next.fits(), "a change was applied that does not fit");
                    (state, table) = (next, applied.expect("a delta is whole"));
                }
                Err(refusal) => prop_assert!(!next.fits(), "refused although it fits: {refusal}"),
            }
        }
        let whole = snapshot(table.version.n, state.change());
        prop_assert_eq!(table.to_snapshot(), whole.to_snapshot());
        for (id, _) in table.models.iter() {
            let order = |table: &Table| {
                let model = table.model(id.as_str()).expect("it is there");
                model.candidates(table.class(&model.class).expect("it is there"))
            };
            prop_assert_eq!(order(&table), order(&whole));
        }
    }
}
