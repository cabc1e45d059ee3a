//! A draining copy is left, and acknowledged when no call is on it.

use std::time::Duration;

use modelring_proto::v1::{self, watcher_message::Message};
use modelring_proxy::engine::policy::Policy;

use crate::{
    scripted::ScriptedAgent,
    world::{World, change},
};

fn ack(message: &Message) -> Option<v1::DrainAck> {
    match message {
        Message::DrainAck(ack) => Some(ack.clone()),
        _ => None,
    }
}

fn touch(message: &Message) -> Option<v1::Touch> {
    match message {
        Message::Touches(touches) => touches.touches.first().cloned(),
        _ => None,
    }
}

async fn with_ready_copy() -> (ScriptedAgent, World) {
    let agent = ScriptedAgent::start("a").await;
    agent.ready("m");
    let world = World::new(&[&agent]).await;
    world.usable("m", true).await;
    (agent, world)
}

#[tokio::test]
async fn a_drain_is_acknowledged_with_its_seq_once_the_last_call_has_ended() {
    let (agent, world) = with_ready_copy().await;
    let (first, second) = (world.infer().await.plan(), world.infer().await.plan());
    let seq = agent.draining("m");
    world.usable("m", false).await;
    drop(first);
    // Whatever was sent before this touch would have been heard before it.
    agent.hears("a touch", |message| touch(message).filter(|touch| touch.in_flight == 1)).await;
    assert!(!agent.has_heard(|message| ack(message).is_some()), "a call is still on it");
    drop(second);
    let acknowledged = agent.hears("an acknowledgement", ack).await;
    assert_eq!((acknowledged.model.as_str(), acknowledged.boot_id, acknowledged.seq), ("m", 7, seq));
}

#[tokio::test]
async fn an_idle_copy_is_acknowledged_at_once() {
    let (agent, world) = with_ready_copy().await;
    let seq = agent.draining("m");
    assert_eq!(agent.hears("an acknowledgement", ack).await.seq, seq);
    assert!(!world.is_usable("m"));
}

#[tokio::test]
async fn calls_in_flight_on_a_copy_that_is_to_be_evicted_are_reported_at_once() {
    let (agent, world) = with_ready_copy().await;
    let _plan = world.infer().await.plan();
    agent.draining("m");
    let touch = agent.hears("a touch", touch).await;
    assert_eq!((touch.model.as_str(), touch.in_flight), ("m", 1));
}

#[tokio::test]
async fn a_drain_that_is_called_off_is_not_acknowledged() {
    let (agent, world) = with_ready_copy().await;
    let plan = world.infer().await.plan();
    agent.draining("m");
    world.usable("m", false).await;
    agent.ready("m");
    world.usable("m", true).await;
    drop(plan);
    let next = agent.draining("m");
    assert_eq!(agent.hears("an acknowledgement", ack).await.seq, next);
}

#[tokio::test]
async fn after_a_snapshot_that_shows_the_drain_it_is_acknowledged_again() {
    let (agent, world) = with_ready_copy().await;
    let seq = agent.draining("m");
    agent.hears("an acknowledgement", ack).await;
    agent.cut();
    assert_eq!(agent.hears("the acknowledgement again", ack).await.seq, seq);
    assert!(!world.is_usable("m"));
}

#[tokio::test]
async fn a_drain_over_its_time_loses_its_calls_and_is_acknowledged() {
    let agent = ScriptedAgent::start("a").await;
    agent.ready("m");
    let mut change = change(&[&agent]);
    change.tuning = Some(v1::Tuning { drain_timeout_millis: 3_000, ..Default::default() });
    let world = World::with(&[&agent], change).await;
    world.usable("m", true).await;
    let plan = world.infer().await.plan();
    let revoked = world.mesh.revoked(&plan.lease).expect("it can be revoked");
    agent.draining("m");
    world.usable("m", false).await;
    assert!(!revoked.is_cancelled());
    world.hand.advance(Duration::from_secs(3));
    agent.hears("an acknowledgement", ack).await;
    assert!(revoked.is_cancelled());
}

#[tokio::test]
async fn a_copy_is_not_drained_under_the_hands_of_those_who_waited_for_it() {
    let agent = ScriptedAgent::start("a").await;
    let world = World::new(&[&agent]).await;
    let mut held = Box::pin(world.infer());
    assert!(futures_util::poll!(&mut held).is_pending());
    let load = agent.asked().await;
    let seq = agent.ready("m");
    agent.draining("m");
    load.loaded(7, seq);
    let touch = agent.hears("a touch", touch).await;
    assert_eq!(touch.in_flight, 1, "the waiter counts although it has not been on the copy yet");
    assert!(!agent.has_heard(|message| ack(message).is_some()));
    drop(held);
    agent.hears("an acknowledgement", ack).await;
}
