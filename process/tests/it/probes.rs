//! Readiness and liveness.

use std::time::{Duration, Instant};

use modelring_process::{
    http::Server,
    probes::{self, BEAT, Pulse, Readiness, STILL},
};

use crate::http::ask;

#[tokio::test]
async fn ready_says_why_not_and_live_is_another_question() {
    let readiness = Readiness::not_yet("no table yet");
    let asked = readiness.clone();
    let routes = probes::routes(Pulse::default(), move || asked.get());
    let server = Server::start(([127, 0, 0, 1], 0).into(), "probes", "--probes", routes).await.unwrap();
    let answer = ask(server.addr(), "GET /ready").await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.ends_with("not ready: no table yet\n"), "{answer}");
    assert!(ask(server.addr(), "GET /live").await.starts_with("HTTP/1.1 200"));
    readiness.set(Ok(()));
    assert!(ask(server.addr(), "GET /ready").await.starts_with("HTTP/1.1 200"));
    readiness.end("stopping");
    readiness.set(Ok(()));
    assert!(ask(server.addr(), "GET /ready").await.ends_with("not ready: stopping\n"));
}

#[test]
fn a_process_is_live_while_each_of_its_loops_turns() {
    let pulse = Pulse::default();
    let first = pulse.heart("first");
    let second = pulse.heart("second");
    let last = Instant::now();
    assert_eq!(pulse.still_at(last + STILL - Duration::from_secs(1)), None);
    first.beat();
    assert_eq!(pulse.still_at(last + STILL).map(|(name, _)| name), Some("second"));
    second.beat();
    assert_eq!(pulse.still_at(last + STILL), None);
}

#[test]
fn a_loop_that_ended_in_order_is_not_missed_and_one_that_was_torn_down_is() {
    let pulse = Pulse::default();
    let (orderly, torn) = (pulse.heart("orderly"), pulse.heart("torn"));
    orderly.rest();
    drop(torn);
    assert_eq!(pulse.still_at(Instant::now() + STILL).map(|(name, _)| name), Some("torn"));
}

#[tokio::test]
async fn a_heart_that_beats_on_shows_that_the_runtime_turns() {
    let pulse = Pulse::default();
    let beating = tokio::spawn(pulse.heart("runtime").beat_on());
    let begun = Instant::now();
    while pulse.still_at(begun + BEAT + STILL).is_some() {
        assert!(begun.elapsed() < Duration::from_secs(20), "it does not beat");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    beating.abort();
    assert!(pulse.still_at(Instant::now() + BEAT + STILL).is_some());
}
