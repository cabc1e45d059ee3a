//! A network that delays, cuts one way and resets, between any two parts.

use std::time::{Duration, Instant};

use harness::{
    FleetSetup,
    fleet::{Harm, Link, failures},
};
use serde_json::json;

use crate::{
    kit::soak,
    report,
    storm::{Storm, assert_flat},
};

/// How long a caller waits: longer than a harm lasts, shorter than elsewhere, as an answer that is cut off never comes.
const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn whatever_the_network_does_no_answer_is_wrong_and_everything_recovers() {
    let (harmed, settle) = if soak() { (10.0, 10.0) } else { (2.6, 0.8) };
    let setup = FleetSetup { links: true, ..FleetSetup::default() };
    let storm = Storm::start(setup, PATIENCE, Duration::from_secs(2)).await;
    let before = storm.resources();
    let instance = |number: usize| &storm.fleet.instances[number];
    let links: Vec<Link> =
        [instance(0).to_agent.clone(), instance(1).to_data.clone(), storm.fleet.proxies[0].to_control.clone()]
            .into_iter()
            .map(|link| link.expect("the fleet has links"))
            .collect();
    let mut harms = Vec::new();
    for link in &links {
        for harm in [Harm::Delay(3000), Harm::CutAnswers, Harm::CutCalls, Harm::Reset] {
            let at = Instant::now();
            link.harm(harm).await;
            tokio::time::sleep(Duration::from_secs_f64(harmed)).await;
            link.heal().await;
            harms.push((link.name.clone(), harm, at, Instant::now()));
            tokio::time::sleep(Duration::from_secs_f64(settle)).await;
        }
    }
    // Everything recovers: what is called from here on is answered, and soon.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let healed = Instant::now();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let after = storm.resources();
    let (loads, begin) = (storm.loads(), storm.begin);
    let (fleet, calls) = storm.stop().await;
    for (link, harm, at, until) in &harms {
        let of: Vec<_> = calls.iter().filter(|call| call.begin >= *at && call.begin < *until).collect();
        println!("{link} {harm:?}: {} calls, failed {:?}", of.len(), failures(of.iter().copied()));
        if !link.starts_with("data") {
            assert_eq!(failures(of), [].into(), "{link} {harm:?}: no call needs that link");
        }
    }
    let more = [("loads", json!(loads)), ("harms", json!(harms.len())), ("strays", json!(fleet.strays()))];
    report::note("network", begin.elapsed(), &calls, &more);
    let stuck: Vec<_> = calls.iter().filter(|call| call.took() > PATIENCE + Duration::from_secs(4)).collect();
    assert!(stuck.is_empty(), "{stuck:?}");
    assert_flat(&before, &after);
    let last = calls.iter().filter(|call| call.begin >= healed);
    assert_eq!(failures(last), [].into(), "everything recovers");
}
