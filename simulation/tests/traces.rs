//! The orders of events in which earlier wordings of the contract broke a promise, each driven by hand in a whole mesh.
//! Where a single state machine decides, it has a test of the same name in `modelring-placement` as well.

use std::time::Duration;

use modelring_placement::pod::CopyState;
use modelring_simulation::{
    call::Outcome,
    desired::Profile,
    faults::Fault,
    millis,
    process::Node,
    queue::Nanos,
    secs,
    world::{Shape, World},
};

/// One proxy, one pod with room for one model of 80, no churn guard.
fn small() -> Shape {
    Shape { pods: 1, proxies: 1, churn: Duration::ZERO, ..Shape::default() }
}

/// A mesh that has started, with these services: name, bytes, least copies.
fn mesh(shape: Shape, services: &[(&str, u64, u32)]) -> World {
    let mut world = World::new(7, shape);
    for (name, bytes, min) in services {
        world.desires.set(name, &format!("{name}/0"), Profile::of(*bytes, 300), *min, 0);
    }
    world.start_all();
    world.run(secs(7));
    world
}

fn model(world: &World, service: &str) -> String {
    world.desires.model(service).expect("it is asked for").to_string()
}

/// What a pod says of a model.
fn state(world: &World, pod: usize, model: &str) -> &'static str {
    let copies = world.pods[pod].agent.iter().flat_map(|agent| agent.pod.copies());
    match copies.into_iter().find(|copy| copy.model.as_str() == model).map(|copy| copy.state) {
        None | Some(CopyState::Gone) => "GONE",
        Some(CopyState::Queued) => "QUEUED",
        Some(CopyState::Loading { .. }) => "LOADING",
        Some(CopyState::Ready { .. }) => "READY",
        Some(CopyState::Draining { .. }) => "DRAINING",
        Some(CopyState::Failed { .. }) => "FAILED",
    }
}

/// Whether the server itself holds a model.
fn holds(world: &World, pod: usize, model: &str) -> bool {
    world.pods[pod].server.models.keys().any(|held| held.as_str() == model)
}

/// A call that is waited for.
fn ask(world: &mut World, proxy: usize, service: &str) -> Outcome {
    let call = world.call(proxy, service, None);
    world.run_until(secs(120), |world| world.outcome(call).is_some());
    world.outcome(call).cloned().expect("every call is answered")
}

/// Calls of a service by a proxy, one every 50 ms for so long.
fn steady(world: &mut World, proxy: usize, service: &str, time: Nanos) {
    let end = world.now + time;
    while world.now < end {
        world.call(proxy, service, None);
        world.run(millis(50));
    }
}

/// No rule is broken, and what is under way ends.
#[track_caller]
fn all_is_well(world: &mut World) {
    world.heal();
    world.run(secs(100));
    assert_eq!(world.broken(), None);
    let late = world.calls.values().find(|call| call.end.is_none());
    assert!(late.is_none(), "{late:?}");
}

/// The lease of a proxy lives on where its agent is killed and back at once: the new agent unloads nothing for 3 s.
#[test]
fn trace_new_agent_unloads_at_once() {
    let mut world = mesh(small(), &[("a", 80, 0)]);
    let a = model(&world, "a");
    assert_eq!(ask(&mut world, 0, "a"), Outcome::Ok(a.clone()));
    world.fault(Fault::Kill(Node::Agent(0), millis(20)));
    steady(&mut world, 0, "a", millis(2800));
    assert!(holds(&world, 0, &a), "nothing is purged yet");
    steady(&mut world, 0, "a", secs(3));
    all_is_well(&mut world);
    assert_eq!(world.checks.counted("calls of unloaded models"), 0);
}

/// The server dies and is back, empty, before its agent has noticed: no pong confirms a connection to it.
#[test]
fn trace_server_back_before_noticed() {
    let mut world = mesh(Shape { notice: Some(secs(3)), ..small() }, &[("a", 80, 0)]);
    ask(&mut world, 0, "a");
    world.fault(Fault::Kill(Node::Server(0), millis(10)));
    steady(&mut world, 0, "a", secs(4));
    all_is_well(&mut world);
    assert_eq!(world.checks.counted("calls of unloaded models"), 0);
    assert!(world.checks.counted("loads") >= 2, "it was loaded anew");
}

/// The agent's end of a stream ends and the proxy's does not: its lease goes on, and with it the copy.
#[test]
fn trace_lease_forgotten_with_the_stream() {
    let mut world = mesh(Shape { proxies: 2, ..small() }, &[("a", 80, 0), ("b", 80, 0)]);
    let a = model(&world, "a");
    ask(&mut world, 0, "a");
    world.run(secs(4));
    world.cut((Node::Agent(0), 1), (Node::Proxy(0), secs(4)));
    let cut = world.now;
    let b = world.call(1, "b", None);
    for _ in 0..36 {
        world.call(0, "a", Some(Duration::from_millis(200)));
        world.run(millis(50));
    }
    assert!(holds(&world, 0, &a), "proxy 0 may still believe in it");
    assert!(world.run_until(secs(8), |world| !holds(world, 0, &a)));
    assert!(world.now >= cut + millis(2400), "the last ping came at most half a second before the cut");
    world.run_until(secs(20), |world| world.outcome(b).is_some());
    assert!(matches!(world.outcome(b), Some(Outcome::Ok(_))));
    all_is_well(&mut world);
    assert_eq!(world.checks.counted("calls of unloaded models"), 0);
}

/// Pings do not come for 4 s, the copy goes for another; when the stream is there again nothing revives the old view.
#[test]
fn trace_pong_overtakes_snapshot() {
    let mut world = mesh(Shape { proxies: 2, ..small() }, &[("a", 80, 0), ("b", 80, 0)]);
    ask(&mut world, 0, "a");
    world.run(secs(4));
    world.block(Node::Proxy(0), Node::Agent(0), secs(5));
    world.block(Node::Agent(0), Node::Proxy(0), secs(5));
    let b = world.call(1, "b", None);
    steady(&mut world, 0, "a", secs(9));
    assert!(world.run_until(secs(40), |world| world.outcome(b).is_some()));
    all_is_well(&mut world);
    assert_eq!(world.checks.counted("calls of unloaded models"), 0);
}

/// An agent dies while its server loads: the next one grants nothing before the server's index shows nothing.
#[test]
fn trace_load_in_flight_at_a_crash() {
    let mut world = mesh(small(), &[("a", 80, 0), ("b", 80, 0)]);
    ask(&mut world, 0, "b");
    world.desires.set_profile("a/0", Profile::of(80, 6000));
    let a = model(&world, "a");
    world.call(0, "a", None);
    assert!(world.run_until(secs(5), |world| holds(world, 0, &a)), "the server is at it");
    world.fault(Fault::Kill(Node::Agent(0), millis(100)));
    let b = world.call(0, "b", None);
    assert!(world.run_until(secs(60), |world| world.outcome(b).is_some()));
    all_is_well(&mut world);
}

/// A load runs into its timeout: it stays charged until the server has answered it.
#[test]
fn trace_load_given_up_still_runs() {
    let mut world = mesh(small(), &[("a", 80, 0), ("b", 80, 0)]);
    ask(&mut world, 0, "b");
    world.run(secs(4));
    let loads = world.checks.counted("loads");
    world.desires.set_profile("a/0", Profile::of(80, 11_000));
    world.call(0, "a", None);
    world.run(secs(9));
    let b = world.call(0, "b", None);
    world.run_until(secs(2), |world| world.checks.counted("loads") > loads + 1);
    assert_eq!(world.checks.counted("loads"), loads + 1, "b waits for what a may still take");
    world.run_until(secs(60), |world| world.outcome(b).is_some());
    assert!(matches!(world.outcome(b), Some(Outcome::Ok(_))), "{:?}", world.outcome(b));
    all_is_well(&mut world);
}

/// The end of the old server is told late, when the new one is loading already.
#[test]
fn trace_gone_credits_a_new_load() {
    let mut world = mesh(Shape { notice: Some(millis(900)), ..small() }, &[("a", 50, 0), ("b", 50, 0)]);
    ask(&mut world, 0, "a");
    world.fault(Fault::Kill(Node::Server(0), millis(10)));
    for service in ["b", "a", "b", "a"] {
        world.call(0, service, None);
        world.run(millis(400));
    }
    world.run(secs(10));
    all_is_well(&mut world);
}

/// A control that stood still goes on with what it believed: its hints have a lower epoch and count for nothing.
#[test]
fn trace_hints_of_an_old_control() {
    let mut world = mesh(Shape { controls: 2, ..small() }, &[("a", 80, 1)]);
    let a = model(&world, "a");
    world.run(secs(5));
    assert_eq!(state(&world, 0, &a), "READY");
    // It believes that the service is gone and has not said so yet.
    world.freeze(Node::Control(0), secs(30));
    world.fault(Fault::Remove("a".to_owned()));
    world.start(Node::Control(1));
    world.run(secs(5));
    world.fault(Fault::Set("a".to_owned(), "a/0".to_owned(), Profile::of(80, 300), 1, 0));
    world.run(secs(120));
    assert_eq!(state(&world, 0, &a), "READY");
    assert!(!world.process(Node::Control(0)).up, "it has heard of the other and ended");
    assert_eq!(world.broken(), None);
}

/// A proxy that dials the older of two controls keeps the table of the newer one.
#[test]
fn trace_table_goes_back() {
    let mut world = mesh(Shape { controls: 2, ..small() }, &[("a", 80, 0)]);
    world.freeze(Node::Control(0), secs(20));
    world.start(Node::Control(1));
    world.run(secs(1));
    world.cut((Node::Control(0), 1), (Node::Proxy(0), 1));
    let newer = |world: &mut World| {
        let table = world.proxies[0].running.as_ref().and_then(|running| running.fleet.table());
        table.is_some_and(|table| table.version.epoch == 2)
    };
    let came = world.run_until(secs(19), |world| newer(world));
    assert!(came, "one of its dials finds the newer one");
    world.cut((Node::Control(1), 1), (Node::Proxy(0), 1));
    world.run(secs(60));
    assert!(newer(&mut world));
    assert_eq!(world.broken(), None, "no table of a lower epoch was installed");
    assert!(!world.process(Node::Control(0)).up);
}

/// A stale proxy asks for a model that is gone: it is loaded once more and goes when it is out of use. Made again, it
/// stays.
#[test]
fn trace_zombie_of_a_deleted_model() {
    let mut world = mesh(small(), &[("a", 30, 0), ("b", 30, 1)]);
    let a = model(&world, "a");
    world.block(Node::Control(0), Node::Proxy(0), secs(3));
    world.fault(Fault::Remove("a".to_owned()));
    world.run(secs(1));
    assert_eq!(ask(&mut world, 0, "a"), Outcome::Ok(a.clone()), "the proxy has not heard of it");
    assert!(world.run_until(secs(75), |world| state(world, 0, &a) == "GONE"));
    assert_eq!(ask(&mut world, 0, "a"), Outcome::Reason("NM", String::new()));
    world.fault(Fault::Set("a".to_owned(), "a/0".to_owned(), Profile::of(30, 300), 1, 0));
    world.run(secs(5));
    world.fault(Fault::Remove("a".to_owned()));
    world.run(secs(20));
    world.fault(Fault::Set("a".to_owned(), "a/0".to_owned(), Profile::of(30, 300), 1, 0));
    world.run(secs(200));
    assert_eq!(state(&world, 0, &a), "READY", "the earlier deletion does not unload it");
    all_is_well(&mut world);
}

/// The old model has no copy any more and the new one never loads: the name stays with the old one, which is loaded again.
#[test]
fn trace_both_versions_lost() {
    let mut world = mesh(small(), &[("a", 30, 0)]);
    let old = model(&world, "a");
    assert_eq!(ask(&mut world, 0, "a"), Outcome::Ok(old.clone()));
    world.fault(Fault::Wipe(0, millis(500)));
    let broken = Profile { bad: true, ..Profile::of(30, 300) };
    world.fault(Fault::Set("a".to_owned(), "a/1".to_owned(), broken, 0, 0));
    world.run(secs(30));
    assert_eq!(ask(&mut world, 0, "a"), Outcome::Ok(old), "callers never get the broken one");
    all_is_well(&mut world);
}

/// Control restarts and does not hear the agent with the old model: that it sees no copy of it is no reason to switch.
#[test]
fn trace_switch_without_snapshots() {
    let mut world = mesh(Shape { pods: 2, ..small() }, &[("a", 30, 0)]);
    let old = model(&world, "a");
    assert_eq!(ask(&mut world, 0, "a"), Outcome::Ok(old.clone()));
    let at = (0..2).find(|pod| state(&world, *pod, &old) == "READY").expect("it is ready somewhere");
    for (from, to) in [(Node::Control(0), Node::Agent(at)), (Node::Agent(at), Node::Control(0))] {
        world.block(from, to, secs(25));
    }
    world.fault(Fault::Kill(Node::Control(0), millis(100)));
    world.fault(Fault::Set("a".to_owned(), "a/1".to_owned(), Profile::of(30, 300), 0, 0));
    let new = model(&world, "a");
    for _ in 0..20 {
        world.run(secs(1));
        let controls = world.controls[0].running.as_ref();
        let active = controls.and_then(|control| control.core.published().vmodels.get("a").map(|v| v.active.clone()));
        assert!(active.is_none_or(|active| active == old), "it switched while an instance was unknown");
    }
    world.run(secs(60));
    assert_eq!(ask(&mut world, 0, "a"), Outcome::Ok(new));
    all_is_well(&mut world);
}

/// The switch is written down, control dies before its table goes out, and the new copy goes: the next control takes the
/// model of both that is ready.
#[test]
fn trace_annotation_before_evict() {
    let mut world = mesh(Shape { pods: 2, ..small() }, &[("a", 30, 0)]);
    let old = model(&world, "a");
    assert_eq!(ask(&mut world, 0, "a"), Outcome::Ok(old.clone()));
    world.block(Node::Control(0), Node::Proxy(0), secs(40));
    world.fault(Fault::Set("a".to_owned(), "a/1".to_owned(), Profile::of(30, 300), 0, 0));
    let new = model(&world, "a");
    let written = |world: &mut World| world.store.records().get("a").is_some_and(|record| record.active.id == new);
    assert!(world.run_until(secs(30), written), "the switch is written down");
    world.kill(Node::Control(0));
    let before = world.store.records()["a"].before.clone().map(|before| before.id);
    assert_eq!(before.as_ref(), Some(&old), "nobody has acknowledged");
    let with_new = (0..2).filter(|pod| state(&world, *pod, &new) == "READY").collect::<Vec<_>>();
    let with_old = (0..2).filter(|pod| state(&world, *pod, &old) == "READY").collect::<Vec<_>>();
    for pod in with_new.iter().filter(|pod| !with_old.contains(pod)) {
        world.fault(Fault::Wipe(*pod, millis(500)));
    }
    if with_new.iter().any(|pod| with_old.contains(pod)) {
        // Both are on one pod: the new one alone is lost.
        let pod = with_new[0];
        let agent = world.pods[pod].agent.as_ref().expect("it runs");
        let copy = agent.pod.copies().find(|copy| copy.model.as_str() == new).expect("it is ready");
        let (boot, seq) = (agent.pod.boot(), copy.seq);
        world.pods[pod].server.models.remove(&copy.model);
        world.deny(pod, copy.model.as_str(), boot, seq);
    }
    world.desires.set_profile("a/1", Profile { bad: true, ..Profile::of(30, 300) });
    world.heal();
    world.run(secs(12));
    let control = world.controls[0].running.as_ref().expect("it is back");
    assert_eq!(control.core.published().vmodels["a"].active, old);
    assert_eq!(ask(&mut world, 0, "a"), Outcome::Ok(old));
    assert_eq!(world.broken(), None);
}

/// Both versions do not fit: the new one is loaded in the place of the old one, whose callers do not take the place back.
#[test]
fn trace_room_made_and_taken_back() {
    let mut world = mesh(small(), &[("a", 80, 1)]);
    assert!(matches!(ask(&mut world, 0, "a"), Outcome::Ok(_)));
    world.fault(Fault::Set("a".to_owned(), "a/1".to_owned(), Profile::of(80, 3000), 1, 0));
    let new = model(&world, "a");
    for _ in 0..60 {
        world.call(0, "a", None);
        world.run(millis(500));
    }
    assert!(world.run_until(secs(40), |world| state(world, 0, &new) == "READY"));
    assert_eq!(ask(&mut world, 0, "a"), Outcome::Ok(new.clone()));
    assert_eq!(
        world.checks.pulls[&modelring_placement::id::ModelId::from(new.as_str())],
        1,
        "its pull was not given up"
    );
    all_is_well(&mut world);
}

/// Callers of two models whose deadlines are shorter than a load do not take each other's pull.
#[test]
fn trace_short_deadlines_alternate() {
    let mut world = mesh(small(), &[("x", 80, 0), ("y", 80, 0)]);
    for path in ["x/0", "y/0"] {
        world.desires.set_profile(path, Profile::of(80, 4000));
    }
    let loads = world.checks.counted("loads");
    for turn in 0..40 {
        let service = if turn % 2 == 0 { "x" } else { "y" };
        world.call(0, service, Some(Duration::from_millis(3500)));
        world.run(millis(400));
    }
    assert!(world.checks.counted("loads") > loads);
    let (x, y) = (model(&world, "x"), model(&world, "y"));
    let ready = world.run_until(secs(20), |world| state(world, 0, &x) == "READY" || state(world, 0, &y) == "READY");
    assert!(ready, "some load comes to its end");
    all_is_well(&mut world);
}

/// A model waits behind one that becomes kept, though another agent is free: it is refused there, and goes to the other.
#[test]
fn trace_accepted_behind_a_kept_copy() {
    let mut world = mesh(Shape { pods: 2, concurrency: 1, ..small() }, &[("x", 80, 0), ("y", 80, 0)]);
    world.desires.set_profile("x/0", Profile::of(80, 3000));
    world.call(0, "x", None);
    world.run(millis(500));
    let y = world.call(0, "y", None);
    world.run(millis(100));
    world.fault(Fault::Set("x".to_owned(), "x/0".to_owned(), Profile::of(80, 3000), 1, 0));
    world.run_until(secs(30), |world| world.outcome(y).is_some());
    assert!(matches!(world.outcome(y), Some(Outcome::Ok(_))), "{:?}", world.outcome(y));
    all_is_well(&mut world);
}

/// A model waits behind one that is to be kept, and no other agent is there: the call whose load was accepted and then refused
/// gets the rest of its place budget, and is told why, long before five load timeouts are over.
#[test]
fn trace_accepted_then_refused() {
    let (churn, load_timeout) = (Duration::from_secs(20), Duration::from_secs(60));
    let mut world = mesh(Shape { concurrency: 1, churn, load_timeout, ..small() }, &[("y", 80, 0)]);
    world.run(secs(25));
    world.fault(Fault::Set("x".to_owned(), "x/0".to_owned(), Profile::of(80, 6000), 1, 0));
    world.run_until(secs(30), |world| {
        world.desires.model("x").is_some_and(|x| state(world, 0, x.as_str()) == "LOADING")
    });
    let (y, begun) = (world.call(0, "y", None), world.now);
    world.run(secs(2));
    let queued = model(&world, "y");
    assert_eq!((state(&world, 0, &queued), world.outcome(y)), ("QUEUED", None));
    world.run_until(secs(400), |world| world.outcome(y).is_some());
    let Some(Outcome::Reason("NP", text)) = world.outcome(y) else { panic!("{:?}", world.outcome(y)) };
    assert!(text.contains("needs 80 B of 100 B"), "{text}");
    let took = world.now - begun;
    assert!((secs(31)..secs(45)).contains(&took), "{} ms", took / millis(1));
    all_is_well(&mut world);
}

/// Models that were called lately and have no place in a full mesh: control asks for them now and then, watchers hear nothing.
#[test]
fn a_full_mesh_that_has_settled_is_quiet() {
    let services: Vec<_> = ["a", "b", "c", "d", "e", "f"].map(|name| (name, 60, 0)).to_vec();
    let mut world = mesh(Shape { pods: 2, ..small() }, &services);
    for _ in 0..2 {
        for (name, ..) in &services {
            ask(&mut world, 0, name);
        }
    }
    world.run(secs(30));
    let counted = |world: &World, what| world.checks.counted(what);
    let before = ["changes of copies", "asks of control"].map(|what| counted(&world, what));
    world.run(secs(120));
    let after = ["changes of copies", "asks of control"].map(|what| counted(&world, what));
    assert_eq!(after[0] - before[0], 0, "changes of copies");
    let asks = after[1] - before[1];
    assert!((1..=4 * 2 * 5).contains(&asks), "{asks} asks for four models on two instances in two minutes");
    all_is_well(&mut world);
}

/// Two models share one place and are called without end: they take turns.
#[test]
fn trace_two_models_one_place() {
    let shape = Shape { churn: Duration::from_secs(4), ..small() };
    let mut world = mesh(shape, &[("x", 80, 0), ("y", 80, 0)]);
    let (x, y) = (model(&world, "x"), model(&world, "y"));
    let mut turns = Vec::new();
    for _ in 0..1200 {
        world.call(0, "x", Some(Duration::from_secs(60)));
        world.call(0, "y", Some(Duration::from_secs(60)));
        world.run(millis(200));
        let ready = [&x, &y].into_iter().find(|model| state(&world, 0, model) == "READY").cloned();
        if ready.is_some() && turns.last() != ready.as_ref() {
            turns.extend(ready);
        }
    }
    assert!(turns.len() >= 4, "{turns:?}");
    all_is_well(&mut world);
}

/// A failure counts until its time, also where control is away.
#[test]
fn trace_failed_stays_in_the_view() {
    let mut world = mesh(small(), &[("a", 30, 0)]);
    world.kill(Node::Control(0));
    world.fault(Fault::Storage(1.0));
    world.fault(Fault::Wipe(0, millis(100)));
    world.run(secs(5));
    let failed = ask(&mut world, 0, "a");
    assert!(matches!(&failed, Outcome::Reason("LF", text) if text.contains("storage is away")), "{failed:?}");
    world.fault(Fault::Storage(0.0));
    world.run(secs(12));
    let a = model(&world, "a");
    assert_eq!(ask(&mut world, 0, "a"), Outcome::Ok(a), "control is still away");
    assert_eq!(world.broken(), None);
}

/// One agent refuses one proxy and then accepts another, while the first goes on to the next agent: two loads, at most one
/// per agent, and all are answered.
#[test]
fn trace_refused_here_loaded_there() {
    let shape = Shape { pods: 2, proxies: 2, churn: Duration::from_secs(2), ..Shape::default() };
    let mut world = mesh(shape, &[("a", 80, 0), ("b", 80, 0), ("c", 80, 0)]);
    for turn in 0..60 {
        for (proxy, service) in [(0, "a"), (1, "c"), (0, "b"), (1, "a"), (0, "c"), (1, "b")] {
            world.call(proxy, service, None);
        }
        world.run(millis(300 + 13 * turn));
    }
    all_is_well(&mut world);
    let refused = world.calls.values().filter(|call| !matches!(call.end, Some((_, Outcome::Ok(_)))));
    assert_eq!(refused.count(), 0);
}

/// The last service is deleted, which the source has seen: the table is empty, and its copy goes.
#[test]
fn trace_last_model_deleted() {
    let mut world = mesh(small(), &[("a", 30, 1)]);
    let a = model(&world, "a");
    world.run(secs(3));
    assert_eq!(state(&world, 0, &a), "READY");
    world.fault(Fault::Remove("a".to_owned()));
    world.run(secs(3));
    assert_eq!(ask(&mut world, 0, "a"), Outcome::Reason("NM", String::new()));
    assert!(world.run_until(secs(75), |world| !holds(world, 0, &a)));
    all_is_well(&mut world);
}

/// Of 300 callers at two proxies, with nothing lost, one load comes.
#[test]
fn many_callers_of_one_cold_model_cause_one_load() {
    let mut world = mesh(Shape { pods: 3, proxies: 2, ..Shape::default() }, &[("cold", 30, 0)]);
    let loads = world.checks.counted("loads");
    let cold = model(&world, "cold");
    for call in 0..300 {
        world.call(call % 2, "cold", None);
    }
    world.run(secs(20));
    assert_eq!(world.checks.counted("loads"), loads.max(1), "a new model has had its first copy, or is loaded once");
    let all = world.calls.values().all(|call| matches!(&call.end, Some((_, Outcome::Ok(model))) if *model == cold));
    assert!(all);
    all_is_well(&mut world);
}
