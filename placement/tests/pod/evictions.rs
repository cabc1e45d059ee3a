//! What may go for a load, what may not, and what a caller is told then.

use modelring_placement::pod::{EvictionPolicy, LoadError, Refusal, Settings, Told, Why};

use crate::kit::{Kit, limits, secs, settings};

fn guarded() -> Kit {
    Kit::with(Settings { min_churn_age: Some(secs(20)), ..settings() }, limits(100, 2))
}

fn refused(kit: &Kit, waiter: u64) -> (Refusal, Option<std::time::Duration>, String) {
    match kit.told(waiter) {
        Some(Told::Refused { refusal, retry_after, text }) => (*refusal, *retry_after, text.clone()),
        other => panic!("not refused: {other:?} in {:?}", kit.actions),
    }
}

#[test]
fn the_least_recently_used_copy_goes_and_no_more_than_is_needed() {
    let mut kit = Kit::new();
    for model in ["a", "b", "c"] {
        kit.load(model, 30);
        kit.wait(secs(5));
    }
    kit.touch("a", 0);
    kit.ask("d");
    kit.sized("d", 30);
    assert_eq!((kit.state("a"), kit.state("b"), kit.state("c")), ("READY", "DRAINING", "READY"));
}

#[test]
fn one_large_copy_spares_the_small_ones_that_would_not_have_been_enough() {
    let mut kit = Kit::new();
    for (model, bytes) in [("a", 10), ("b", 10), ("c", 80)] {
        kit.load(model, bytes);
        kit.wait(secs(5));
    }
    kit.ask("d");
    kit.sized("d", 80);
    assert_eq!((kit.state("a"), kit.state("b"), kit.state("c")), ("READY", "READY", "DRAINING"));
}

#[test]
fn gdsf_lets_go_what_is_large_for_its_worth() {
    let mut kit = Kit::with(Settings { eviction: EvictionPolicy::Gdsf, ..settings() }, limits(100, 2));
    kit.load("small", 10);
    kit.wait(secs(5));
    kit.load("large", 80);
    kit.wait(secs(5));
    kit.ask("d");
    kit.sized("d", 20);
    assert_eq!((kit.state("small"), kit.state("large")), ("READY", "DRAINING"));
}

#[test]
fn a_young_copy_does_not_go_and_the_refusal_says_when_to_ask_again() {
    let mut kit = guarded();
    kit.load("old", 80);
    kit.wait(secs(5));
    let waiter = kit.ask("new");
    kit.sized("new", 60);
    let (refusal, retry_after, text) = refused(&kit, waiter);
    assert_eq!((refusal, retry_after), (Refusal::Churn, Some(secs(15))));
    assert_eq!(
        text,
        "needs 60 B of 100 B, of which 20 B are free, 0 B being freed, 0 B idle, 80 B used too recently, 0 B in \
         flight, 0 B kept and 0 B promised to other loads; room can be made in 15 s"
    );
    assert_eq!((kit.state("old"), kit.state("new")), ("READY", "GONE"));
    kit.wait(secs(15));
    kit.ask("new");
    kit.sized("new", 60);
    assert_eq!(kit.state("old"), "DRAINING");
}

#[test]
fn what_is_hopeless_for_any_size_is_refused_without_being_sized() {
    let mut kit = guarded();
    kit.load("old", 100);
    let waiter = kit.ask("new");
    assert_eq!(refused(&kit, waiter).0, Refusal::Churn);
    assert_eq!(kit.actions.len(), 1);
}

#[test]
fn the_churn_age_is_learned_from_loads_where_none_is_set() {
    let mut kit = Kit::with(Settings { min_churn_age: None, ..settings() }, limits(100, 2));
    kit.load("old", 100);
    let waiter = kit.ask("new");
    let (_, retry_after, _) = refused(&kit, waiter);
    let ten_times = retry_after.map(|after| after.as_secs());
    assert_eq!(ten_times, Some(133), "a first load at once lowers 20 s by a third: {retry_after:?}");
    for n in 0..3 {
        kit.wait(secs(1000));
        let next = format!("m{n}");
        let waiter = kit.ask(&next);
        let attempt = kit.sized(&next, 100);
        kit.unloaded(if n == 0 { "old".to_owned() } else { format!("m{}", n - 1) }.as_str(), attempt - 1);
        kit.pulled(&next, attempt);
        kit.loaded(&next, attempt, 100);
        assert!(matches!(kit.told(waiter), Some(Told::Loaded { .. })));
    }
    let waiter = kit.ask("new");
    assert_eq!(refused(&kit, waiter).1, Some(secs(1)), "four loads took no time: the least age");
}

#[test]
fn a_copy_in_flight_is_no_candidate_for_3_s_however_old_its_last_use() {
    let mut kit = Kit::new();
    kit.load("old", 80);
    kit.wait(secs(10));
    kit.touch("old", 2);
    let waiter = kit.ask("new");
    kit.sized("new", 60);
    assert_eq!(refused(&kit, waiter), (Refusal::Full, Some(secs(3)), refused(&kit, waiter).2));
    kit.wait(secs(3));
    kit.ask("new");
    kit.sized("new", 60);
    assert_eq!(kit.state("old"), "DRAINING");
}

#[test]
fn kept_copies_never_go() {
    let mut kit = Kit::new();
    kit.load("old", 80);
    kit.hint(1, &["old"], &[], &[]);
    kit.wait(secs(1000));
    let waiter = kit.ask("new");
    kit.sized("new", 60);
    assert_eq!(refused(&kit, waiter).0, Refusal::Pinned);
}

#[test]
fn surplus_and_gone_copies_go_first_and_age_does_not_protect_them() {
    let mut kit = guarded();
    for model in ["a", "b", "c"] {
        kit.load(model, 30);
    }
    kit.hint(1, &[], &["c"], &["b"]);
    kit.ask("d");
    kit.sized("d", 30);
    assert_eq!(kit.state("b"), "DRAINING");
    kit.ask("e");
    kit.sized("e", 30);
    assert_eq!((kit.state("a"), kit.state("c")), ("READY", "READY"), "the head reserves first");
    kit.unloaded("b", 2);
    assert_eq!((kit.state("a"), kit.state("c"), kit.state("d")), ("READY", "DRAINING", "LOADING"));
}

#[test]
fn idle_copies_stay_for_days_while_nobody_needs_their_memory() {
    let mut kit = guarded();
    kit.load("plain", 30);
    kit.load("surplus", 30);
    kit.hint(1, &[], &["surplus"], &[]);
    kit.wait(secs(7 * 24 * 3600));
    assert_eq!((kit.state("plain"), kit.state("surplus")), ("READY", "READY"));
}

#[test]
fn a_load_ahead_of_use_takes_free_memory_only() {
    let mut kit = Kit::new();
    kit.load("old", 80);
    kit.wait(secs(1000));
    let waiter = kit.ask_as("new", Why::Ahead, None);
    kit.sized("new", 60);
    assert_eq!(refused(&kit, waiter).0, Refusal::Full);
    kit.ask_as("small", Why::Ahead, None);
    kit.sized("small", 20);
    assert_eq!(kit.state("small"), "LOADING");
}

#[test]
fn what_is_refused_again_and_again_is_told_to_no_watcher() {
    let mut kit = Kit::with(Settings { min_churn_age: Some(secs(3600)), ..settings() }, limits(100, 2));
    kit.load("old", 80);
    kit.ask_as("ahead", Why::Ahead, None);
    kit.sized("ahead", 60);
    kit.ask_as("scale", Why::Scale, None);
    kit.sized("scale", 60);
    for _ in 0..60 {
        kit.wait(secs(5));
        for (model, why) in [("ahead", Why::Ahead), ("scale", Why::Scale), ("ahead", Why::Keep)] {
            let waiter = kit.ask_as(model, why, None);
            let _ = refused(&kit, waiter);
            assert_eq!(kit.actions.len(), 1, "{:?}", kit.actions);
        }
    }
    kit.ask("ahead");
    assert_eq!(kit.state("ahead"), "QUEUED", "for a caller it is sized anew");
    kit.wait(secs(600));
    kit.ask_as("scale", Why::Scale, None);
    assert_eq!(kit.state("scale"), "QUEUED", "and after a while for anyone");
}

#[test]
fn a_load_that_replaces_takes_a_young_used_copy_and_nothing_calls_that_off() {
    let mut kit = guarded();
    kit.load("old", 80);
    kit.ping("p1");
    kit.touch("old", 1);
    kit.ask_as("new", Why::Keep, Some("old"));
    kit.sized("new", 80);
    assert_eq!(kit.state("old"), "DRAINING");
    kit.touch("old", 1);
    let back = kit.ask("old");
    assert_eq!((kit.state("old"), kit.told(back)), ("DRAINING", Some(&Told::Accepted { place: 0 })));
}

#[test]
fn a_smaller_model_gives_back_and_a_larger_one_is_paid_for_by_evictions() {
    let mut kit = Kit::new();
    let old = kit.load("old", 50);
    kit.ask("new");
    let attempt = kit.sized("new", 40);
    kit.pulled("new", attempt);
    kit.loaded("new", attempt, 70);
    assert_eq!((kit.state("new"), kit.account()), ("READY", (70, 0, 50, 20)));
    assert!(kit.unloads("old"));
    let other = kit.ask("other");
    kit.sized("other", 10);
    assert!(matches!(kit.told(other), Some(Told::Accepted { .. })));
    assert_eq!(kit.state("other"), "QUEUED", "nothing is promised while there is overrun");
    kit.unloaded("old", old);
    assert_eq!((kit.account(), kit.state("other")), ((70, 10, 0, 0), "LOADING"));
}

#[test]
fn an_overrun_that_only_kept_copies_could_pay_fails_the_culprit_with_both_sizes() {
    let mut kit = Kit::new();
    kit.load("old", 50);
    kit.hint(1, &["old"], &[], &[]);
    let waiter = kit.ask("new");
    let attempt = kit.sized("new", 40);
    kit.pulled("new", attempt);
    kit.loaded("new", attempt, 70);
    assert!(kit.unloads("new") && !kit.unloads("old"));
    let Some(Told::Failed(LoadError { text, passing, .. })) = kit.told(waiter) else { panic!("{:?}", kit.actions) };
    assert_eq!(text, "needs 70 B where 40 B were reserved; the pod has 100 B, and what else it holds may not go");
    assert!(!passing);
    kit.unloaded("new", attempt);
    assert_eq!((kit.state("new"), kit.account()), ("FAILED", (50, 0, 0, 0)));
}

#[test]
fn the_failure_of_a_model_that_outgrew_what_is_kept_ends_when_less_is_kept() {
    let mut kit = Kit::new();
    kit.load("old", 30);
    kit.load("older", 20);
    kit.hint(1, &["old", "older"], &[], &[]);
    kit.ask("new");
    let attempt = kit.sized("new", 40);
    kit.pulled("new", attempt);
    kit.loaded("new", attempt, 75);
    kit.unloaded("new", attempt);
    assert_eq!(kit.state("new"), "FAILED");
    kit.hint(1, &["old"], &[], &[]);
    assert_eq!(kit.state("new"), "FAILED", "75 do not fit beside 30");
    kit.hint(1, &["older"], &[], &[]);
    assert_eq!(kit.state("new"), "GONE");
    kit.ask("new");
    kit.sized("new", 40);
    assert_eq!(kit.state("old"), "DRAINING", "75 of 100 are reserved this time");
}

#[test]
fn a_culprit_that_turned_ready_goes_when_the_others_turn_out_to_be_in_use() {
    let mut kit = Kit::new();
    kit.load("old", 50);
    kit.ping("p1");
    kit.ask("new");
    let attempt = kit.sized("new", 40);
    kit.pulled("new", attempt);
    kit.loaded("new", attempt, 70);
    assert_eq!((kit.state("new"), kit.state("old")), ("READY", "DRAINING"));
    kit.touch("old", 1);
    assert_eq!((kit.state("new"), kit.state("old")), ("DRAINING", "READY"));
    let waiter = kit.ask("new");
    kit.ack("p1", "new", kit.seq("new"));
    kit.unloaded("new", attempt);
    assert_eq!((kit.state("new"), kit.account()), ("FAILED", (50, 0, 0, 0)));
    assert!(matches!(kit.told(waiter), Some(Told::Failed(LoadError { passing: true, .. }))));
}

#[test]
fn what_a_failed_model_turned_out_to_need_is_reserved_for_it_the_next_time() {
    let mut kit = Kit::new();
    kit.load("old", 50);
    kit.ping("p1");
    kit.touch("old", 1);
    kit.ask("new");
    let attempt = kit.sized("new", 40);
    kit.pulled("new", attempt);
    kit.loaded("new", attempt, 70);
    kit.unloaded("new", attempt);
    assert_eq!(kit.state("new"), "FAILED");
    kit.wait(secs(5));
    kit.ask("new");
    kit.sized("new", 40);
    assert_eq!(kit.state("old"), "DRAINING", "70 of 100 are needed");
}

#[test]
fn the_age_of_the_next_victim_is_told() {
    let mut kit = Kit::new();
    assert_eq!(kit.pod.ledger(kit.now).next_victim_age, None);
    kit.load("a", 10);
    kit.wait(secs(7));
    kit.load("b", 10);
    kit.wait(secs(2));
    assert_eq!(kit.pod.ledger(kit.now).next_victim_age, Some(secs(9)));
    kit.hint(1, &["a"], &[], &[]);
    assert_eq!(kit.pod.ledger(kit.now).next_victim_age, Some(secs(2)));
}
