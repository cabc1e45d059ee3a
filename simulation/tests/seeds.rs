//! Random runs. `MODELRING_SIM_SEEDS` says how many, `MODELRING_SIM_SEED` runs one.

use modelring_simulation::{log::Log, seed};

/// Seeds of an ordinary run of the tests.
const SEEDS: u64 = 200;
/// Tests that share them, so that cores share them too.
const PARTS: u64 = 4;

fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

fn part(part: u64) {
    let seeds = match variable("MODELRING_SIM_SEED") {
        Some(one) => one..one + 1,
        None => 0..variable("MODELRING_SIM_SEEDS").unwrap_or(SEEDS),
    };
    let broken: Vec<_> =
        seeds.filter(|seed| seed % PARTS == part).filter_map(|seed| seed::explain(seed).err()).collect();
    assert!(broken.is_empty(), "{} seeds break rules\n{}", broken.len(), broken.join("\n\n"));
}

#[test]
fn no_seed_breaks_a_rule_first_part() {
    part(0);
}

#[test]
fn no_seed_breaks_a_rule_second_part() {
    part(1);
}

#[test]
fn no_seed_breaks_a_rule_third_part() {
    part(2);
}

#[test]
fn no_seed_breaks_a_rule_fourth_part() {
    part(3);
}

#[test]
fn the_same_seed_gives_the_same_run_and_another_one_another() {
    let runs = |seed| {
        let run = seed::run(seed, Log::Off).expect("no rule is broken");
        (run.fingerprint, run.events, run.time, run.counts)
    };
    for seed in 1000..1006 {
        assert_eq!(runs(seed), runs(seed), "seed {seed}");
    }
    assert_ne!(runs(1000).0, runs(1001).0);
}

#[test]
fn runs_are_not_empty() {
    let run = seed::run(7, Log::Off).expect("no rule is broken");
    for what in ["ok", "loads", "tables", "calls at servers"] {
        assert!(run.counts.contains_key(what), "{what}: {:?}", run.counts);
    }
}
