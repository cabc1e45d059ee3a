//! Which ready copy answers a call, and the latency it is judged by.

use std::time::Duration;

use modelring_placement::{
    choice::{FAILURE, Latency, SharedLatency, Standing, choose},
    time::Time,
};
use proptest::prelude::*;
use rand::{RngCore, SeedableRng, rngs::SmallRng};

fn copy(millis: u64, in_flight: u32) -> Standing {
    Standing { usable: true, latency: Duration::from_millis(millis), in_flight, ..Standing::default() }
}

fn random(seed: u64) -> impl FnMut() -> u64 {
    let mut rng = SmallRng::seed_from_u64(seed);
    move || rng.next_u64()
}

/// How often each copy is chosen in 1,000 choices.
fn shares(copies: &[Standing]) -> Vec<usize> {
    let mut random = random(1);
    let mut shares = vec![0; copies.len()];
    for _ in 0..1_000 {
        shares[choose(copies, &mut random).expect("one is usable")] += 1;
    }
    shares
}

#[test]
fn a_single_copy_is_taken_although_ejected_saturated_and_leaving() {
    let only = Standing { ejected: true, saturated: true, leaving: true, ..copy(10, 99) };
    assert_eq!(choose(&[only], &mut random(1)), Some(0));
}

#[test]
fn of_a_few_the_one_with_the_least_latency_times_load_is_taken() {
    assert_eq!(shares(&[copy(10, 3), copy(20, 0), copy(30, 0)]), [0, 1_000, 0]);
    assert_eq!(shares(&[copy(10, 0), copy(20, 0), copy(10, 1)]), [1_000, 0, 0]);
}

#[test]
fn equal_copies_share_the_calls() {
    for n in [2, 3, 4, 9] {
        let shares = shares(&vec![copy(10, 0); n]);
        assert!(shares.iter().all(|share| (500 / n..2_000 / n).contains(share)), "{shares:?}");
    }
}

#[test]
fn a_copy_of_unknown_latency_is_neither_shunned_nor_flooded() {
    assert_eq!(shares(&[copy(10, 1), copy(0, 0)]), [0, 1_000]);
    assert_eq!(shares(&[copy(10, 0), copy(0, 1)]), [1_000, 0]);
}

#[test]
fn of_many_the_worst_is_never_taken_and_no_copy_is_flooded() {
    let mut copies = vec![copy(10, 0); 10];
    copies[3] = copy(10, 50);
    let shares = shares(&copies);
    assert_eq!(shares[3], 0);
    assert!(shares.iter().all(|share| *share < 250), "{shares:?}");
}

#[test]
fn ejected_saturated_and_leaving_copies_are_passed_over_while_there_is_another() {
    for n in [2, 4, 12] {
        for flawed in [
            Standing { ejected: true, ..copy(1, 0) },
            Standing { saturated: true, ..copy(1, 0) },
            Standing { leaving: true, ..copy(1, 0) },
        ] {
            let mut copies = vec![flawed; n];
            copies[n - 1] = copy(1_000, 100);
            assert_eq!(shares(&copies)[n - 1], 1_000);
        }
    }
}

#[test]
fn where_all_are_flawed_a_leaving_one_is_taken_before_a_saturated_one_before_an_ejected_one() {
    let leaving = Standing { leaving: true, ..copy(1_000, 9) };
    let saturated = Standing { saturated: true, ..copy(10, 9) };
    let ejected = Standing { ejected: true, ..copy(1, 0) };
    assert_eq!(shares(&[ejected, saturated, leaving]), [0, 0, 1_000]);
    assert_eq!(shares(&[ejected, saturated]), [0, 1_000]);
}

fn standing() -> impl Strategy<Value = Standing> {
    (any::<bool>(), 0u64..u64::MAX, any::<u32>(), any::<[bool; 3]>()).prop_map(|(usable, nanos, in_flight, flags)| {
        let [leaving, ejected, saturated] = flags;
        Standing { usable, latency: Duration::from_nanos(nanos), in_flight, leaving, ejected, saturated }
    })
}

proptest! {
    #[test]
    fn an_unusable_copy_is_never_chosen_and_a_usable_one_always_found(
        copies in prop::collection::vec(standing(), 0..12),
        seed in any::<u64>(),
    ) {
        let chosen = choose(&copies, &mut random(seed));
        prop_assert_eq!(chosen.is_some(), copies.iter().any(|copy| copy.usable));
        if let Some(chosen) = chosen {
            let flawed = |copy: &Standing| copy.leaving || copy.ejected || copy.saturated;
            prop_assert!(copies[chosen].usable);
            let other = copies.iter().any(|copy| copy.usable && !flawed(copy));
            prop_assert!(!flawed(&copies[chosen]) || !other);
        }
    }

    #[test]
    fn an_average_lies_between_what_was_seen_and_sinks_when_nothing_comes(
        samples in prop::collection::vec((0u64..3_000, 1u64..10_000), 1..50),
    ) {
        let mut now = Time::from_millis(5_000);
        let mut latency = Latency::default();
        let shared = SharedLatency::default();
        for (wait, took) in &samples {
            now = now + Duration::from_millis(*wait);
            latency = latency.observe(now, Duration::from_millis(*took));
            shared.observe(now, Duration::from_millis(*took));
        }
        let average = latency.average(now);
        let least = samples.iter().map(|(_, took)| *took).min().unwrap_or(0);
        let most = samples.iter().map(|(_, took)| *took).max().unwrap_or(0);
        prop_assert!(average.as_secs_f64() >= least as f64 / 1e3 * 0.999);
        prop_assert!(average.as_secs_f64() <= most as f64 / 1e3 * 1.001);
        prop_assert_eq!(shared.average(now), average);
        prop_assert!(latency.average(now + Duration::from_secs(10)) < average);
    }
}

#[test]
fn a_failing_copy_is_shunned_at_once_and_tried_again_after_a_while() {
    let mut now = Time::from_millis(1);
    let mut latency = Latency::default();
    for _ in 0..1_000 {
        now = now + Duration::from_millis(10);
        latency = latency.observe(now, Duration::from_millis(5));
    }
    now = now + Duration::from_millis(200);
    let failed = latency.observe(now, FAILURE);
    assert!(failed.average(now) > 10 * latency.average(now), "{:?}", failed.average(now));
    assert!(failed.average(now + Duration::from_secs(60)) < Duration::from_millis(5));
}

#[test]
fn a_burst_within_one_tick_still_counts() {
    let now = Time::from_millis(1);
    let mut latency = Latency::default().observe(now, Duration::from_micros(100));
    for _ in 0..40_000 {
        latency = latency.observe(now, Duration::from_micros(200));
    }
    assert!(latency.average(now) > Duration::from_micros(190), "{:?}", latency.average(now));
}
