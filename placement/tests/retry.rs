//! The retry budget and rule `no_storm`.

use std::{sync::Arc, thread, time::Duration};

use modelring_placement::{retry::RetryBudget, rules::no_storm, time::Time};
use proptest::prelude::*;

fn allowed(budget: &RetryBudget, now: Time, wanted: usize) -> usize {
    (0..wanted).filter(|_| budget.retry(now)).count()
}

#[test]
fn a_quiet_proxy_may_retry_three_times_a_second() {
    let budget = RetryBudget::new();
    let now = Time::from_millis(100);
    budget.called(now, 4);
    assert_eq!(allowed(&budget, now, 10), 3);
    assert_eq!(allowed(&budget, Time::from_millis(900), 10), 0);
    assert_eq!(allowed(&budget, Time::from_millis(1_000), 10), 3);
}

#[test]
fn the_small_purse_is_not_saved_up() {
    let budget = RetryBudget::new();
    assert_eq!(allowed(&budget, Time::from_millis(3_600_000), 100), 3);
}

#[test]
fn a_busy_proxy_may_retry_a_fifth_of_its_calls() {
    let budget = RetryBudget::new();
    let now = Time::from_millis(5_000);
    budget.called(now, 1_000);
    assert_eq!(allowed(&budget, now, 1_000), 203);
}

#[test]
fn calls_of_more_than_ten_seconds_ago_do_not_count() {
    let budget = RetryBudget::new();
    budget.called(Time::from_millis(5_000), 1_000);
    assert_eq!(allowed(&budget, Time::from_millis(14_999), 1_000), 203);

    let budget = RetryBudget::new();
    budget.called(Time::from_millis(5_000), 1_000);
    assert_eq!(allowed(&budget, Time::from_millis(15_000), 1_000), 3);
}

#[test]
fn threads_together_spend_no_more_than_one_could() {
    let budget = Arc::new(RetryBudget::new());
    let now = Time::from_millis(5_000);
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let budget = Arc::clone(&budget);
            thread::spawn(move || {
                (0..2_500).for_each(|_| budget.called(now, 1));
                allowed(&budget, now, 2_500)
            })
        })
        .collect();
    let retries: usize = threads.into_iter().map(|thread| thread.join().expect("no panic")).sum();
    assert_eq!(retries, 2_003);
}

proptest! {
    #[test]
    fn with_every_upstream_failing_load_stays_within_the_rule(
        steps in prop::collection::vec((0u64..4_000, 0u32..200), 1..200),
        start in 0u64..100_000,
        tries in 1u32..8,
    ) {
        let budget = RetryBudget::new();
        let mut now = Time::from_millis(start);
        let (mut calls, mut attempts) = (0u64, 0u64);
        for (wait, count) in steps {
            now = now + Duration::from_millis(wait);
            for _ in 0..count {
                budget.called(now, 1);
                calls += 1;
                attempts += 1;
                attempts += (1..tries).take_while(|_| budget.retry(now)).count() as u64;
            }
            let seconds = now.as_nanos() / 1_000_000_000 - start / 1_000 + 1;
            prop_assert!(no_storm::run(attempts, calls, seconds), "{attempts} attempts for {calls} calls in {seconds} s");
        }
    }
}
