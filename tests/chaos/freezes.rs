//! Parts that stand still for seconds (SIGSTOP) while copies are evicted.

use std::time::{Duration, Instant};

use harness::fleet::failures;
use serde_json::json;

use crate::{
    kit::soak,
    report,
    storm::{Storm, assert_flat},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_part_is_passed_over_and_comes_back() {
    let (frozen, settle, rounds) = if soak() { (10, 5, 3) } else { (6, 4, 1) };
    let storm = Storm::usual(false).await;
    let before = storm.resources();
    let mut freezes = 0;
    for round in 0..rounds {
        for victim in ["agent", "proxy", "control"] {
            let part = match victim {
                "agent" => &storm.fleet.instances[round % 3].agent,
                "proxy" => &storm.fleet.proxies[round % 2].part,
                _ => &storm.fleet.control,
            };
            let (at, loads) = (Instant::now(), storm.loads());
            part.freeze();
            tokio::time::sleep(Duration::from_secs(frozen)).await;
            let evicting = storm.loads() - loads;
            part.thaw();
            tokio::time::sleep(Duration::from_secs(settle)).await;
            let calls = storm.calls_since(at);
            println!("{victim}: {} calls, {evicting} loads, failed {:?}", calls.len(), failures(&calls));
            assert!(evicting > 0, "copies came and went while the {victim} stood still");
            freezes += 1;
        }
    }
    let after = storm.resources();
    let (loads, begin) = (storm.loads(), storm.begin);
    let (fleet, calls) = storm.stop().await;
    let more = [("loads", json!(loads)), ("freezes", json!(freezes)), ("strays", json!(fleet.strays()))];
    report::note("freezes", begin.elapsed(), &calls, &more);
    assert_flat(&before, &after);
    assert_eq!(failures(&calls), [].into(), "callers of a frozen proxy wait, all others are served");
}
