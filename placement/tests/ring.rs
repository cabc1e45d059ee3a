//! The order of candidates and the spread of copies.

use std::collections::HashMap;

use modelring_placement::{
    id::{InstanceId, ModelId},
    ring::{Member, Placing, Ring, RingParameters, Spread, owners, place_next},
    rules::same_order,
};
use proptest::prelude::*;

fn member(n: usize) -> Member {
    Member {
        id: InstanceId::from(format!("runtime-{n}")),
        node: Some(format!("node-{}", n / 2).into()),
        zone: Some(format!("zone-{}", n % 3).into()),
        accepts_new: true,
        leaving: false,
    }
}

fn members(n: usize) -> Vec<Member> {
    (0..n).map(member).collect()
}

fn ring(members: &[Member]) -> Ring {
    Ring::new(RingParameters::default(), members.iter().map(|member| member.id.clone()))
}

fn model(n: usize) -> ModelId {
    ModelId::from(format!("model-{n}__isvc-0123456789"))
}

fn order(members: &[Member], model: &ModelId) -> Vec<InstanceId> {
    ring(members).order(model, |id| members.iter().find(|member| member.id == *id))
}

/// 2,000 models and their first owners.
fn first_owners(members: &[Member]) -> HashMap<ModelId, InstanceId> {
    let ring = ring(members);
    let lookup = |id: &InstanceId| members.iter().find(|member| member.id == *id);
    (0..2_000).map(model).map(|model| (model.clone(), ring.first(&model, 1, lookup)[0].clone())).collect()
}

#[test]
fn an_order_never_changes_between_versions_of_this_program() {
    let ids: Vec<String> = order(&members(5), &model(1)).iter().map(ToString::to_string).collect();
    assert_eq!(ids, ["runtime-4", "runtime-0", "runtime-3", "runtime-1", "runtime-2"]);
}

#[test]
fn another_seed_gives_another_ring() {
    let members = members(20);
    let other = Ring::new(RingParameters { seed: 7, points: 160 }, members.iter().map(|member| member.id.clone()));
    let lookup = |id: &InstanceId| members.iter().find(|member| member.id == *id);
    let differ =
        (0..100).filter(|n| ring(&members).order(&model(*n), lookup) != other.order(&model(*n), lookup)).count();
    assert!(differ > 90, "{differ} of 100 orders differ");
}

#[test]
fn when_an_instance_leaves_only_its_own_models_move() {
    let all = members(20);
    let before = first_owners(&all);
    let after = first_owners(&all[1..]);
    let moved: Vec<_> = before.iter().filter(|(model, owner)| after[*model] != **owner).collect();
    assert!(moved.iter().all(|(_, owner)| **owner == all[0].id));
    assert!(!moved.is_empty() && moved.len() < 2_000 / 20 * 2, "{} of 2000 moved", moved.len());
}

#[test]
fn models_are_spread_evenly_enough_over_the_instances() {
    let all = members(20);
    let mut load: HashMap<InstanceId, usize> = HashMap::new();
    for owner in first_owners(&all).into_values() {
        *load.entry(owner).or_default() += 1;
    }
    assert!(all.iter().all(|member| (50..=150).contains(&load[&member.id])), "{load:?}");
}

#[test]
fn where_no_instance_accepts_all_do() {
    let open = members(6);
    let shut: Vec<Member> = open.iter().cloned().map(|member| Member { accepts_new: false, ..member }).collect();
    assert_eq!(order(&shut, &model(3)), order(&open, &model(3)));
}

#[test]
fn an_empty_class_has_no_candidate() {
    assert!(ring(&[]).is_empty());
    assert!(order(&[], &model(1)).is_empty());
}

#[test]
fn a_further_copy_goes_to_another_node_and_zone_before_the_next_in_the_ring() {
    let at = |id: &str, node: &str, zone: &str| Member {
        id: id.into(),
        node: Some(node.into()),
        zone: Some(zone.into()),
        accepts_new: true,
        leaving: false,
    };
    let all = [at("a", "n1", "z1"), at("b", "n1", "z1"), at("c", "n2", "z1"), at("d", "n3", "z2")];
    let lookup = |id: &InstanceId| all.iter().find(|member| member.id == *id);
    let order: Vec<InstanceId> = all.iter().map(|member| member.id.clone()).collect();
    let placed = |instance: &str, spread| Some(Placing { instance: instance.into(), spread });

    assert_eq!(place_next(&order, &[], lookup), placed("a", Spread::Apart));
    assert_eq!(place_next(&order, &order[..1], lookup), placed("d", Spread::Apart));
    assert_eq!(place_next(&order, &["a".into(), "d".into()], lookup), placed("c", Spread::SameZone));
    assert_eq!(place_next(&order, &["a".into(), "d".into(), "c".into()], lookup), placed("b", Spread::SameNode));
    assert_eq!(place_next(&order, &order, lookup), None);
    let ids: Vec<String> = owners(&order, 3, lookup).iter().map(ToString::to_string).collect();
    assert_eq!(ids, ["a", "d", "c"]);
    assert_eq!(owners(&order, 0, lookup).len(), 1);
}

#[test]
fn spread_does_not_bring_a_copy_to_an_instance_that_does_not_accept() {
    let all = [
        Member { node: Some("n1".into()), ..member(0) },
        Member { node: Some("n1".into()), ..member(1) },
        Member { node: Some("n2".into()), accepts_new: false, ..member(2) },
    ];
    let lookup = |id: &InstanceId| all.iter().find(|member| member.id == *id);
    let order: Vec<InstanceId> = all.iter().map(|member| member.id.clone()).collect();
    let next = place_next(&order, &order[..1], lookup).map(|placing| placing.instance);
    assert_eq!(next, Some(all[1].id.clone()));
}

proptest! {
    #[test]
    fn every_process_computes_the_same_order_whatever_the_sequence_of_its_table(
        flags in prop::collection::vec((any::<bool>(), any::<bool>()), 1..30),
        n in 0usize..1000,
        turn in 0usize..30,
    ) {
        let mut all: Vec<Member> = flags.iter().enumerate()
            .map(|(n, (accepts_new, leaving))| Member { accepts_new: *accepts_new, leaving: *leaving, ..member(n) })
            .collect();
        let one = order(&all, &model(n));
        prop_assert!(same_order::holds(&one, &all), "{one:?}");
        all.reverse();
        let turn = turn % all.len();
        all.rotate_left(turn);
        prop_assert_eq!(&one, &order(&all, &model(n)));

        let lookup = |id: &InstanceId| all.iter().find(|member| member.id == *id);
        let ring = ring(&all);
        for limit in 0..=one.len() {
            prop_assert_eq!(&ring.first(&model(n), limit, lookup)[..], &one[..limit]);
        }
    }

    #[test]
    fn owners_are_distinct_members_of_the_order(count in 1usize..20, want in 0usize..25, n in 0usize..1000) {
        let all = members(count);
        let order = order(&all, &model(n));
        let owners = owners(&order, want, |id| all.iter().find(|member| member.id == *id));
        prop_assert_eq!(owners.len(), want.max(1).min(count));
        prop_assert_eq!(&owners[0], &order[0]);
        prop_assert!(owners.iter().enumerate().all(|(at, id)| order.contains(id) && !owners[..at].contains(id)));
    }
}
