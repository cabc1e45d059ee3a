//! Runs seeds: `modelring-simulation FROM COUNT`, or `modelring-simulation --show SEED` with every event.

use std::process::ExitCode;

use modelring_simulation::seed;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize| arguments.get(at).and_then(|text| text.parse::<u64>().ok());
    if arguments.first().is_some_and(|first| first == "--show") {
        let seed = number(1).unwrap_or_default();
        match seed::run(seed, true) {
            Ok(run) => println!("seed {seed}: {run:?}"),
            Err(broken) => println!("seed {seed} breaks {broken}"),
        }
        return ExitCode::SUCCESS;
    }
    let (from, count) = (number(0).unwrap_or(0), number(1).unwrap_or(100));
    let began = std::time::Instant::now();
    let mut events = 0;
    let mut bad = Vec::new();
    let mut counts = std::collections::BTreeMap::<_, u64>::new();
    for seed in from..from + count {
        match std::panic::catch_unwind(|| seed::run(seed, false)) {
            Ok(Ok(run)) => {
                events += run.events;
                for (what, count) in run.counts {
                    *counts.entry(what).or_default() += count;
                }
            }
            Ok(Err(broken)) => bad.push((seed, broken)),
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned();
                bad.push((seed, format!("panic: {}", text.unwrap_or_default().chars().take(300).collect::<String>())));
            }
        }
    }
    for (seed, broken) in &bad {
        println!("seed {seed} breaks {broken}");
    }
    println!("{count} seeds, {} broken, {events} events, {:.1} s, {counts:?}", bad.len(), began.elapsed().as_secs_f64());
    if bad.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
