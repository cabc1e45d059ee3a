//! Probes while it starts and ends, and how each process ends when it is asked to.

use std::time::{Duration, Instant};

use harness::grpc;
use tokio_stream::{StreamExt, wrappers::ReceiverStream};

use crate::world::{SOON, World, probe, request, right, until};

#[tokio::test]
async fn each_process_ends_in_order_when_it_is_asked_to() {
    let mut world = World::start(false, "--grace 3s", "--drain-delay 2s --grace 30s").await;
    world.infer(1).await;
    let mut client = grpc(world.proxy.listens).await;
    let (feed, messages) = tokio::sync::mpsc::channel(1);
    // The first message names the model: nothing begins before it.
    feed.send(request(1)).await.expect("the channel is new");
    let mut answers = client.model_stream_infer(ReceiverStream::new(messages)).await.expect("it begins").into_inner();
    answers.next().await.expect("it comes").expect("it is one");
    let mut one = async || {
        feed.send(request(1)).await.expect("it is taken");
        let answer = answers.next().await.expect("it comes").expect("it is one");
        assert!(answer.infer_response.expect("it is a response").raw_output_contents[0] == right(1));
    };
    one().await;

    // A proxy: unready at once, accepts a while, asks its clients to leave, finishes what is on.
    let asked = Instant::now();
    world.proxy.terminate();
    let of_proxy = world.probes.proxy;
    until("the proxy is unready", async || probe(of_proxy, "/ready").await.0 == 503).await;
    let was_quick = asked.elapsed() < Duration::from_secs(1);
    let (_, text) = probe(of_proxy, "/ready").await;
    assert!(text.contains("stopping"), "{text}");
    if was_quick {
        // Whoever has not heard yet is served. On a machine that is too busy to ask in time there is nothing to see.
        world.infer(1).await;
    }
    one().await;
    until("it accepts no more", async || tokio::net::TcpStream::connect(world.proxy.listens).await.is_err()).await;
    assert!(world.proxy.is_running(), "a call is on");
    one().await;
    drop(feed);
    assert!(answers.next().await.is_none());
    drop(client);
    assert_eq!(world.proxy.ended(SOON).await.code(), Some(0), "{}", world.proxy.log_tail(5));

    // An agent: unready at once; whoever stands beside it waits for it. Its copy has no other place, so it
    // serves until its grace is over.
    let prestop = world.prestop;
    let waiting = tokio::spawn(async move { probe(prestop, "/prestop").await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!waiting.is_finished(), "nothing has drained yet");
    world.agent.terminate();
    assert_eq!(world.agent.ended(SOON).await.code(), Some(0), "{}", world.agent.log_tail(5));
    let (status, text) = waiting.await.expect("it ends");
    assert_eq!((status, text.as_str()), (200, "drained\n"));

    // Control ends quickly, a model server when its calls have ended.
    for part in [&mut world.control, &mut world.runtime] {
        part.terminate();
        assert_eq!(part.ended(SOON).await.code(), Some(0), "{}", part.log_tail(5));
    }
}

#[tokio::test]
async fn a_second_signal_ends_a_process_at_once() {
    let mut world = World::start(false, "", "--drain-delay 600s").await;
    world.proxy.terminate();
    let of_proxy = world.probes.proxy;
    until("the proxy is unready", async || probe(of_proxy, "/ready").await.0 == 503).await;
    world.proxy.terminate();
    let status = world.proxy.ended(SOON).await;
    assert_eq!(status.code(), Some(1), "{}", world.proxy.log_tail(5));
    assert!(world.proxy.log().contains("second signal"), "{}", world.proxy.log_tail(5));
}

#[tokio::test]
async fn a_process_is_ready_when_it_can_do_its_work() {
    let mut world = World::start(false, "", "").await;
    // An agent without its server is not; with it again it is.
    let of_agent = world.probes.agent;
    world.runtime.kill();
    until("the agent is unready", async || probe(of_agent, "/ready").await.0 == 503).await;
    assert!(probe(of_agent, "/ready").await.1.contains("model server is gone"));
    assert_eq!(probe(of_agent, "/live").await.0, 200);
    world.runtime.start();
    until("the agent is ready again", async || probe(of_agent, "/ready").await.0 == 200).await;
    // A new agent is not before its handshake, though it lives.
    world.runtime.kill();
    world.agent.kill_and_start();
    until("the agent answers", async || probe(of_agent, "/live").await.0 == 200).await;
    let (status, text) = probe(of_agent, "/ready").await;
    assert!(status == 503 && text.contains("handshake"), "{text}");
    // A proxy without a table is not, nor is a control that cannot publish one.
    world.control.kill();
    world.proxy.kill_and_start();
    let of_proxy = world.probes.proxy;
    until("the proxy answers", async || probe(of_proxy, "/live").await.0 == 200).await;
    let (status, text) = probe(of_proxy, "/ready").await;
    assert!(status == 503 && text.contains("no table"), "{text}");
    assert_eq!(probe(of_proxy, "/other").await.0, 404);
}

#[tokio::test]
async fn a_frozen_process_does_not_say_that_it_lives() {
    let world = World::start(false, "", "").await;
    let of_runtime = world.probes.runtime;
    world.runtime.freeze();
    let frozen = tokio::time::timeout(Duration::from_secs(2), probe(of_runtime, "/live")).await;
    assert!(frozen.is_err(), "a frozen process answers: {frozen:?}");
    world.runtime.thaw();
    until("it lives again", async || probe(of_runtime, "/live").await.0 == 200).await;
}
