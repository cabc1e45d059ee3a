//! What a proxy may believe of its agents.

use std::time::Duration;

use modelring_proto::v1;
use modelring_proxy::engine::{
    answer::Reason,
    policy::{Decision, First, Policy},
};

use crate::{
    scripted::{ScriptedAgent, soon, until},
    world::{INFER, World, change, head, settle},
};

#[tokio::test]
async fn a_copy_is_not_used_once_the_lease_of_its_agent_has_ended() {
    let agent = ScriptedAgent::start("a").await;
    agent.ready("m");
    let world = World::new(&[&agent]).await;
    world.usable("m", true).await;
    let plan = world.infer().await.plan();
    assert!(world.mesh.usable(&plan.lease));

    agent.answer_pings(false);
    world.hand.advance(Duration::from_millis(1_999));
    assert!(world.is_usable("m"));
    world.hand.advance(Duration::from_millis(1));
    assert!(!world.is_usable("m"));
    assert!(!world.mesh.usable(&plan.lease), "nor by a call that has chosen it before");
    agent.answer_pings(true);
    world.usable("m", true).await;
}

#[tokio::test]
async fn the_lease_ends_at_once_when_nobody_listens_any_more() {
    let agent = ScriptedAgent::start("a").await;
    agent.ready("m");
    let world = World::new(&[&agent]).await;
    world.usable("m", true).await;
    agent.stop();
    world.usable("m", false).await;
}

#[tokio::test]
async fn another_boot_makes_all_copies_unknown() {
    let agent = ScriptedAgent::start("a").await;
    agent.ready("m");
    let world = World::new(&[&agent]).await;
    world.usable("m", true).await;
    let plan = world.infer().await.plan();
    agent.introduce(|hello| hello.boot_id = 8);
    agent.gone("m");
    agent.cut();
    world.usable("m", false).await;
    assert!(!world.mesh.usable(&plan.lease));
    until("the new boot", || world.is_live(&agent).then_some(())).await;
}

#[tokio::test]
async fn an_agent_at_the_address_of_another_instance_is_not_believed() {
    let agent = ScriptedAgent::start("a").await;
    agent.introduce(|hello| hello.instance_id = "somebody".into());
    agent.ready("m");
    let world = World::with(&[], change(&[&agent])).await;
    agent.hears("a hello", |message| matches!(message, v1::watcher_message::Message::Hello(_)).then_some(())).await;
    agent.hears("and another", |message| matches!(message, v1::watcher_message::Message::Hello(_)).then_some(())).await;
    assert!(!world.is_live(&agent) && !world.is_usable("m"));
}

#[tokio::test]
async fn an_instance_that_leaves_the_table_is_not_used_any_more() {
    let (one, two) = (ScriptedAgent::start("one").await, ScriptedAgent::start("two").await);
    one.ready("m");
    let mut world = World::new(&[&one, &two]).await;
    world.usable("m", true).await;
    world.install(change(&[&two]));
    assert!(!world.is_usable("m"));
    assert!(world.fleet.peer("one").is_none());
}

#[tokio::test]
async fn copies_of_a_leaving_instance_are_used_only_where_there_is_no_other() {
    let (stays, leaves) = (ScriptedAgent::start("stays").await, ScriptedAgent::start("leaves").await);
    leaves.ready("m");
    let mut change = change(&[&stays, &leaves]);
    change.instances[1].leaving = true;
    let world = World::with(&[&stays, &leaves], change).await;
    world.usable("m", true).await;
    assert_eq!(&*world.infer().await.plan().target.key.0, "leaves");
    stays.ready("m");
    until("the other copy", || {
        let copies = world.fleet.index.with("m", |copies| copies.len());
        (copies == 2).then_some(())
    })
    .await;
    for _ in 0..20 {
        assert_eq!(&*world.infer().await.plan().target.key.0, "stays");
    }
}

#[tokio::test]
async fn a_new_connection_is_confirmed_by_a_ping_that_is_answered_after_it() {
    let agent = ScriptedAgent::start("a").await;
    agent.ready("m");
    let world = World::new(&[&agent]).await;
    world.usable("m", true).await;
    let target = world.infer().await.plan().target;
    world.hand.advance(Duration::from_millis(1));
    assert!(soon("a confirmation", (target.confirm)()).await);
    agent.answer_pings(false);
    world.hand.advance(Duration::from_millis(1));
    assert!(!soon("a refusal", (target.confirm)()).await);
}

#[tokio::test]
async fn use_is_reported_to_the_agent() {
    let agent = ScriptedAgent::start("a").await;
    agent.ready("m");
    let world = World::new(&[&agent]).await;
    world.usable("m", true).await;
    let plan = world.infer().await.plan();
    let touch = |in_flight| {
        move |message: &v1::watcher_message::Message| match message {
            v1::watcher_message::Message::Touches(touches) => {
                touches.touches.iter().find(|touch| touch.in_flight == in_flight).cloned()
            }
            _ => None,
        }
    };
    let during = agent.hears("a touch in flight", touch(1)).await;
    assert_eq!((during.model.as_str(), during.count), ("m", 1));
    drop(plan);
    world.infer().await.plan();
    assert_eq!(agent.hears("a touch after", touch(0)).await.count, 1);
}

#[tokio::test]
async fn readiness_waits_for_every_listed_agent() {
    let (tells, silent) = (ScriptedAgent::start("tells").await, ScriptedAgent::start("silent").await);
    silent.keep_silent();
    let mut world = World::with(&[&tells], change(&[&tells, &silent])).await;
    assert!(!world.fleet.is_ready());
    world.install(change(&[&tells]));
    assert!(world.fleet.is_ready());
}

#[tokio::test]
async fn without_a_table_a_call_is_told_so() {
    let (clock, _) = modelring_proxy::clock::Clock::manual(modelring_placement::time::Time::ZERO);
    let fleet = modelring_proxy::fleet::Fleet::new(clock, tokio::runtime::Handle::current());
    let mesh = modelring_proxy::policy::Mesh::new(
        fleet,
        modelring_proxy::config::AccessLog::Off,
        modelring_proxy::metrics::Metrics::new(&Default::default(), 1),
    );
    let First::Decide(decision @ Decision::Answer(_)) = mesh.head(&head(INFER, &[])) else { panic!("no answer") };
    let (reason, code, _) = settle(decision).await.answer();
    assert_eq!((reason, code), (Some(Reason::TB), 14));
}
