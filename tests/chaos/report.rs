//! What the long forms leave for `docs/soak.md`: a JSON file a test, in the folder `MODELRING_SOAK_DIR`.

use std::time::Duration;

use harness::fleet::{Call, failures, percentile};
use serde_json::{Value, json};

/// Notes what a run showed, and prints it.
pub(crate) fn note(test: &str, length: Duration, calls: &[Call], more: &[(&str, Value)]) {
    let mut row = json!({
        "test": test,
        "seconds": length.as_secs(),
        "calls": calls.len(),
        "failed": calls.iter().filter(|call| !call.is_right()).count(),
        "failures": failures(calls),
        "p50_ms": millis(percentile(calls, 50)),
        "p99_ms": millis(percentile(calls, 99)),
        "max_ms": millis(percentile(calls, 100)),
    });
    for (key, value) in more {
        row[*key] = value.clone();
    }
    println!("{row:#}");
    if let Ok(dir) = std::env::var("MODELRING_SOAK_DIR") {
        std::fs::create_dir_all(&dir).expect("the folder of results can be made");
        std::fs::write(format!("{dir}/{test}.json"), format!("{row:#}\n")).expect("a result can be written");
    }
}

fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e4).round() / 10.0
}
