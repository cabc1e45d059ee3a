//! The queue, one load per model, and memory reserved before a pull.

use std::time::Duration;

use modelring_placement::pod::{Action, CopyState, Event, Refusal, Settings, Told, Why};

use crate::kit::{Kit, id, limits, reference, secs, settings};

#[test]
fn a_load_is_sized_reserved_pulled_loaded_and_then_told() {
    let mut kit = Kit::new();
    let waiter = kit.ask("a");
    assert_eq!(kit.told(waiter), None, "not before it is sized");
    assert_eq!((kit.state("a"), kit.account()), ("QUEUED", (0, 0, 0, 0)));
    let attempt = kit.sized("a", 40);
    assert_eq!(kit.actions[0], Action::Tell(waiter, Told::Accepted { place: 0 }), "before the news of the pull");
    assert_eq!(kit.shown("a"), [&CopyState::Loading { bytes: 40 }]);
    assert_eq!(kit.account(), (0, 40, 0, 0));
    kit.pulled("a", attempt);
    assert!(kit.did(|action| matches!(action, Action::Load(..))));
    kit.loaded("a", attempt, 30);
    let seq = kit.seq("a");
    assert_eq!(kit.told(waiter), Some(&Told::Loaded { seq }));
    assert_eq!((kit.state("a"), kit.account()), ("READY", (30, 0, 0, 0)));
    assert_eq!(kit.pod.last_seq(), seq);
}

#[test]
fn a_server_that_does_not_tell_sizes_leaves_the_reservation() {
    let mut kit = Kit::new();
    kit.ask("a");
    let attempt = kit.sized("a", 40);
    kit.pulled("a", attempt);
    let unknown = modelring_placement::pod::LoadedModel { bytes: None, concurrency_limit: 3 };
    kit.send(Event::Loaded(id("a"), attempt, Ok(unknown)));
    assert_eq!(kit.shown("a"), [&CopyState::Ready { bytes: 40, concurrency_limit: 3 }]);
    assert_eq!(kit.account(), (40, 0, 0, 0));
}

#[test]
fn five_hundred_callers_make_one_load_and_all_are_told() {
    let mut kit = Kit::new();
    let first = kit.ask("a");
    let attempt = kit.attempt("a");
    let mut waiters = vec![first];
    for _ in 1..500 {
        let waiter = kit.ask("a");
        assert_eq!(kit.actions, []);
        waiters.push(waiter);
    }
    for waiter in waiters.drain(1..250) {
        kit.gone(waiter);
    }
    kit.send(Event::Sized(id("a"), attempt, Ok(10)));
    for waiter in &waiters {
        assert_eq!(kit.told(*waiter), Some(&Told::Accepted { place: 0 }));
    }
    let late = kit.ask("a");
    assert_eq!(kit.actions, [Action::Tell(late, Told::Accepted { place: 0 })]);
    waiters.push(late);
    kit.pulled("a", attempt);
    kit.loaded("a", attempt, 10);
    for waiter in waiters {
        assert!(matches!(kit.told(waiter), Some(Told::Loaded { .. })));
    }
    assert_eq!(kit.actions.len(), 1 + 252);
}

#[test]
fn an_ask_for_a_ready_copy_is_answered_at_once_with_its_seq() {
    let mut kit = Kit::new();
    kit.load("a", 10);
    let seq = kit.seq("a");
    let waiter = kit.ask("a");
    assert_eq!(kit.actions, [Action::Tell(waiter, Told::Loaded { seq })]);
}

#[test]
fn the_queue_goes_by_reason_first_and_by_time_within_one() {
    let mut kit = Kit::with(settings(), limits(100, 1));
    kit.ask("running");
    let running = kit.sized("running", 10);
    kit.pulled("running", running);
    for (model, why) in [("d", Why::Ahead), ("c", Why::Scale), ("b2", Why::Keep), ("b1", Why::Keep), ("a", Why::Waiter)]
    {
        kit.ask_as(model, why, None);
        kit.sized(model, 10);
    }
    let waiter = kit.ask_as("b1", Why::Ahead, None);
    assert_eq!(kit.told(waiter), Some(&Told::Accepted { place: 2 }));
    let raised = kit.ask_as("b1", Why::Waiter, None);
    assert_eq!(kit.told(raised), Some(&Told::Accepted { place: 0 }), "asked for before a");
    kit.loaded("running", running, 10);
    for model in ["b1", "a", "b2", "c", "d"] {
        let attempt = kit.attempt(model);
        kit.pulled(model, attempt);
        kit.loaded(model, attempt, 10);
        assert_eq!(kit.state(model), "READY", "{model}");
    }
}

#[test]
fn no_more_loads_run_at_once_than_the_server_takes() {
    let mut kit = Kit::new();
    for model in ["a", "b", "c"] {
        kit.ask(model);
        kit.sized(model, 10);
    }
    assert_eq!((kit.state("a"), kit.state("b"), kit.state("c")), ("LOADING", "LOADING", "QUEUED"));
    assert!(!kit.did(|action| matches!(action, Action::Pull(..))));
}

#[test]
fn a_large_load_at_the_head_is_not_overtaken_by_small_ones() {
    let mut kit = Kit::with(settings(), limits(100, 4));
    let old = kit.load("old", 80);
    kit.ping("p1");
    kit.ask("large");
    kit.sized("large", 90);
    assert_eq!(kit.state("old"), "DRAINING");
    kit.ask("small");
    kit.sized("small", 10);
    assert_eq!(kit.state("small"), "QUEUED", "20 bytes are free, and they are the large one's");
    kit.ack("p1", "old", kit.seq("old"));
    assert!(kit.unloads("old"));
    kit.unloaded("old", old);
    assert_eq!((kit.state("large"), kit.state("small")), ("LOADING", "LOADING"));
}

#[test]
fn what_is_predicted_larger_than_the_pod_fails_without_a_load() {
    let mut kit = Kit::new();
    let waiter = kit.ask("a");
    kit.sized("a", 3000);
    let Some(Told::Failed(error)) = kit.told(waiter) else { panic!("{:?}", kit.actions) };
    assert_eq!(error.text, "needs 2.9 KiB, the pod has 100 B in all");
    assert_eq!((kit.state("a"), kit.account()), ("FAILED", (0, 0, 0, 0)));
    assert!(!kit.did(|action| matches!(action, Action::Pull(..) | Action::Load(..))));
}

#[test]
fn a_queued_load_keeps_its_place_for_30_s_after_it_was_last_asked_for() {
    let mut kit = Kit::with(settings(), limits(100, 1));
    kit.ask("running");
    kit.sized("running", 10);
    let waiter = kit.ask("a");
    kit.sized("a", 10);
    kit.wait(secs(40));
    assert_eq!(kit.state("a"), "QUEUED", "an open call asks all the time");
    kit.gone(waiter);
    kit.wait(secs(29));
    assert_eq!(kit.state("a"), "QUEUED");
    kit.wait(secs(1));
    assert_eq!(kit.state("a"), "GONE");
}

#[test]
fn the_slot_of_a_forgotten_pull_goes_to_a_caller_and_not_earlier() {
    let mut kit = Kit::with(settings(), limits(100, 1));
    let ahead = kit.ask_as("ahead", Why::Ahead, None);
    kit.sized("ahead", 10);
    kit.gone(ahead);
    kit.wait(secs(20));
    kit.ask("a");
    kit.sized("a", 10);
    assert_eq!((kit.state("ahead"), kit.state("a")), ("LOADING", "QUEUED"));
    kit.wait(secs(10));
    assert!(kit.did(|action| matches!(action, Action::CancelPull(of, _) if *of == id("ahead"))));
    assert_eq!(kit.state("ahead"), "GONE");
    assert!(kit.did(|action| matches!(action, Action::Pull(of, _) if of.id == id("a"))));
}

#[test]
fn without_a_server_a_load_is_refused_with_a_time_to_ask_again() {
    let mut kit = Kit::new();
    let waiting = kit.ask("a");
    kit.send(Event::ServerGone(1));
    assert!(!kit.pod.server_ready());
    assert!(matches!(kit.told(waiting), Some(Told::Refused { refusal: Refusal::Full, retry_after: Some(_), .. })));
    let waiter = kit.ask("a");
    assert!(matches!(kit.told(waiter), Some(Told::Refused { refusal: Refusal::Full, retry_after: Some(_), .. })));
    kit.send(Event::ServerReady(2, limits(100, 1)));
    kit.load("a", 10);
}

#[test]
fn storage_without_disk_refuses_and_is_not_remembered_as_a_failure() {
    let mut kit = Kit::new();
    let waiter = kit.ask("a");
    let attempt = kit.sized("a", 10);
    let full = modelring_placement::pod::LoadError { code: 8, text: "no disk left".to_owned(), passing: true };
    kit.send(Event::Pulled(id("a"), attempt, Err(full)));
    assert!(matches!(kit.told(waiter), Some(Told::Refused { refusal: Refusal::Disk, .. })));
    assert_eq!((kit.state("a"), kit.account()), ("GONE", (0, 0, 0, 0)));
    kit.load("a", 10);
}

#[test]
fn with_one_slot_slow_storage_holds_up_the_next_for_2_s_only() {
    let mut kit = Kit::with(settings(), limits(100, 1));
    kit.ask("slow");
    kit.ask("a");
    kit.sized("a", 10);
    kit.wait(Duration::from_millis(1_999));
    assert_eq!((kit.state("slow"), kit.state("a")), ("QUEUED", "QUEUED"), "sized, and not its turn");
    kit.wait(Duration::from_millis(1));
    assert_eq!((kit.state("slow"), kit.state("a")), ("QUEUED", "LOADING"));
}

#[test]
fn the_queue_is_bounded_and_callers_are_not_shut_out_by_loads_ahead_of_use() {
    let mut kit = Kit::with(settings(), limits(100, 1));
    for n in 0..1024 {
        let waiter = kit.ask_as(&format!("m{n}"), Why::Ahead, None);
        let accepted = matches!(kit.told(waiter), Some(Told::Accepted { .. }));
        assert_eq!(accepted, n > 8, "the first nine are being sized");
    }
    let ahead = kit.ask_as("more", Why::Ahead, None);
    assert!(matches!(kit.told(ahead), Some(Told::Refused { refusal: Refusal::Full, .. })));
    let caller = kit.ask("more");
    assert_eq!(kit.told(caller), None, "the first now, and being sized");
    kit.wait(secs(1));
    assert_eq!(kit.told(caller), Some(&Told::Accepted { place: 0 }));
    assert_eq!(kit.pod.ledger(kit.now).queue, 1025);
    assert_eq!(reference("more").id, id("more"));
}

#[test]
fn a_refusal_that_its_size_brings_comes_before_any_accepted() {
    let mut kit = Kit::with(Settings { min_churn_age: Some(secs(60)), ..settings() }, limits(100, 2));
    kit.load("young", 60);
    let callers = [kit.ask("large"), kit.ask("large")];
    for caller in callers {
        assert_eq!(kit.told(caller), None, "some bytes are free, and its size is not known");
    }
    kit.sized("large", 50);
    for caller in callers {
        assert!(matches!(kit.told(caller), Some(Told::Refused { refusal: Refusal::Churn, .. })), "{:?}", kit.actions);
    }
    assert!(!kit.did(|action| matches!(action, Action::Tell(_, Told::Accepted { .. }))));
}

#[test]
fn a_load_that_what_is_kept_shuts_out_is_refused_before_its_turn_and_before_accepted() {
    let mut kit = Kit::with(settings(), limits(100, 1));
    kit.load("kept", 60);
    kit.hint(1, &["kept"], &[], &[]);
    kit.ask("running");
    kit.sized("running", 10);
    let waiter = kit.ask("large");
    assert_eq!((kit.state("large"), kit.told(waiter)), ("QUEUED", None));
    kit.sized("large", 50);
    assert!(matches!(kit.told(waiter), Some(Told::Refused { refusal: Refusal::Pinned, .. })), "{:?}", kit.actions);
    assert_eq!((kit.state("running"), kit.state("large")), ("LOADING", "GONE"));
}

#[test]
fn whoever_waits_for_a_slow_storage_is_accepted_after_a_second() {
    let mut kit = Kit::new();
    let waiter = kit.ask("slow");
    kit.wait(secs(1));
    assert_eq!(kit.told(waiter), Some(&Told::Accepted { place: 0 }));
    let later = kit.ask("slow");
    assert_eq!(kit.told(later), Some(&Told::Accepted { place: 0 }));
}
