//! `kill -9` of each part in turn under steady calls.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use harness::{
    Fleet,
    fleet::{Call, Part, failures, model},
};
use serde_json::json;

use crate::{
    kit::soak,
    report,
    storm::{MODELS, Storm, assert_flat},
};

/// A call may have been on its way for so long before its end shows the kill.
const MARGIN: Duration = Duration::from_millis(250);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Agent,
    Proxy,
    Control,
    Server,
    /// An agent with its server: a pod that is gone.
    Instance,
}

const VICTIMS: [Victim; 5] = [Victim::Agent, Victim::Proxy, Victim::Control, Victim::Server, Victim::Instance];

/// One kill.
struct Kill {
    victim: Victim,
    number: usize,
    at: Instant,
    /// Models that were ready on another instance too.
    elsewhere: BTreeSet<usize>,
    /// When it was dead: a busy machine takes its time to end a process.
    dead: Instant,
    until: Instant,
}

/// Whether a failure of this call is one that the kill explains: it was in flight on the killed part. A call cannot tell
/// which server it was on, but a killed server is a lost connection, and nothing else.
fn explains(kill: &Kill, storm: &Storm, call: &Call) -> bool {
    let in_flight = call.begin <= kill.dead + MARGIN && call.end + MARGIN >= kill.at;
    match kill.victim {
        Victim::Agent | Victim::Control => false,
        Victim::Proxy => in_flight && call.proxy == Some(storm.fleet.proxies[kill.number].grpc),
        Victim::Server | Victim::Instance => in_flight,
    }
}

fn parts(fleet: &mut Fleet, victim: Victim, number: usize) -> Vec<&mut Part> {
    match victim {
        Victim::Agent => vec![&mut fleet.instances[number].agent],
        Victim::Proxy => vec![&mut fleet.proxies[number].part],
        Victim::Control => vec![&mut fleet.control],
        Victim::Server => vec![&mut fleet.instances[number].server],
        Victim::Instance => {
            let instance = &mut fleet.instances[number];
            vec![&mut instance.server, &mut instance.agent]
        }
    }
}

/// After this long a kill is over for a model that is ready elsewhere.
const OVER: Duration = Duration::from_secs(1);

/// Models that are ready on another instance than this one.
fn ready_elsewhere(storm: &Storm, number: usize) -> BTreeSet<usize> {
    let ready = |model: String| storm.observer.ready(&format!("{model}__")).into_iter().any(|at| at != number);
    (0..MODELS).filter(|of| ready(model(*of))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn only_calls_in_flight_on_a_killed_part_fail() {
    let (rounds, down, up) = if soak() { (5, 5, 5) } else { (1, 3, 3) };
    let mut storm = Storm::usual(false).await;
    let before = storm.resources();
    let mut kills = Vec::new();
    for round in 0..rounds {
        for victim in VICTIMS {
            let number = if victim == Victim::Proxy { round % 2 } else { round % 3 };
            let elsewhere = match victim {
                Victim::Agent | Victim::Server | Victim::Instance => ready_elsewhere(&storm, number),
                Victim::Proxy | Victim::Control => (0..MODELS).collect(),
            };
            let at = Instant::now();
            parts(&mut storm.fleet, victim, number).into_iter().for_each(Part::kill);
            let dead = Instant::now();
            tokio::time::sleep(Duration::from_secs(down)).await;
            parts(&mut storm.fleet, victim, number).into_iter().for_each(Part::start);
            if victim == Victim::Proxy {
                storm.fleet.wait_until_ready(number).await;
            }
            tokio::time::sleep(Duration::from_secs(up)).await;
            kills.push(Kill { victim, number, elsewhere, at, dead, until: Instant::now() });
        }
    }
    let after = storm.resources();
    let calls = storm.calls_since(storm.begin);
    let mut later = 0;
    for kill in &kills {
        let of: Vec<_> = calls.iter().filter(|call| call.begin >= kill.at && call.begin < kill.until).collect();
        let longest = of.iter().map(|call| call.took()).max();
        let over: Vec<_> = of.into_iter().filter(|call| call.begin >= kill.dead + OVER).collect();
        let over: Vec<_> = over.into_iter().filter(|call| kill.elsewhere.contains(&call.model)).collect();
        println!(
            "{:?} {}: the longest call took {longest:?}; {} models ready elsewhere, {} calls of them after {OVER:?}",
            kill.victim,
            kill.number,
            kill.elsewhere.len(),
            over.len(),
        );
        let of_no_other_kill = over.iter().filter(|call| !kills.iter().any(|other| explains(other, &storm, call)));
        let failed = failures(of_no_other_kill.copied());
        assert_eq!(failed, [].into(), "none fails after {OVER:?} where another copy is ready");
        later += over.len();
    }
    let unexplained: Vec<_> = calls
        .iter()
        .filter(|call| !call.is_right() && !kills.iter().any(|kill| explains(kill, &storm, call)))
        .collect();
    for call in &unexplained {
        let kill =
            kills.iter().rev().find(|kill| kill.at <= call.begin).map(|kill| (kill.victim, call.begin - kill.at));
        println!("began {kill:?}, took {:?}: {:?}", call.took(), call.outcome);
    }
    let unexplained = failures(unexplained);
    let (loads, begin) = (storm.loads(), storm.begin);
    let (fleet, calls) = storm.stop().await;
    let more = [
        ("loads", json!(loads)),
        ("kills", json!(kills.len())),
        ("calls of models ready elsewhere, later than 1 s after a kill", json!(later)),
        ("strays", json!(fleet.strays())),
    ];
    report::note("kills", begin.elapsed(), &calls, &more);
    assert_eq!(unexplained, [].into(), "only calls in flight on a killed part fail");
    assert_eq!(fleet.strays(), 0, "no call reached a server that had not the model");
    assert_flat(&before, &after);
}
