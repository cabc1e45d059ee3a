//! A copy with a concurrency limit gets no more calls at once than its share.

use futures_util::{future::join_all, poll};
use modelring_proto::v1;
use modelring_proxy::{engine::answer::Reason, fleet::PerCopy};

use crate::{
    scripted::{ScriptedAgent, soon, until},
    world::{Settled, World, change},
};

async fn with_limit(limit: u32, proxies: u32) -> (ScriptedAgent, World) {
    let agent = ScriptedAgent::start("a").await;
    agent.ready_with_limit("m", limit);
    let change = v1::TableChange { proxies: Some(proxies), ..change(&[&agent]) };
    let world = World::with(&[&agent], change).await;
    world.usable("m", true).await;
    (agent, world)
}

#[tokio::test]
async fn calls_over_the_share_of_the_limit_wait_for_their_turn() {
    let (_agent, world) = with_limit(4, 2).await;
    let (first, _second) = (world.infer().await.plan(), world.infer().await.plan());
    let mut third = Box::pin(world.infer());
    let mut fourth = Box::pin(world.infer());
    assert!(poll!(&mut third).is_pending() && poll!(&mut fourth).is_pending());
    drop(first);
    let third = soon("a turn", third).await.plan();
    assert!(poll!(&mut fourth).is_pending());
    assert_eq!(world.in_flight("m"), 2);
    drop(third);
    soon("a turn", fourth).await.plan();
}

#[tokio::test]
async fn each_proxy_may_have_one_call_on_a_copy_however_many_they_are() {
    let (_agent, world) = with_limit(2, 9).await;
    let _one = world.infer().await.plan();
    assert!(poll!(Box::pin(world.infer())).is_pending());
}

#[tokio::test]
async fn a_queue_that_is_full_is_an_overload() {
    let (_agent, world) = with_limit(1, 1).await;
    let on_it = world.infer().await.plan();
    let mut queued: Vec<_> = (0..15).map(|_| Box::pin(world.infer())).collect();
    for call in &mut queued {
        assert!(poll!(call).is_pending());
    }
    let overload = world.infer().await.answer();
    assert_eq!(overload, (Some(Reason::OQ), 8, "Model queue overload".into()));
    drop(on_it);
    // Each goes when the one before has ended.
    let settled = soon("all turns", join_all(queued.into_iter().map(async |call| drop(call.await.plan())))).await;
    assert_eq!(settled.len(), 15);
}

#[tokio::test]
async fn another_limit_of_the_calls_on_a_copy_counts_those_that_wait_too() {
    let agent = ScriptedAgent::start("a").await;
    agent.ready_with_limit("m", 2);
    // This proxy is one of two.
    let change = v1::TableChange { proxies: Some(2), ..change(&[&agent]) };
    for (per_copy, may_wait) in [(PerCopy::AtMost(8), 3), (PerCopy::AtMost(2), 0), (PerCopy::Unlimited, 40)] {
        let world = World::limited(&[&agent], change.clone(), per_copy).await;
        world.usable("m", true).await;
        let _on_it = world.infer().await.plan();
        let mut queued: Vec<_> = (0..may_wait).map(|_| Box::pin(world.infer())).collect();
        for call in &mut queued {
            assert!(poll!(call).is_pending(), "{per_copy:?}");
        }
        let mut one_more = Box::pin(world.infer());
        let refused = matches!(poll!(&mut one_more), std::task::Poll::Ready(Settled::Answer(answer)) if answer.reason == Some(Reason::OQ));
        assert_eq!(refused, per_copy != PerCopy::Unlimited, "{per_copy:?}");
    }
}

#[tokio::test]
async fn a_second_copy_takes_what_the_first_cannot() {
    let (agent, mut world) = with_limit(1, 1).await;
    let other = ScriptedAgent::start("other").await;
    other.ready_with_limit("m", 1);
    world.install(change(&[&agent, &other]));
    let first = world.infer().await.plan();
    let mut second = Box::pin(world.infer());
    let Settled::Forward(second) = soon("the other copy", &mut second).await else { panic!("not forwarded") };
    assert_ne!(first.target.key.0, second.target.key.0);
}

#[tokio::test]
async fn those_who_wait_for_a_turn_are_told_of_a_copy_whose_lease_comes_later() {
    let (agent, mut world) = with_limit(1, 1).await;
    let other = ScriptedAgent::start("other").await;
    other.ready_with_limit("m", 1);
    other.answer_pings(false);
    let _first = world.infer().await.plan();
    world.install(change(&[&agent, &other]));
    until("its READY", || world.fleet.index.with("m", |copies| (copies.len() == 2).then_some(()))).await;
    let mut second = Box::pin(world.infer());
    assert!(poll!(&mut second).is_pending());
    other.answer_pings(true);
    soon("the other copy", second).await.plan();
}

#[tokio::test]
async fn those_who_wait_for_a_turn_go_elsewhere_when_the_copy_drains() {
    let (agent, world) = with_limit(1, 1).await;
    let _on_it = world.infer().await.plan();
    let mut queued = Box::pin(world.infer());
    assert!(poll!(&mut queued).is_pending());
    agent.draining("m");
    let asked = agent.asked();
    futures_util::pin_mut!(asked);
    match futures_util::future::select(queued, asked).await {
        futures_util::future::Either::Right((load, _)) => assert!(load.is_open(), "it has a copy loaded instead"),
        futures_util::future::Either::Left(_) => panic!("it was sent to a draining copy"),
    }
}

#[tokio::test]
async fn a_long_call_is_reported_as_it_goes_on_and_a_short_one_for_what_it_took() {
    let (_agent, world) = with_limit(0, 1).await;
    let busy = || world.fleet.usage().copies.first().map_or(0, |copy| copy.busy_micros / 1000);
    let second = std::time::Duration::from_secs(1);
    drop(world.fleet.usage());
    let long = world.infer().await.plan();
    world.hand.advance(second);
    assert_eq!(busy(), 0, "it began since the last report");
    for _ in 0..3 {
        let short = world.infer().await.plan();
        world.hand.advance(second / 4);
        drop(short);
        world.hand.advance(second / 4);
        assert_eq!(busy(), 500 + 250);
    }
    world.hand.advance(second / 2);
    drop(long);
    assert_eq!(busy(), 500, "what was reported before is not reported again");
}
