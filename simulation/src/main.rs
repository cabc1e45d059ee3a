//! Runs seeds: `modelring-simulation [FROM [COUNT]]`; `modelring-simulation --show SEED` tells every event of one.

use std::{collections::BTreeMap, process::ExitCode, time::Instant};

use modelring_simulation::{log::Log, seed};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize| arguments.get(at).and_then(|text| text.parse::<u64>().ok());
    if arguments.first().is_some_and(|first| first == "--show") {
        let seed = number(1).unwrap_or_default();
        return match seed::run(seed, Log::Print) {
            Ok(run) => {
                println!("seed {seed}: {run:?}");
                ExitCode::SUCCESS
            }
            Err(broken) => {
                println!("seed {seed} breaks {broken}");
                ExitCode::FAILURE
            }
        };
    }
    let (from, count) = (number(0).unwrap_or(0), number(1).unwrap_or(100));
    let began = Instant::now();
    let (mut events, mut broken, mut virtual_time) = (0, 0, 0);
    let mut counts = BTreeMap::<_, u64>::new();
    for seed in from..from + count {
        match seed::explain(seed) {
            Ok(run) => {
                events += run.events;
                virtual_time += run.time;
                for (what, count) in run.counts {
                    *counts.entry(what).or_default() += count;
                }
            }
            Err(text) => {
                broken += 1;
                println!("{text}");
            }
        }
    }
    let (took, hours) = (began.elapsed().as_secs_f64(), virtual_time as f64 / 3.6e12);
    println!(
        "{count} seeds from {from}: {broken} broken; {events} events, {hours:.1} h of virtual time, in {took:.1} s"
    );
    for (what, count) in counts {
        println!("{count:>12} {what}");
    }
    if broken == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
