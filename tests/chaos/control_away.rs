//! Control is not there, and cold calls go on.

use std::time::{Duration, Instant};

use harness::{
    FleetSetup,
    fleet::{Connection, failures},
};
use serde_json::json;

use crate::{
    kit::{call_each, fleet, soak},
    report,
    storm::Storm,
};

#[tokio::test(flavor = "multi_thread")]
async fn control_is_away() {
    let away = Duration::from_secs(if soak() { 60 } else { 10 });
    let mut storm = Storm::usual(false).await;
    storm.fleet.control.kill();
    let (at, loads) = (Instant::now(), storm.loads());
    tokio::time::sleep(away).await;
    let loads_without = storm.loads() - loads;
    storm.fleet.control.start();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let calls = storm.calls_since(at);
    assert!(loads_without > 10, "only {loads_without} loads while control was away");
    assert_eq!(failures(&calls), [].into(), "cold calls are loaded for and answered without control");
    let begin = storm.begin;
    let (_fleet, calls) = storm.stop().await;
    report::note("control_away", begin.elapsed(), &calls, &[("loads without control", json!(loads_without))]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_restarts_while_control_is_away() {
    const MODELS: usize = 12;
    let (_folder, mut fleet) = fleet(MODELS, FleetSetup::default()).await;
    let connection = Connection::new(fleet.grpc(), 0);
    call_each(&connection, 0..MODELS).await;
    let loads = fleet.loads("");
    fleet.control.kill();
    fleet.proxies[0].part.kill_and_start();
    // At once, and through this proxy alone: it has the last table, and waits for what the agents say.
    call_each(&Connection::new(vec![fleet.proxies[0].grpc], 0), 0..MODELS).await;
    assert_eq!(fleet.loads(""), loads, "a restarted proxy finds the copies that are there");
    // A cold start of both: nothing of the mesh but its agents, their servers and the kept tables is there.
    fleet.proxies[1].part.kill_and_start();
    call_each(&Connection::new(vec![fleet.proxies[1].grpc], 0), 0..MODELS).await;
    fleet.assert_spans();
}
