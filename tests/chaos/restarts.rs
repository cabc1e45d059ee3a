//! Parts that are started again beside others that went on.

use std::time::{Duration, Instant};

use harness::{
    Fleet, FleetSetup,
    fleet::{Connection, Pattern, SOON, Steady, failures, until},
    wall,
};

use crate::kit::{DEADLINE, Store, call_each, fleet, soak};

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_starts() {
    const MODELS: usize = 12;
    let (_folder, mut fleet) = fleet(MODELS, FleetSetup::default()).await;
    call_each(&Connection::new(fleet.grpc(), 0), 0..MODELS).await;
    let loads = fleet.loads("");
    for _ in 0..3 {
        fleet.proxies[0].part.kill_and_start();
        fleet.wait_until_ready(0).await;
        // Through this proxy alone.
        call_each(&Connection::new(vec![fleet.proxies[0].grpc], 0), 0..MODELS).await;
    }
    assert_eq!(fleet.loads(""), loads, "a restarted proxy finds the copies that are there");
    fleet.assert_spans();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_starts() {
    const MODELS: usize = 6;
    let store = Store::new(0..MODELS, 100_000);
    (0..MODELS).for_each(|number| store.add(number));
    let mut fleet = Fleet::start(&store.folder, FleetSetup { instances: 1, ..FleetSetup::default() }).await;
    let observer = fleet.observe();
    let connection = Connection::new(fleet.grpc(), 0);
    call_each(&connection, 0..MODELS).await;
    until("all models are ready", SOON, || fleet.loads("") == MODELS).await;
    let pulls = store.link.ranges().len();
    assert!(pulls >= MODELS, "each model was pulled");
    let steady = Steady::start(Pattern {
        proxies: fleet.grpc(),
        connections: 2,
        models: MODELS,
        skew: 0.0,
        rate: 50.0,
        deadline: DEADLINE,
    });
    fleet.instances[0].agent.kill();
    let started = wall();
    fleet.instances[0].agent.start();
    let journal = || fleet.instances[0].journal();
    let purged = || journal().all().take(MODELS).filter_map(|life| life.unloading).collect::<Vec<_>>();
    until("everything that the server held is unloaded", SOON, || purged().len() == MODELS).await;
    let waited = Duration::from_nanos(purged().iter().min().expect("there are some") - started);
    assert!(waited >= Duration::from_secs(3), "it was purged {waited:?} after the start of the agent");
    // Callers were served by what the server still held, then held, and then served by what was loaded anew.
    call_each(&connection, 0..MODELS).await;
    assert_eq!(failures(&steady.stop().await), [].into());
    assert_eq!(fleet.strays(), 0, "no call reached a server that had not the model");
    assert_eq!(journal().loads(""), 2 * MODELS, "each was loaded once more");
    assert_eq!(store.link.ranges().len(), pulls, "and was not pulled again: its files are on disk");
    fleet.assert_spans();
    observer.assert_ledger();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_model_server_restarts() {
    const MODELS: usize = 8;
    let (_folder, mut fleet) = fleet(MODELS, FleetSetup { instances: 2, ..FleetSetup::default() }).await;
    let observer = fleet.observe();
    call_each(&Connection::new(fleet.grpc(), 0), 0..MODELS).await;
    let steady = Steady::start(Pattern {
        proxies: fleet.grpc(),
        connections: 4,
        models: MODELS,
        skew: 0.5,
        rate: 100.0,
        deadline: DEADLINE,
    });
    let mut kills = Vec::new();
    for round in 0..if soak() { 40 } else { 6 } {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let server = &mut fleet.instances[round % 2].server;
        let killed = Instant::now();
        server.kill_and_start();
        kills.push((killed, killed.elapsed()));
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let calls = steady.stop().await;
    let longest = kills.iter().map(|(_, took)| *took).max();
    println!("{} calls; the server was back after at most {longest:?}; {:?}", calls.len(), failures(&calls));
    assert_eq!(fleet.strays(), 0, "no call reached a server that had not the model");
    // What fails is what was on its way on the killed server: the connection was lost when the call may have run.
    let margin = Duration::from_millis(200);
    let other = calls.iter().filter(|call| !kills.iter().any(|(at, _)| call.was_in_flight(*at, margin)));
    assert_eq!(failures(other), [].into(), "only calls in flight on a killed server fail");
    fleet.assert_spans();
    observer.assert_ledger();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_controls_speak() {
    const MODELS: usize = 4;
    let (folder, mut fleet) = fleet(MODELS + 1, FleetSetup { links: true, ..FleetSetup::default() }).await;
    let connection = Connection::new(fleet.grpc(), 0);
    call_each(&connection, 0..MODELS).await;
    let mut newer = fleet.another_control();
    newer.start();
    let link = |number: usize| fleet.proxies[number].to_control.clone().expect("the fleet has links");
    let (first, second) = (link(0), link(1));
    // One proxy hears the newer one, and then the older one again, which learns of the newer one by that.
    first.lead_to(newer.listens).await;
    until("the first proxy has a table of the newer control", SOON, || {
        fleet.status(newer.listens).is_some_and(|status| status["proxies"] == 1)
    })
    .await;
    first.lead_to(fleet.control.listens).await;
    fleet.control.ended(SOON).await;
    // Nothing was lost, and what changes now comes from the newer one.
    first.lead_to(newer.listens).await;
    second.lead_to(newer.listens).await;
    call_each(&connection, 0..MODELS).await;
    folder.add_numbered(MODELS + 1);
    crate::kit::until_known(&fleet, MODELS + 1).await;
    call_each(&Connection::new(vec![fleet.proxies[0].grpc], 0), [MODELS + 1]).await;
    call_each(&Connection::new(vec![fleet.proxies[1].grpc], 0), [MODELS + 1]).await;
    fleet.assert_spans();
}
