//! Whom to join or ask, and when to give up.

use std::time::Duration;

use modelring_placement::{
    id::{InstanceId, ModelId},
    pod::{LoadError, Refusal},
    seek::{Budgets, EndReason, Heard, Seek, Sight, Step},
    time::Time,
    view::Status,
};

const PLACE: Duration = Duration::from_secs(30);

fn at(millis: u64) -> Time {
    Time::from_millis(millis)
}

fn id(name: &str) -> InstanceId {
    name.into()
}

fn sights(list: &[(&str, Status)]) -> Vec<Sight> {
    list.iter().map(|(name, status)| Sight { instance: id(name), status: status.clone() }).collect()
}

fn absent(names: &str) -> Vec<Sight> {
    names.chars().map(|name| Sight { instance: id(&name.to_string()), status: Status::Absent }).collect()
}

fn seek() -> Seek {
    Seek::new(ModelId::from("mnist__isvc-0123456789"), "mt:onnx")
}

fn error(text: &str) -> LoadError {
    LoadError { code: 13, text: text.into(), passing: false }
}

fn failed(since: u64, until: u64, text: &str) -> Status {
    Status::Failed { since: at(since), until: at(until), error: error(text) }
}

fn full(retry_millis: u64) -> Heard {
    let retry_after = Some(Duration::from_millis(retry_millis));
    Heard::Refused { refusal: Refusal::Full, retry_after, text: "needs 3 of 2 GiB".into() }
}

fn ask(name: &str) -> Step {
    Step::Ask(id(name))
}

fn wait(millis: u64) -> Step {
    Step::Wait { until: at(millis) }
}

fn gives_up(step: Step, text: &str) {
    let Step::GiveUp(ending) = step else { panic!("{step:?}") };
    assert_eq!(ending.reason, EndReason::LF);
    assert!(ending.text.ends_with(text), "{}", ending.text);
}

#[test]
fn a_ready_copy_anywhere_is_used() {
    let elsewhere = sights(&[("x", Status::Ready)]);
    assert_eq!(seek().next(at(0), &absent("ab"), &elsewhere), Step::Use);
}

#[test]
fn the_first_owner_is_asked_once_and_then_waited_for() {
    let mut seek = seek();
    assert_eq!(seek.next(at(0), &absent("ab"), &[]), ask("a"));
    assert_eq!(seek.next(at(1), &absent("ab"), &[]), wait(2_000));
    seek.heard(at(5), &id("a"), Heard::Accepted);
    assert!(seek.accepted());
    assert_eq!(seek.next(at(90_000), &absent("ab"), &[]), Step::Wait { until: Time::NEVER });
}

#[test]
fn a_copy_on_its_way_anywhere_is_joined_before_anyone_is_asked() {
    let queued = Status::Queued { since: at(1) };
    let elsewhere =
        sights(&[("x", queued), ("y", Status::Loading { since: at(9) }), ("z", Status::Loading { since: at(5) })]);
    assert_eq!(seek().next(at(10), &absent("ab"), &elsewhere), ask("z"));
    assert_eq!(seek().next(at(10), &absent("ab"), &elsewhere[..1]), ask("x"));
}

#[test]
fn a_candidate_without_a_lease_is_passed_over_and_a_draining_one_asked() {
    let candidates = sights(&[("a", Status::NoLease), ("b", Status::Draining), ("c", Status::Absent)]);
    assert_eq!(seek().next(at(0), &candidates, &[]), ask("b"));
}

#[test]
fn an_agent_whose_snapshot_is_due_is_waited_for_before_anyone_is_asked() {
    let mut seek = seek();
    let candidates = sights(&[("a", Status::Absent), ("b", Status::Unknown { until: at(2_000) })]);
    assert_eq!(seek.next(at(0), &candidates, &[]), wait(2_000));
    assert_eq!(seek.next(at(2_000), &candidates, &[]), ask("a"));
}

#[test]
fn who_refuses_is_followed_by_the_next_and_asked_again_after_its_time() {
    let mut seek = seek();
    let candidates = absent("ab");
    assert_eq!(seek.next(at(0), &candidates, &[]), ask("a"));
    seek.heard(at(10), &id("a"), full(3_000));
    assert_eq!(seek.next(at(10), &candidates, &[]), ask("b"));
    seek.heard(at(20), &id("b"), full(500));
    assert_eq!(seek.next(at(20), &candidates, &[]), wait(520));
    assert_eq!(seek.next(at(520), &candidates, &[]), ask("b"));
}

#[test]
fn at_most_five_places_are_asked() {
    let mut seek = seek();
    let candidates = absent("abcdefg");
    for (n, name) in ["a", "b", "c", "d", "e"].into_iter().enumerate() {
        assert_eq!(seek.next(at(n as u64), &candidates, &[]), ask(name));
        seek.heard(at(n as u64), &id(name), full(1_000));
    }
    assert_eq!(seek.next(at(5), &candidates, &[]), wait(1_000));
    assert_eq!(seek.next(at(1_000), &candidates, &[]), ask("a"));
}

#[test]
fn all_places_are_asked_once_before_one_is_asked_again() {
    let mut seek = seek();
    let candidates = absent("abc");
    assert_eq!(seek.next(at(0), &candidates, &[]), ask("a"));
    seek.heard(at(0), &id("a"), full(200));
    assert_eq!(seek.next(at(0), &candidates, &[]), ask("b"));
    assert_eq!(seek.next(at(2_000), &candidates, &[]), ask("c"), "b is silent, a's time has come");
}

#[test]
fn the_third_failure_ends_it_with_its_text() {
    let mut seek = seek();
    let candidates = absent("abcd");
    for (n, name) in ["a", "b"].into_iter().enumerate() {
        assert_eq!(seek.next(at(n as u64), &candidates, &[]), ask(name));
        seek.heard(at(n as u64), &id(name), Heard::Failed(error(name)));
    }
    assert_eq!(seek.next(at(3), &candidates, &[]), ask("c"));
    let failing = Heard::Refused { refusal: Refusal::Failing, retry_after: None, text: "no such object".into() };
    seek.heard(at(3), &id("c"), failing);
    gives_up(seek.next(at(3), &candidates, &[]), "no such object");
}

#[test]
fn three_failed_copies_in_the_view_end_it_without_a_call_and_the_newest_text_is_told() {
    let candidates = sights(&[("a", failed(5, 900, "old")), ("b", failed(7, 900, "newest")), ("c", Status::Absent)]);
    let elsewhere = sights(&[("x", failed(6, 900, "older"))]);
    gives_up(seek().next(at(10), &candidates, &elsewhere), "newest");
    assert_eq!(seek().next(at(900), &candidates, &elsewhere), ask("a"), "a failure counts until its time");
}

#[test]
fn failures_on_every_candidate_end_it() {
    let candidates = sights(&[("a", failed(5, 900, "bad")), ("b", Status::NoLease)]);
    gives_up(seek().next(at(10), &candidates, &[]), "bad");

    let mut seek = seek();
    assert_eq!(seek.next(at(0), &absent("a"), &[]), ask("a"));
    seek.heard(at(1), &id("a"), Heard::Failed(error("worse")));
    gives_up(seek.next(at(1), &absent("a"), &[]), "worse");
}

#[test]
fn a_failure_that_was_told_counts_although_the_view_still_shows_the_load() {
    let mut seek = seek();
    let candidates = sights(&[("a", Status::Loading { since: at(0) }), ("b", Status::Absent)]);
    assert_eq!(seek.next(at(0), &candidates, &[]), ask("a"));
    seek.heard(at(1), &id("a"), Heard::Failed(error("bad")));
    assert_eq!(seek.next(at(1), &candidates, &[]), ask("b"));
}

#[test]
fn an_agent_whose_lease_ends_or_that_left_the_table_is_followed_by_the_next() {
    for gone in [sights(&[("a", Status::NoLease), ("b", Status::Absent)]), absent("b")] {
        let mut seek = seek();
        assert_eq!(seek.next(at(0), &absent("ab"), &[]), ask("a"));
        seek.heard(at(1), &id("a"), Heard::Accepted);
        assert_eq!(seek.next(at(700), &gone, &[]), ask("b"));
        assert!(!seek.accepted());
        seek.heard(at(701), &id("a"), Heard::Failed(error("late")));
        assert_eq!(seek.next(at(702), &gone, &[]), wait(2_700), "what a dropped call says is not heard");
    }
}

#[test]
fn the_view_is_given_time_to_follow_loaded_before_anyone_is_asked() {
    let mut seek = seek();
    assert_eq!(seek.next(at(0), &absent("ab"), &[]), ask("a"));
    seek.heard(at(50), &id("a"), Heard::Loaded);
    assert_eq!(seek.next(at(50), &absent("ab"), &[]), wait(150));
    assert_eq!(seek.next(at(60), &sights(&[("a", Status::Ready)]), &[]), Step::Use);
}

#[test]
fn the_place_budget_ends_with_the_reason_of_the_newest_refusal() {
    let budgets = Budgets::new(at(0), Time::NEVER, PLACE);
    let mut seek = seek();
    assert_eq!(seek.next(at(0), &[], &[]), Step::Wait { until: Time::NEVER });
    assert_eq!(budgets.spent(at(29_999), &seek), None);
    let ending = budgets.spent(at(30_000), &seek).expect("spent");
    assert_eq!(ending.reason, EndReason::NI);
    assert_eq!(ending.text, "There are no running instances that meet the label requirements of type mt:onnx");

    assert_eq!(seek.next(at(1), &absent("a"), &[]), ask("a"));
    let ending = budgets.spent(at(30_000), &seek).expect("spent");
    assert_eq!((ending.reason, &ending.text[..25]), (EndReason::NP, "Nowhere available to load"));
    seek.heard(at(2), &id("a"), full(40_000));
    let ending = budgets.spent(at(30_000), &seek).expect("spent");
    assert_eq!(ending.text, "Nowhere available to load: needs 3 of 2 GiB");
    assert_eq!(ending.retry_after, Some(Duration::from_millis(10_002)));

    let _ = seek.next(at(40_002), &absent("a"), &[]);
    let churn = Heard::Refused { refusal: Refusal::Churn, retry_after: None, text: String::new() };
    seek.heard(at(40_003), &id("a"), churn);
    let ending = budgets.spent(at(40_003), &seek).expect("spent");
    assert_eq!((ending.reason, &ending.text[..]), (EndReason::NP, "Cache churn threshold exceeded"));
}

#[test]
fn an_instance_that_leaves_is_none() {
    let mut seek = seek();
    assert_eq!(seek.next(at(0), &absent("a"), &[]), ask("a"));
    let leaving = Heard::Refused { refusal: Refusal::Leaving, retry_after: None, text: String::new() };
    seek.heard(at(1), &id("a"), leaving);
    assert_eq!(seek.next(at(1), &absent("a"), &[]), Step::Wait { until: Time::NEVER });
    let ending = Budgets::new(at(0), Time::NEVER, PLACE).spent(at(30_000), &seek).expect("spent");
    assert_eq!(ending.reason, EndReason::NI);
}

#[test]
fn the_load_budget_is_five_load_timeouts_from_the_acceptance() {
    let mut budgets = Budgets::new(at(0), Time::NEVER, PLACE);
    budgets.seeking(at(10_000), Some(Duration::from_secs(90)));
    budgets.seeking(at(200_000), Some(Duration::from_secs(90)));
    assert_eq!(budgets.until(), at(460_000));
    assert_eq!(budgets.spent(at(459_999), &seek()), None);
    assert_eq!(budgets.spent(at(460_000), &seek()).map(|ending| ending.reason), Some(EndReason::LT));
}

#[test]
fn a_load_refused_after_it_was_accepted_leaves_the_rest_of_the_place_budget() {
    let mut seek = seek();
    let mut budgets = Budgets::new(at(0), Time::NEVER, PLACE);
    assert_eq!(seek.next(at(0), &absent("a"), &[]), ask("a"));
    seek.heard(at(4_000), &id("a"), Heard::Accepted);
    budgets.seeking(at(4_000), Some(Duration::from_secs(90)));
    seek.heard(at(10_000), &id("a"), full(60_000));
    budgets.seeking(at(10_000), None);
    assert_eq!(seek.next(at(10_000), &absent("a"), &[]), wait(70_000));
    assert_eq!(budgets.until(), at(36_000), "4 s of the 30 were spent before it was accepted");
    let ending = budgets.spent(at(36_000), &seek).expect("spent");
    assert_eq!((ending.reason, &*ending.text), (EndReason::NP, "Nowhere available to load: needs 3 of 2 GiB"));
}

#[test]
fn each_budget_is_spent_once_however_often_the_load_changes_hands() {
    let load_timeout = Duration::from_secs(2);
    let mut budgets = Budgets::new(at(0), Time::NEVER, PLACE);
    let mut now = 0;
    while now < budgets.until().since(Time::ZERO).as_millis() as u64 {
        let accepted = (now / 700) % 3 == 1;
        budgets.seeking(at(now), accepted.then_some(load_timeout));
        now += 350;
    }
    assert!(now <= 40_350, "30 s of place and 10 s of load end at {now} ms");
}

#[test]
fn what_is_served_between_two_holds_costs_no_budget() {
    let mut budgets = Budgets::new(at(0), Time::NEVER, PLACE);
    budgets.rest(at(12_000));
    assert_eq!(budgets.until(), Time::NEVER);
    budgets.seeking(at(100_000), None);
    assert_eq!(budgets.until(), at(118_000));
}

#[test]
fn a_load_that_is_late_elsewhere_names_the_refusal_before_it() {
    let mut seek = seek();
    assert_eq!(seek.next(at(0), &absent("ab"), &[]), ask("a"));
    let text = "needs 3 GiB of 2 GiB, 2 GiB kept".to_owned();
    let pinned = Heard::Refused { refusal: Refusal::Pinned, retry_after: None, text: text.clone() };
    seek.heard(at(1), &id("a"), pinned);
    assert_eq!(seek.next(at(1), &absent("ab"), &[]), ask("b"));
    seek.heard(at(2), &id("b"), Heard::Accepted);
    let mut budgets = Budgets::new(at(0), Time::NEVER, PLACE);
    budgets.seeking(at(2), Some(Duration::from_secs(1)));
    let ending = budgets.spent(at(5_002), &seek).expect("spent");
    assert_eq!(ending.reason, EndReason::LT);
    assert!(ending.text.ends_with(&text), "{}", ending.text);
}

#[test]
fn the_deadline_bounds_both_budgets() {
    let mut budgets = Budgets::new(at(0), at(5_000), PLACE);
    assert_eq!(budgets.spent(at(5_000), &seek()).map(|ending| ending.reason), Some(EndReason::DE));
    budgets.seeking(at(10), Some(Duration::from_secs(90)));
    assert_eq!(budgets.until(), at(5_000));
    assert_eq!(budgets.spent(at(5_000), &seek()).map(|ending| ending.reason), Some(EndReason::DE));
}

#[test]
fn a_deadline_shorter_than_the_load_may_take_is_hopeless() {
    let seek = seek();
    let learned = Duration::from_secs(3);
    let expected = |candidates: &[Sight]| seek.expected(at(1_000), learned, candidates, &[]);
    let hopeless = |expected, deadline| Budgets::new(at(0), deadline, PLACE).hopeless(at(1_000), expected, &seek);

    assert_eq!(expected(&absent("a")), at(4_000));
    let ending = hopeless(at(4_000), at(3_999)).expect("hopeless");
    assert_eq!((ending.reason, ending.retry_after), (EndReason::DH, Some(learned)));
    assert_eq!(hopeless(at(4_000), at(4_000)), None);
    assert_eq!(hopeless(at(4_000), Time::NEVER), None);

    assert_eq!(expected(&sights(&[("a", Status::Loading { since: at(500) })])), at(3_500));
    assert_eq!(expected(&sights(&[("a", Status::Loading { since: at(0) }), ("b", Status::Ready)])), at(1_000));
    let late = seek.expected(at(9_000), learned, &sights(&[("a", Status::Loading { since: at(500) })]), &[]);
    assert_eq!(late, at(9_000), "a late load may be ready at any moment");
    assert_eq!(expected(&sights(&[("a", Status::Unknown { until: at(2_000) })])), at(1_000));
}
