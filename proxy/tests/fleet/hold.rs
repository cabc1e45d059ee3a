//! Calls of a model that nobody has: they wait, and one search per model has it loaded.

use std::time::Duration;

use futures_util::future::{join_all, select};
use modelring_proto::v1::{self, refused::Reason as Refused};
use modelring_proxy::{engine::answer::Reason, rest::handler::Readiness as _};

use crate::{
    scripted::{ScriptedAgent, copy, failed, soon, until},
    world::{World, change},
};

/// The first two candidates for `m`, in the order of the ring.
async fn owners<'a>(world: &World, agents: [&'a ScriptedAgent; 2]) -> [&'a ScriptedAgent; 2] {
    let table = world.fleet.table().expect("a table");
    let model = table.model("m").expect("the model");
    let first = model.candidates(table.class(&model.class).expect("its class"))[0].clone();
    if first.as_str() == agents[0].id { agents } else { [agents[1], agents[0]] }
}

#[tokio::test]
async fn five_hundred_callers_are_one_load_and_all_are_answered() {
    let agent = ScriptedAgent::start("a").await;
    let world = World::new(&[&agent]).await;
    let callers = join_all((0..500).map(|_| world.infer()));
    let agents = async {
        let load = agent.asked().await;
        load.accept();
        agent.loading("m");
        agent.finish(&load).await;
        assert_eq!(load.request.why(), v1::load_request::Why::Waiter);
        assert_eq!(load.request.model.clone().expect("a model").path, "p");
    };
    let (answers, ()) = soon("500 answers", futures_util::future::join(callers, agents)).await;
    let plans: Vec<_> = answers.into_iter().map(super::world::Settled::plan).collect();
    assert_eq!((plans.len(), agent.times_asked()), (500, 1));
    assert_eq!(world.in_flight("m"), 500);
    drop(plans);
    assert_eq!(world.in_flight("m"), 0);
    assert!(world.fleet.loads.is_empty());
}

#[tokio::test]
async fn all_but_one_give_up_and_the_one_is_answered() {
    let agent = ScriptedAgent::start("a").await;
    let world = World::new(&[&agent]).await;
    let mut callers: Vec<_> = (0..500).map(|_| Box::pin(world.infer())).collect();
    for caller in &mut callers {
        assert!(futures_util::poll!(caller).is_pending());
    }
    let load = agent.asked().await;
    load.accept();
    let one = callers.swap_remove(250);
    drop(callers);
    assert!(load.is_open(), "one still waits");
    let (settled, ()) = soon("the answer", futures_util::future::join(one, agent.finish(&load))).await;
    settled.plan();
    assert_eq!(agent.times_asked(), 1);
}

#[tokio::test]
async fn when_the_last_caller_gives_up_the_load_is_given_up() {
    let agent = ScriptedAgent::start("a").await;
    let world = World::new(&[&agent]).await;
    let caller = Box::pin(world.infer());
    let load = {
        let asked = Box::pin(agent.asked());
        match select(caller, asked).await {
            futures_util::future::Either::Right((load, caller)) => {
                drop(caller);
                load
            }
            futures_util::future::Either::Left(_) => panic!("answered without a load"),
        }
    };
    load.cancelled().await;
    assert!(world.fleet.loads.is_empty());
}

#[tokio::test]
async fn an_owner_that_refuses_is_followed_by_the_next() {
    let (a, b) = (ScriptedAgent::start("a").await, ScriptedAgent::start("b").await);
    let world = World::new(&[&a, &b]).await;
    let [first, second] = owners(&world, [&a, &b]).await;
    let agents = async {
        first.asked().await.refuse(Refused::Full, 60_000, "no room");
        let load = second.asked().await;
        load.accept();
        second.finish(&load).await;
    };
    let (settled, ()) = soon("the answer", futures_util::future::join(world.infer(), agents)).await;
    assert_eq!(&*settled.plan().target.key.0, second.id);
}

#[tokio::test]
async fn a_copy_that_is_on_its_way_is_joined() {
    let (a, b) = (ScriptedAgent::start("a").await, ScriptedAgent::start("b").await);
    let world = World::new(&[&a, &b]).await;
    let [first, second] = owners(&world, [&a, &b]).await;
    second.loading("m");
    until("the view", || {
        let now = world.fleet.clock.now();
        let status = world.fleet.peer(second.id)?.status(now, &"m".into());
        matches!(status, modelring_placement::view::Status::Loading { .. }).then_some(())
    })
    .await;
    let agents = async {
        let load = second.asked().await;
        load.accept();
        second.finish(&load).await;
    };
    let (settled, ()) = soon("the answer", futures_util::future::join(world.infer(), agents)).await;
    settled.plan();
    assert_eq!(first.times_asked(), 0);
}

#[tokio::test]
async fn a_failed_load_is_answered_with_the_text_of_the_server() {
    let agent = ScriptedAgent::start("a").await;
    let world = World::new(&[&agent]).await;
    let agents = async {
        agent.say(failed("m", "opset 99 is not known"));
        agent.asked().await.fail(13, "opset 99 is not known");
    };
    let (settled, ()) = soon(
        "the answer",
        futures_util::future::join(world.infer(), async {
            agents.await;
        }),
    )
    .await;
    let (reason, code, text) = settled.answer();
    assert_eq!((reason, code), (Some(Reason::LF), 13));
    assert!(text.ends_with("opset 99 is not known"), "{text}");
}

#[tokio::test]
async fn a_failure_that_the_view_shows_is_answered_without_a_call() {
    let agent = ScriptedAgent::start("a").await;
    agent.say(failed("m", "no such file"));
    let world = World::new(&[&agent]).await;
    let (reason, _, text) = soon("the answer", world.infer()).await.answer();
    assert_eq!(reason, Some(Reason::LF));
    assert!(text.ends_with("no such file"), "{text}");
    assert_eq!(agent.times_asked(), 0);
}

#[tokio::test]
async fn without_an_instance_of_the_class_a_call_waits_for_the_place_budget() {
    let mut change = change(&[]);
    change.tuning = Some(v1::Tuning { place_timeout_millis: 50, allow_other_rpcs: Some(true), ..Default::default() });
    let world = World::with(&[], change).await;
    let late = async {
        tokio::task::yield_now().await;
        world.hand.advance(Duration::from_millis(50));
    };
    let (settled, ()) = soon(
        "the answer",
        futures_util::future::join(
            world.call(&super::world::head("/a.Service/Method", &[("mm-model-id", "m")]), None),
            late,
        ),
    )
    .await;
    let (reason, code, text) = settled.answer();
    assert_eq!((reason, code), (Some(Reason::NI), 14));
    assert!(text.starts_with("There are no running instances that meet the label requirements of type"), "{text}");
}

#[tokio::test]
async fn a_model_is_ready_when_a_call_would_be_answered() {
    let agent = ScriptedAgent::start("a").await;
    let ready = |world: &World, name: &str| world.mesh.model_ready(name).map_err(|answer| (answer.reason, answer.http));
    let mut world = World::new(&[&agent]).await;
    assert_eq!(ready(&world, "v"), Ok(()), "it is cold and would be loaded");
    assert_eq!(ready(&world, "nobody"), Err((Some(Reason::NM), 404)));
    agent.say(failed("m", "no such file"));
    until("the failure", || ready(&world, "v").is_err().then_some(())).await;
    assert_eq!(ready(&world, "v"), Err((Some(Reason::LF), 500)));
    agent.ready("m");
    until("a ready copy", || ready(&world, "v").ok()).await;
    world.install(change(&[]));
    assert_eq!(ready(&world, "v"), Err((Some(Reason::NI), 503)));
}

#[tokio::test]
async fn an_instance_that_comes_while_a_call_is_held_is_asked() {
    let agent = ScriptedAgent::start("a").await;
    let mut world = World::with(&[], change(&[])).await;
    world.install(change(&[]));
    let fleet = world.fleet.clone();
    let mut held = Box::pin(world.infer());
    assert!(futures_util::poll!(&mut held).is_pending());
    let listed = change(&[&agent]);
    let update = crate::world::update(1, 9, v1::routes_update::Kind::SnapshotEnd, listed);
    let table = modelring_proxy::table::Inbox::default().receive(None, update).expect("a table").expect("whole");
    fleet.install(table);
    let agents = async {
        let load = agent.asked().await;
        agent.finish(&load).await;
    };
    let (settled, ()) = soon("the answer", futures_util::future::join(held, agents)).await;
    settled.plan();
}

#[tokio::test]
async fn a_place_that_nobody_has_is_unavailable_with_the_words_of_the_agent() {
    let agent = ScriptedAgent::start("a").await;
    let mut change = change(&[&agent]);
    change.tuning = Some(v1::Tuning { place_timeout_millis: 200, ..Default::default() });
    let world = World::with(&[&agent], change).await;
    let agents = async {
        agent.asked().await.refuse(Refused::Churn, 60_000, "the oldest copy was used 2 s ago");
        world.hand.advance(Duration::from_millis(200));
    };
    let (settled, ()) = soon("the answer", futures_util::future::join(world.infer(), agents)).await;
    let (reason, code, text) = settled.answer();
    assert_eq!((reason, code), (Some(Reason::NP), 14));
    assert_eq!(text, "Cache churn threshold exceeded: the oldest copy was used 2 s ago");
}

#[tokio::test]
async fn a_deadline_shorter_than_the_load_is_answered_at_once_and_the_load_goes_on() {
    let agent = ScriptedAgent::start("a").await;
    let world = World::new(&[&agent]).await;
    let (reason, code, _) = world.infer_within(Duration::from_secs(1)).await.answer();
    assert_eq!((reason, code), (Some(Reason::DH), 14));
    let load = agent.asked().await;
    assert!(load.is_open());
    load.accept();
    load.cancelled().await;
}

#[tokio::test]
async fn a_load_whose_agent_is_lost_goes_to_the_next() {
    let (a, b) = (ScriptedAgent::start("a").await, ScriptedAgent::start("b").await);
    let world = World::new(&[&a, &b]).await;
    let [first, second] = owners(&world, [&a, &b]).await;
    let agents = async {
        let load = first.asked().await;
        load.accept();
        first.stop();
        let load = second.asked().await;
        second.finish(&load).await;
    };
    let (settled, ()) = soon("the answer", futures_util::future::join(world.infer(), agents)).await;
    assert_eq!(&*settled.plan().target.key.0, second.id);
}

#[tokio::test]
async fn until_a_snapshot_has_come_a_call_waits_for_it_and_asks_nobody() {
    let agent = ScriptedAgent::start("a").await;
    agent.ready("m");
    let world = World::with(&[], change(&[&agent])).await;
    // The agent is not dialled yet: nothing was awaited since it was listed.
    assert!(!world.is_usable("m"));
    soon("the answer", world.infer()).await.plan();
    assert_eq!(agent.times_asked(), 0);
}

#[tokio::test]
async fn a_held_call_is_told_to_control() {
    let agent = ScriptedAgent::start("a").await;
    let world = World::new(&[&agent]).await;
    let agents = async {
        let load = agent.asked().await;
        agent.say(copy("m", v1::copy_state::State::Queued));
        agent.finish(&load).await;
    };
    let (settled, ()) = soon("the answer", futures_util::future::join(world.infer(), agents)).await;
    settled.plan();
    let usage = world.fleet.usage();
    assert_eq!(usage.models.len(), 1);
    assert_eq!((usage.models[0].model.as_str(), usage.models[0].held), ("m", 1));
}
