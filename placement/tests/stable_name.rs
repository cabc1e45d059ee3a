//! Rule `stable-name` over a small world: instances with a few places, models that load or do not, proxies that acknowledge
//! late. Whatever happens, the name is answered as the rule says, and in the end by the right model.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::{collections::BTreeMap, time::Duration};

use modelring_placement::{
    id::{InstanceId, ModelId},
    rules::stable_name,
    time::Time,
    vmodel::{Copies, Facts, Order, Restart, VModel},
};
use proptest::prelude::*;

const TIMEOUT: Duration = Duration::from_secs(10);

/// Instances with `places` each, and what is ready on them.
#[derive(Clone, Debug)]
struct World {
    places: usize,
    ready: BTreeMap<InstanceId, Vec<ModelId>>,
    /// Models that never load.
    bad: Vec<ModelId>,
    /// Filled by others: nothing is free.
    crowded: bool,
    now: Time,
    canary: bool,
    room: Option<bool>,
}

fn model(name: &str) -> ModelId {
    ModelId::from(name)
}

impl World {
    fn new(instances: usize, places: usize, old_on: usize) -> Self {
        let id = |n: usize| InstanceId::from(format!("i{n}"));
        let holds = |n: usize| if n < old_on { vec![model("old")] } else { Vec::new() };
        Self {
            places,
            ready: (0..instances).map(|n| (id(n), holds(n))).collect(),
            bad: Vec::new(),
            crowded: false,
            now: Time::ZERO,
            canary: false,
            room: None,
        }
    }

    fn count(&self, of: &ModelId) -> u32 {
        u32::try_from(self.ready.values().filter(|holds| holds.contains(of)).count()).unwrap()
    }

    fn has_place(&self, holds: &[ModelId]) -> bool {
        !self.crowded && holds.len() < self.places
    }

    fn copies(&self, of: &ModelId) -> Copies {
        let mut others = self.ready.values().filter(|holds| !holds.contains(of));
        Copies { ready: self.count(of), no_space: others.all(|holds| !self.has_place(holds)) }
    }

    /// Loads one more copy where there is a place, as control's keeper does.
    fn keep(&mut self, of: &ModelId, least: u32) {
        if self.count(of) >= least || self.bad.contains(of) {
            return;
        }
        let (crowded, places) = (self.crowded, self.places);
        let free = self.ready.values_mut().find(|holds| !crowded && holds.len() < places && !holds.contains(of));
        if let Some(holds) = free {
            holds.push(of.clone());
        }
    }

    fn place_of(&self, of: &ModelId) -> Option<InstanceId> {
        self.ready.iter().find(|(_, holds)| holds.contains(of)).map(|(id, _)| id.clone())
    }

    /// One step of the vmodel and of the world around it.
    fn step(&mut self, vmodel: &VModel, wanted: &ModelId, acknowledged: bool, unknown: bool) -> VModel {
        let place = self.place_of(vmodel.active());
        let facts = Facts {
            now: self.now,
            wanted,
            unknown,
            max_copies: None,
            load_timeout: TIMEOUT,
            active: self.copies(vmodel.active()),
            target: self.copies(wanted),
            place: place.as_ref(),
            acknowledged,
            canary: self.canary,
            room: self.room,
        };
        let (next, order) = vmodel.step(&facts);
        assert!(stable_name::allows(vmodel, &next, &facts));
        if let Some(Order::MakeRoom { instance, model, replaces }) = order {
            let holds = self.ready.get_mut(&instance).unwrap();
            holds.retain(|held| *held != replaces);
            let loads = !self.bad.contains(&model);
            if loads {
                holds.push(model);
            }
            self.room = Some(loads);
        }
        for needed in [next.active(), wanted] {
            let least = next.needs(needed);
            self.keep(needed, least);
        }
        next
    }

    fn run(&mut self, vmodel: &mut VModel, wanted: &ModelId, seconds: u64) {
        for _ in 0..seconds {
            self.now = self.now + Duration::from_secs(1);
            *vmodel = self.step(vmodel, wanted, true, false);
        }
    }
}

#[test]
fn a_new_model_is_loaded_as_widely_as_the_old_one_before_the_name_moves() {
    let (mut world, mut vmodel) = (World::new(3, 2, 3), VModel::new(model("old")));
    for second in 1..=20 {
        world.run(&mut vmodel, &model("new"), 1);
        let moved = *vmodel.active() == model("new");
        assert!(!moved || world.count(&model("new")) == 3, "moved in second {second}");
    }
    assert!(vmodel.is_steady() && *vmodel.active() == model("new"));
}

#[test]
fn a_model_that_never_loads_leaves_the_old_one_in_service() {
    let (mut world, mut vmodel) = (World::new(3, 2, 2), VModel::new(model("old")));
    world.bad.push(model("new"));
    world.run(&mut vmodel, &model("new"), 60);
    assert_eq!((vmodel.active(), world.count(&model("old"))), (&model("old"), 2));
    assert_eq!(vmodel.target(), Some(&model("new")));
    world.run(&mut vmodel, &model("old"), 2);
    assert!(vmodel.is_steady(), "the spec went back");
}

#[test]
fn a_model_without_a_copy_is_followed_when_the_new_one_is_ready_on_one_instance() {
    for bad in [false, true] {
        let (mut world, mut vmodel) = (World::new(3, 2, 0), VModel::new(model("old")));
        world.bad.extend(bad.then(|| model("new")));
        for _ in 0..20 {
            vmodel = world.step(&vmodel, &model("new"), true, false);
            assert!(*vmodel.active() == model("old") || world.count(&model("new")) > 0);
            world.now = world.now + Duration::from_secs(1);
        }
        let expected = if bad { ("old", 0) } else { ("new", 1) };
        assert_eq!((vmodel.active(), world.count(&model("new"))), (&model(expected.0), expected.1));
    }
}

#[test]
fn without_space_one_of_several_copies_makes_room_after_the_load_timeout() {
    let (mut world, mut vmodel) = (World::new(2, 1, 2), VModel::new(model("old")));
    world.run(&mut vmodel, &model("new"), TIMEOUT.as_secs());
    assert_eq!((vmodel.active(), world.count(&model("old"))), (&model("old"), 2));
    world.run(&mut vmodel, &model("new"), 5);
    assert_eq!((vmodel.active(), world.count(&model("new"))), (&model("new"), 1));
}

#[test]
fn without_space_the_only_copy_makes_room_once_all_proxies_know_and_comes_back_if_that_fails() {
    for bad in [false, true] {
        let (mut world, mut vmodel) = (World::new(1, 1, 1), VModel::new(model("old")));
        world.bad.extend(bad.then(|| model("new")));
        world.run(&mut vmodel, &model("new"), TIMEOUT.as_secs() + 1);
        world.now = world.now + Duration::from_secs(1);
        for _ in 0..20 {
            vmodel = world.step(&vmodel, &model("new"), false, false);
        }
        assert_eq!(world.count(&model("old")), 1, "nothing goes before the proxies know");
        world.run(&mut vmodel, &model("new"), 60);
        let right = if bad { model("old") } else { model("new") };
        assert_eq!((vmodel.active(), world.count(&right)), (&right, 1));
        assert_eq!(vmodel.room_was_made(), bad, "it is tried once");
    }
}

#[test]
fn nothing_is_switched_while_an_instance_is_unknown() {
    let (mut world, mut vmodel) = (World::new(2, 2, 1), VModel::new(model("old")));
    for _ in 0..30 {
        world.now = world.now + Duration::from_secs(1);
        vmodel = world.step(&vmodel, &model("new"), true, true);
    }
    assert_eq!(*vmodel.active(), model("old"));
}

#[test]
fn a_restart_in_the_middle_of_a_change_takes_the_one_of_both_that_is_ready() {
    let restarted = |active_ready, before_ready, unknown| {
        let facts = Restart { active_ready, before_ready, unknown };
        VModel::restarted(Time::ZERO, model("new"), Some(model("old")), None, facts).active().clone()
    };
    assert_eq!(restarted(true, true, false), model("new"));
    assert_eq!(restarted(false, true, false), model("old"));
    assert_eq!(restarted(false, false, true), model("old"));
    assert_eq!(restarted(false, false, false), model("new"));
}

#[test]
fn room_that_was_made_in_vain_is_not_made_again_after_a_restart_until_the_spec_or_the_secret_changes() {
    let (mut world, mut vmodel) = (World::new(1, 1, 1), VModel::new(model("old")));
    world.bad.push(model("new"));
    world.run(&mut vmodel, &model("new"), 2 * TIMEOUT.as_secs());
    assert_eq!((vmodel.active(), vmodel.tried()), (&model("old"), Some(&model("new"))));

    let restart = Restart { active_ready: true, before_ready: false, unknown: false };
    let mut vmodel = VModel::restarted(world.now, model("old"), None, Some(model("new")), restart);
    world.room = None;
    world.run(&mut vmodel, &model("new"), 3 * TIMEOUT.as_secs());
    assert_eq!((world.room, world.count(&model("old"))), (None, 1), "nothing is taken from the one that serves");

    let mut with_a_new_secret = vmodel.clone();
    with_a_new_secret.forget_tries();
    for (vmodel, spec) in [(&mut with_a_new_secret, "new"), (&mut vmodel, "newer")] {
        world.room = None;
        world.bad = vec![model(spec)];
        world.run(vmodel, &model(spec), 3 * TIMEOUT.as_secs());
        assert_eq!((world.room, vmodel.active()), (Some(false), &model("old")), "it is tried once more for {spec}");
    }
}

#[test]
fn while_a_canary_is_on_the_old_model_stays_and_at_its_end_the_change_goes_through() {
    let (mut world, mut vmodel) = (World::new(2, 2, 1), VModel::new(model("old")));
    world.canary = true;
    world.run(&mut vmodel, &model("new"), 2 * TIMEOUT.as_secs());
    assert_eq!((vmodel.active(), vmodel.target()), (&model("old"), Some(&model("new"))));
    assert_eq!(world.count(&model("new")), 1, "it is loaded for its share of the calls");
    world.canary = false;
    world.run(&mut vmodel, &model("new"), 3);
    assert_eq!((vmodel.active(), vmodel.target()), (&model("new"), None));
}

/// Something that happens to the world.
#[derive(Clone, Debug)]
enum Happening {
    Second { acknowledged: bool, unknown: bool },
    Spec(usize),
    Crowd(bool),
    Lose(usize),
    Restart,
}

fn happenings() -> impl Strategy<Value = Vec<Happening>> {
    let one = prop_oneof![
        12 => (prop::bool::weighted(0.8), prop::bool::weighted(0.1))
            .prop_map(|(acknowledged, unknown)| Happening::Second { acknowledged, unknown }),
        1 => (0_usize..3).prop_map(Happening::Spec),
        1 => any::<bool>().prop_map(Happening::Crowd),
        1 => (0_usize..4).prop_map(Happening::Lose),
        1 => Just(Happening::Restart),
    ];
    proptest::collection::vec(one, 1..120)
}

proptest! {
    #[test]
    fn the_name_keeps_an_answer_whatever_happens_and_ends_at_the_model_of_the_spec(
        instances in 1_usize..4,
        places in 1_usize..3,
        old_on in 1_usize..4,
        bad in any::<bool>(),
        happenings in happenings(),
    ) {
        let specs = [model("old"), model("new"), model("newer")];
        let mut world = World::new(instances, places, old_on);
        world.bad.extend(bad.then(|| model("new")));
        let mut vmodel = VModel::new(model("old"));
        let mut wanted = model("new");
        for happening in happenings {
            match happening {
                Happening::Second { acknowledged, unknown } => {
                    world.now = world.now + Duration::from_secs(1);
                    let before = vmodel.clone();
                    let answered = world.count(before.active()) >= 1;
                    vmodel = world.step(&before, &wanted, acknowledged, unknown);
                    if answered && world.count(vmodel.active()) == 0 {
                        // Only to make room, and only with the way back kept.
                        prop_assert_eq!(vmodel.before(), Some(before.active()));
                    }
                }
                Happening::Spec(n) => wanted = specs[n].clone(),
                Happening::Crowd(crowded) => world.crowded = crowded,
                Happening::Lose(n) => {
                    if let Some(holds) = world.ready.values_mut().nth(n) {
                        holds.clear();
                    }
                }
                Happening::Restart => {
                    let restart = Restart {
                        active_ready: world.count(vmodel.active()) >= 1,
                        before_ready: vmodel.before().is_some_and(|before| world.count(before) >= 1),
                        unknown: false,
                    };
                    let before = vmodel.before().cloned();
                    let tried = vmodel.tried().cloned();
                    vmodel = VModel::restarted(world.now, vmodel.active().clone(), before, tried, restart);
                    world.room = None;
                }
            }
        }
        // Calm: the last spec, no crowd, and what nobody names is evicted.
        world.crowded = false;
        let good = if world.bad.contains(&wanted) { model("old") } else { wanted };
        for _ in 0..60 {
            for holds in world.ready.values_mut() {
                holds.retain(|held| *held == good || held == vmodel.active() || vmodel.before() == Some(held));
            }
            world.run(&mut vmodel, &good, 1);
        }
        prop_assert_eq!(vmodel.active(), &good);
        prop_assert_eq!(vmodel.before(), None);
    }
}
