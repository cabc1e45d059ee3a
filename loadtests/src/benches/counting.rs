//! What a proxy does to count a call, beside one counter with labels as metrics libraries have them: a locked map from labels
//! to values, of which a call of a proxy would need five.
//!
//! No process is started; both are measured in one thread, in alternating rounds.

use std::{
    collections::HashMap,
    hint::black_box,
    sync::Mutex,
    time::{Duration, Instant},
};

use anyhow::Result;
use modelring_process::metrics::Options;
use modelring_proxy::{engine::policy::Record, metrics::Metrics};

use crate::report::{Better, Figure, median, write};

const PATH: &str = "/inference.GRPCInferenceService/ModelInfer";
const ROUNDS: usize = 9;
const CALLS: u32 = 200_000;

/// Runs the benchmark.
pub(crate) fn run() -> Result<()> {
    let metrics = Metrics::new(&Options::default(), 1);
    let record = Record {
        path: PATH.into(),
        code: 0,
        reason: None,
        tries: 1,
        took: Duration::from_millis(3),
        held: Duration::ZERO,
        served: false,
        bytes: Some((200, 90)),
        subject: None,
    };
    let counters = Mutex::new(HashMap::<(String, u32), u64>::new());
    let (mut call, mut counter) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        call.push(nanos(|| {
            metrics.invoked(PATH, None, 0, Duration::from_millis(2));
            metrics.call(black_box(&record));
        }));
        counter.push(nanos(|| {
            let mut counters = counters.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            *counters.entry((black_box(PATH).to_owned(), black_box(0))).or_default() += 1;
        }));
    }
    let (call, counter) = (median(call), median(counter));
    println!(
        "all that is counted of a call: {call:.0} ns; one labelled counter: {counter:.0} ns; {:.2} x",
        call / counter
    );
    let figure = |name: &str, value, unit, goal, floor| Figure {
        name: name.to_owned(),
        value,
        unit,
        better: Better::Lower,
        goal,
        floor,
    };
    write(
        "counting",
        &[
            figure("all that is counted of a call", call, "ns", None, None),
            figure("one labelled counter", counter, "ns", None, None),
            figure("call / labelled counter", call / counter, "x", Some(2.0), Some(5.0)),
        ],
    )
}

/// Time of one, over many.
fn nanos(what: impl Fn()) -> f64 {
    let begun = Instant::now();
    (0..CALLS).for_each(|_| what());
    begun.elapsed().as_nanos() as f64 / f64::from(CALLS)
}
