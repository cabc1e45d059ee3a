//! Benchmarks: two things measured side by side in one run, in alternating rounds, and their ratio.
//!
//! `modelring-loadtests NAME` runs one; it starts the processes that it measures from the `modelring` binary beside it.
//! The figures go to standard output and to `target/bench/NAME.json`.

mod benches;
mod load;
mod report;

use std::process::ExitCode;

fn main() -> ExitCode {
    let name = std::env::args().nth(1).unwrap_or_default();
    let result = match name.as_str() {
        "counting" => benches::counting::run(),
        "direct" => benches::direct::run(),
        _ => {
            eprintln!(
                "usage: modelring-loadtests BENCH\n\n  counting what a proxy does to count a call, beside one labelled counter\n  direct   the embedded model server called directly and through the proxy"
            );
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench {name}: {error:#}");
            ExitCode::FAILURE
        }
    }
}
