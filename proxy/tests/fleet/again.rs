//! What becomes of attempts that failed.

use std::time::Duration;

use modelring_proto::v1::watcher_message::Message;
use modelring_proxy::engine::{
    answer::Reason,
    policy::{Attempt, Cause, Decision, Plan, Policy, Ran},
};
use modelring_proxy::policy::Lease;

use crate::{
    scripted::{ScriptedAgent, soon, until},
    world::{INFER, Settled, World, head, settle},
};

async fn two_copies() -> ([ScriptedAgent; 2], World) {
    let agents = [ScriptedAgent::start("a").await, ScriptedAgent::start("b").await];
    for agent in &agents {
        agent.ready("m");
    }
    let world = World::new(&[&agents[0], &agents[1]]).await;
    until("two copies", || world.fleet.index.with("m", |copies| (copies.len() == 2).then_some(()))).await;
    (agents, world)
}

fn status(code: u32, text: &str) -> Attempt {
    let (ran, cause) = (Ran::Maybe, Cause::Status);
    Attempt { ran, cause, code: Some(code), text: text.into(), replayable: true, whole: true, tries: 1 }
}

fn not_run(cause: Cause) -> Attempt {
    Attempt { ran: Ran::No, cause, code: None, ..status(0, "refused") }
}

async fn again(world: &World, plan: Plan<Lease>, attempt: Attempt) -> Settled {
    let decision = world.mesh.again(&head(INFER, &[]), Some(b"v"), plan.lease, attempt);
    soon("a decision", settle(decision)).await
}

#[tokio::test]
async fn a_call_that_did_not_run_goes_to_another_copy() {
    let (_agents, world) = two_copies().await;
    for cause in [Cause::Connect, Cause::Refused] {
        let plan = world.infer().await.plan();
        let first = plan.target.key.0.clone();
        assert_ne!(again(&world, plan, not_run(cause)).await.plan().target.key.0, first);
    }
    assert_eq!(world.in_flight("m"), 0);
}

#[tokio::test]
async fn unavailable_goes_to_another_copy_and_at_last_to_the_caller() {
    let (_agents, world) = two_copies().await;
    let plan = world.infer().await.plan();
    let first = plan.target.key.0.clone();
    let plan = again(&world, plan, status(14, "busy")).await.plan();
    assert_ne!(plan.target.key.0, first);
    let last = again(&world, plan, Attempt { tries: 3, ..status(14, "busy") }).await.answer();
    assert_eq!(last, (None, 14, "busy".into()));
}

#[tokio::test]
async fn what_may_have_run_or_is_not_held_any_more_is_not_sent_again() {
    let (_agents, world) = two_copies().await;
    let plan = world.infer().await.plan();
    let lost = Attempt { cause: Cause::Lost, code: None, ..status(0, "reset by peer") };
    let (reason, code, text) = again(&world, plan, lost).await.answer();
    assert_eq!((reason, code), (Some(Reason::UR), 14));
    assert!(text.ends_with("reset by peer"), "{text}");
    let plan = world.infer().await.plan();
    let spent = Attempt { replayable: false, ..not_run(Cause::Connect) };
    assert_eq!(again(&world, plan, spent).await.answer().0, Some(Reason::UC));
}

#[tokio::test]
async fn retries_end_with_their_budget() {
    let (_agents, world) = two_copies().await;
    let mut refused = 0;
    for _ in 0..10 {
        let plan = world.infer().await.plan();
        if let Settled::Answer(answer) = again(&world, plan, not_run(Cause::Refused)).await {
            assert_eq!(answer.reason, Some(Reason::RB));
            refused += 1;
        }
    }
    // 10 calls in one second: 3 retries of that second and 20 % of the calls.
    assert_eq!(refused, 10 - 3 - 2);
}

#[tokio::test]
async fn a_model_that_the_server_denies_is_reported_and_loaded_anew() {
    let agent = ScriptedAgent::start("a").await;
    let seq = agent.ready("m");
    let world = World::new(&[&agent]).await;
    world.usable("m", true).await;
    let plan = world.infer().await.plan();
    let agents = async {
        let missing = agent.hears("a report", |message| match message {
            Message::Missing(missing) => Some(missing.clone()),
            _ => None,
        });
        let missing = missing.await;
        assert_eq!((missing.model.as_str(), missing.boot_id, missing.seq), ("m", 7, seq));
        agent.gone("m");
        let load = agent.asked().await;
        agent.finish(&load).await;
    };
    let retried = again(&world, plan, status(5, "Request for unknown model: 'm' is not found"));
    let (settled, ()) = futures_util::future::join(retried, agents).await;
    settled.plan();
}

#[tokio::test]
async fn a_server_that_goes_on_denying_is_believed() {
    let (agents, world) = two_copies().await;
    let plan = world.infer().await.plan();
    let other = again(&world, plan, status(5, "no such version")).await.plan();
    let first = again(&world, other, Attempt { tries: 2, ..status(5, "no such version") }).await.plan();
    let last = again(&world, first, Attempt { tries: 2, ..status(5, "no such version") }).await.answer();
    assert_eq!(last, (None, 5, "no such version".into()));
    for agent in agents {
        agent.hears("one report", |message| matches!(message, Message::Missing(_)).then_some(())).await;
        assert!(!agent.has_heard(|message| matches!(message, Message::Missing(_))));
    }
}

#[tokio::test]
async fn calls_that_are_denied_while_the_agent_looks_wait_with_the_first_and_later_ones_are_told() {
    let agent = ScriptedAgent::start("a").await;
    agent.ready("m");
    let world = World::new(&[&agent]).await;
    world.usable("m", true).await;
    let denied = status(5, "no such version");
    let (first, second, third) = (world.infer().await.plan(), world.infer().await.plan(), world.infer().await.plan());
    let mut waits = Vec::new();
    for plan in [first, second] {
        let decision = world.mesh.again(&head(INFER, &[]), Some(b"v"), plan.lease, denied.clone());
        let Decision::Hold(later) = decision else { panic!("it is not held") };
        waits.push(later);
    }
    world.hand.advance(Duration::from_secs(1));
    let late = again(&world, third, denied).await.answer();
    assert_eq!(late, (None, 5, "no such version".into()));
    for later in waits {
        settle(soon("a decision", later).await).await.plan();
    }
}
