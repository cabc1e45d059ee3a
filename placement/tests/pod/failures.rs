//! Failed, timed-out and hanging loads, and how long they count.

use std::time::Duration;

use modelring_placement::{
    id::ModelRef,
    pod::{Action, CopyState, Event, LoadError, Refusal, Told, Why},
};

use crate::kit::{Kit, error, id, limits, reference, secs, settings};

/// Lets a load of `a` fail at the server.
fn fail(kit: &mut Kit, passing: bool) -> u64 {
    let waiter = kit.ask("a");
    let attempt = kit.sized("a", 10);
    kit.pulled("a", attempt);
    kit.send(Event::Loaded(id("a"), attempt, Err(error("no such operator", passing))));
    assert_eq!(kit.told(waiter), Some(&Told::Failed(error("no such operator", passing))));
    assert!(kit.unloads("a"), "an unload follows a failed load");
    kit.unloaded("a", attempt);
    assert_eq!((kit.state("a"), kit.account()), ("FAILED", (0, 0, 0, 0)));
    attempt
}

fn until(kit: &Kit) -> Duration {
    match kit.copy("a").map(|copy| copy.state) {
        Some(CopyState::Failed { until, .. }) => until.since(kit.now),
        other => panic!("a has not failed: {other:?}"),
    }
}

#[test]
fn a_permanent_failure_is_refused_with_its_text_until_it_runs_out() {
    let mut kit = Kit::new();
    fail(&mut kit, false);
    assert_eq!(until(&kit), secs(450));
    kit.wait(secs(50));
    let waiter = kit.ask("a");
    let text = "no such operator".to_owned();
    let refused = Told::Refused { refusal: Refusal::Failing, retry_after: Some(secs(400)), text };
    assert_eq!(kit.actions, [Action::Tell(waiter, refused)]);
    kit.wait(secs(400));
    assert_eq!(kit.state("a"), "GONE");
    kit.load("a", 10);
}

#[test]
fn a_permanent_failure_that_no_caller_asked_for_counts_twice_as_long_until_one_does() {
    let mut kit = Kit::new();
    kit.ask_as("a", Why::Keep, None);
    let attempt = kit.sized("a", 10);
    kit.send(Event::Pulled(id("a"), attempt, Err(error("denied", false))));
    assert_eq!(until(&kit), secs(900));
    kit.wait(secs(100));
    kit.ask("a");
    assert_eq!(until(&kit), secs(350));
}

#[test]
fn passing_failures_double_and_a_success_ends_the_row() {
    let mut kit = Kit::new();
    for expected in [5, 10, 20, 40, 80, 160, 300, 300] {
        fail(&mut kit, true);
        assert_eq!(until(&kit), secs(expected));
        kit.wait(secs(expected));
        assert_eq!(kit.state("a"), "GONE");
    }
    let attempt = kit.load("a", 10);
    kit.send(Event::Missing { model: id("a"), boot: crate::kit::BOOT, seq: kit.seq("a") });
    kit.unloaded("a", attempt);
    fail(&mut kit, true);
    assert_eq!(until(&kit), secs(5));
}

#[test]
fn a_new_secret_or_another_reference_ends_a_failure() {
    let mut kit = Kit::new();
    fail(&mut kit, false);
    kit.send(Event::SecretChanged);
    assert_eq!(kit.state("a"), "GONE");
    fail(&mut kit, false);
    let moved = ModelRef { path: "elsewhere".to_owned(), ..reference("a") };
    kit.send(Event::Ask { waiter: 99, model: moved, why: Why::Waiter, replaces: None });
    assert_eq!(kit.state("a"), "QUEUED");
    kit.sized("a", 10);
    assert_eq!(kit.told(99), Some(&Told::Accepted { place: 0 }));
}

#[test]
fn a_model_that_cannot_be_sized_fails_with_the_storages_text() {
    let mut kit = Kit::new();
    let waiter = kit.ask("a");
    let attempt = kit.attempt("a");
    kit.send(Event::Sized(id("a"), attempt, Err(error("no such object", false))));
    assert_eq!(kit.told(waiter), Some(&Told::Failed(error("no such object", false))));
    assert!(!kit.did(|action| matches!(action, Action::CancelPull(..))));
    assert_eq!(kit.pod.ledger(kit.now).queue, 0);
}

#[test]
fn storage_that_does_not_answer_is_given_up() {
    let mut kit = Kit::new();
    let sizing = kit.ask("a");
    kit.ask("b");
    kit.sized("b", 10);
    assert_eq!(kit.state("b"), "LOADING", "slow storage holds up nobody else");
    let told = kit.wait(secs(60)).to_vec();
    assert!(told.iter().any(|action| matches!(action, Action::CancelPull(model, _) if *model == id("a"))));
    assert!(matches!(kit.told(sizing), Some(Told::Failed(LoadError { code: 4, passing: true, .. }))));
    assert_eq!(kit.state("b"), "LOADING");
    kit.wait(secs(240));
    assert_eq!((kit.state("b"), kit.account()), ("FAILED", (0, 0, 0, 0)));
}

#[test]
fn a_load_that_times_out_keeps_its_slot_and_its_charge_until_the_server_answers() {
    let mut kit = Kit::with(settings(), limits(100, 1));
    let waiter = kit.ask("a");
    let attempt = kit.sized("a", 40);
    kit.pulled("a", attempt);
    kit.wait(secs(60));
    assert!(matches!(kit.told(waiter), Some(Told::Failed(LoadError { code: 4, passing: true, .. }))));
    assert_eq!((kit.state("a"), kit.account()), ("FAILED", (0, 40, 0, 0)));
    let other = kit.ask("b");
    kit.sized("b", 70);
    assert!(matches!(kit.told(other), Some(Told::Accepted { .. })));
    assert_eq!(kit.state("b"), "QUEUED", "its slot is taken");
    kit.wait(secs(10));
    let again = kit.ask("a");
    assert!(matches!(kit.told(again), Some(Told::Refused { refusal: Refusal::Failing, retry_after: Some(_), .. })));
    kit.loaded("a", attempt, 40);
    assert!(kit.unloads("a"), "an unload follows a load that timed out");
    assert_eq!(kit.account(), (0, 0, 40, 0));
    kit.unloaded("a", attempt);
    assert_eq!((kit.state("b"), kit.account()), ("LOADING", (0, 70, 0, 0)));
}

#[test]
fn a_load_that_hangs_is_told_and_when_all_slots_hang_nobody_is_left_waiting() {
    let mut kit = Kit::with(settings(), limits(100, 1));
    kit.ask("a");
    let attempt = kit.sized("a", 40);
    kit.pulled("a", attempt);
    kit.wait(secs(100));
    let waiter = kit.ask("b");
    kit.sized("b", 40);
    kit.wait(secs(139));
    assert_eq!(kit.pod.ledger(kit.now).hung, 0);
    kit.wait(secs(1));
    assert_eq!(kit.pod.ledger(kit.now).hung, 1);
    assert!(matches!(kit.told(waiter), Some(Told::Refused { refusal: Refusal::Full, .. })));
    let late = kit.ask("c");
    assert!(matches!(kit.told(late), Some(Told::Refused { refusal: Refusal::Full, .. })));
    kit.send(Event::Loaded(id("a"), attempt, Err(error("at last", true))));
    assert_eq!(kit.pod.ledger(kit.now).hung, 0);
    kit.unloaded("a", attempt);
    kit.load("c", 100);
}

#[test]
fn answers_of_an_older_attempt_change_nothing() {
    let mut kit = Kit::new();
    let first = fail(&mut kit, true);
    kit.wait(secs(5));
    kit.ask("a");
    let second = kit.sized("a", 10);
    kit.send(Event::Sized(id("a"), first, Ok(99)));
    kit.send(Event::Pulled(id("a"), first, Ok(())));
    assert!(kit.actions.is_empty());
    kit.pulled("a", second);
    kit.loaded("a", first, 99);
    kit.send(Event::Unloaded(id("a"), first));
    assert_eq!((kit.state("a"), kit.account()), ("LOADING", (0, 10, 0, 0)));
    kit.loaded("a", second, 10);
    kit.loaded("a", second, 10);
    assert_eq!(kit.account(), (10, 0, 0, 0));
}
