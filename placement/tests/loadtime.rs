//! The learned load time.

use std::time::Duration;

use modelring_placement::loadtime::{LoadTime, LoadTimes};
use proptest::prelude::*;

const TIMEOUT: Duration = Duration::from_secs(90);

fn secs(secs: f64) -> Duration {
    Duration::from_secs_f64(secs)
}

#[test]
fn at_first_it_is_a_third_of_the_load_timeout_but_at_least_three_seconds() {
    assert_eq!(LoadTime::new(TIMEOUT).estimate(), secs(30.0));
    assert_eq!(LoadTime::new(secs(2.0)).estimate(), secs(3.0));
    assert_eq!(LoadTimes::default().estimate("mt:onnx", TIMEOUT), secs(30.0));
}

#[test]
fn the_first_three_loads_draw_it_near_by_a_third_each() {
    let mut learned = LoadTime::new(TIMEOUT);
    learned.observe(secs(3.0));
    assert_eq!(learned.estimate(), secs(21.0));
    learned.observe(secs(3.0));
    assert_eq!(learned.estimate(), secs(15.0));
    learned.observe(secs(3.0));
    assert_eq!(learned.estimate(), secs(11.0));
}

#[test]
fn every_fourth_load_sets_it_to_the_mean_plus_five_then_three_deviations() {
    let mut learned = LoadTime::new(TIMEOUT);
    for _ in 0..2 {
        learned.observe(secs(1.0));
        learned.observe(secs(3.0));
    }
    assert!((learned.estimate().as_secs_f64() - 7.0).abs() < 1e-6, "2 + 5 x 1: {:?}", learned.estimate());
    learned.observe(secs(100.0));
    assert!((learned.estimate().as_secs_f64() - 7.0).abs() < 1e-6, "a fifth load changes nothing");

    let mut learned = LoadTime::new(TIMEOUT);
    for _ in 0..12 {
        learned.observe(secs(1.0));
        learned.observe(secs(3.0));
    }
    assert!((learned.estimate().as_secs_f64() - 5.0).abs() < 1e-6, "2 + 3 x 1: {:?}", learned.estimate());
}

#[test]
fn types_are_learned_apart() {
    let mut times = LoadTimes::default();
    times.observe("mt:onnx", TIMEOUT, secs(3.0));
    assert_eq!(times.estimate("mt:onnx", TIMEOUT), secs(21.0));
    assert_eq!(times.estimate("mt:sklearn", TIMEOUT), secs(30.0));
}

proptest! {
    #[test]
    fn it_is_never_below_the_mean_of_what_was_seen_when_it_is_set(
        took in prop::collection::vec(0.0f64..1_000.0, 4..60),
    ) {
        let mut learned = LoadTime::new(TIMEOUT);
        for (n, sample) in took.iter().enumerate() {
            learned.observe(secs(*sample));
            if n >= 3 && (n + 1) % 4 == 0 {
                let mean = took[..=n].iter().sum::<f64>() / (n + 1) as f64;
                prop_assert!(learned.estimate().as_secs_f64() >= mean - 1e-6);
            }
        }
    }
}
