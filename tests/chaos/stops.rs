//! Parts that are asked to stop (SIGTERM) under load.

use std::time::{Duration, Instant};

use harness::{
    FleetSetup,
    fleet::{Connection, Pattern, SOON, Steady, failures, percentile, until},
};

use crate::{
    kit::{DEADLINE, call_each, fleet, soak},
    report,
};

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_stops() {
    const HOT: usize = 3;
    let load = Duration::from_secs(3);
    let (_folder, mut fleet) = fleet(HOT, FleetSetup { load_delay: load, ..FleetSetup::default() }).await;
    let observer = fleet.observe();
    call_each(&Connection::new(fleet.grpc(), 0), 0..HOT).await;
    let proxies = fleet.grpc();
    let steady =
        Steady::start(Pattern { proxies, connections: 4, models: HOT, skew: 0.0, rate: 60.0, deadline: DEADLINE });
    let begin = Instant::now();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let at = *observer.ready("model-00__").first().expect("the model is ready somewhere");
    fleet.instances[at].agent.terminate();
    fleet.instances[at].agent.ended(Duration::from_secs(60)).await;
    fleet.instances[at].server.kill();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let calls = steady.stop().await;
    report::note("an_agent_stops", begin.elapsed(), &calls, &[]);
    assert_eq!(failures(&calls), [].into(), "no call fails");
    let longest = percentile(&calls, 100);
    assert!(longest < load - Duration::from_millis(500), "a call took {longest:?}: it waited for a load");
    assert!(fleet.loads("model-00__") >= 2, "it was loaded elsewhere first");
    fleet.assert_spans();
    observer.assert_ledger();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_of_all_proxies_and_all_agents_fails_no_call() {
    const MODELS: usize = 12;
    let proxy_flags = ["--drain-delay", "2s"].map(ToOwned::to_owned).to_vec();
    let (_folder, mut fleet) = fleet(MODELS, FleetSetup { proxy_flags, ..FleetSetup::default() }).await;
    let observer = fleet.observe();
    call_each(&Connection::new(fleet.grpc(), 0), 0..MODELS).await;
    let proxies = fleet.grpc();
    let steady =
        Steady::start(Pattern { proxies, connections: 8, models: MODELS, skew: 0.9, rate: 80.0, deadline: DEADLINE });
    let begin = Instant::now();
    for _ in 0..if soak() { 4 } else { 1 } {
        for number in 0..fleet.proxies.len() {
            fleet.proxies[number].part.terminate();
            fleet.proxies[number].part.ended(Duration::from_secs(60)).await;
            fleet.proxies[number].part.start();
            fleet.wait_until_ready(number).await;
        }
        for number in 0..fleet.instances.len() {
            let instance = &mut fleet.instances[number];
            instance.agent.terminate();
            instance.agent.ended(Duration::from_secs(60)).await;
            instance.server.kill();
            instance.server.start();
            let boot = || observer.boot(number);
            let last = boot();
            instance.agent.start();
            until("the agent has said hello", SOON, || boot() != last).await;
        }
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let calls = steady.stop().await;
    report::note("rolling_restart", begin.elapsed(), &calls, &[("strays", fleet.strays().into())]);
    assert_eq!(failures(&calls), [].into(), "no call fails");
    fleet.assert_spans();
    observer.assert_ledger();
}
