//! What a watcher may believe of one agent: the wording of the contract, sections 4 and 5, event by event.

use std::time::Duration;

use modelring_placement::{
    id::ModelId,
    pod::{CopyState, LoadError},
    time::Time,
    view::{AgentView, Status, ViewChange, ViewEvent},
};
use proptest::prelude::*;

const BOOT: u64 = 11;

fn at(millis: u64) -> Time {
    Time::from_millis(millis)
}

fn model() -> ModelId {
    ModelId::from("mnist__isvc-0123456789")
}

fn ready() -> CopyState {
    CopyState::Ready { bytes: 100, concurrency_limit: 2 }
}

fn loading() -> CopyState {
    CopyState::Loading { bytes: 100 }
}

fn copy(seq: u64, state: CopyState) -> ViewEvent {
    ViewEvent::Copy { seq, model: model(), state }
}

fn hello(boot: u64) -> ViewEvent {
    ViewEvent::Hello { boot }
}

/// A view with a READY copy (seq 5) whose lease ends at 2,000 ms.
fn live() -> AgentView {
    let mut view = AgentView::new(at(0));
    for event in [ViewEvent::PingSent(1), hello(BOOT), copy(5, ready()), ViewEvent::SnapshotEnd { seq: 7 }] {
        view.handle(at(0), event);
    }
    assert_eq!(view.handle(at(300), ViewEvent::Pong(1)), [ViewChange::Lease(at(2_000))]);
    view
}

#[test]
fn a_copy_is_usable_until_two_seconds_after_the_sending_of_the_last_answered_ping() {
    let mut view = live();
    assert_eq!(view.lease_until(), at(2_000));
    assert_eq!(view.status(at(1_999), &model()), Status::Ready);
    assert_eq!(view.status(at(2_000), &model()), Status::NoLease);

    view.handle(at(1_000), ViewEvent::PingSent(2));
    view.handle(at(1_900), ViewEvent::Pong(2));
    assert_eq!(view.status(at(2_999), &model()), Status::Ready);
    assert_eq!(view.status(at(3_000), &model()), Status::NoLease);
}

#[test]
fn a_pong_to_no_ping_or_to_one_of_another_stream_gives_no_lease() {
    let mut view = live();
    view.handle(at(1_500), ViewEvent::PingSent(2));
    view.handle(at(1_500), ViewEvent::Ended);
    view.handle(at(1_600), hello(BOOT));
    view.handle(at(1_600), ViewEvent::SnapshotEnd { seq: 7 });
    assert_eq!(view.handle(at(1_700), ViewEvent::Pong(2)), []);
    assert_eq!(view.handle(at(1_700), ViewEvent::Pong(99)), []);
    assert_eq!(view.lease_until(), Time::ZERO);
}

#[test]
fn trace_pong_overtakes_snapshot() {
    let mut view = live();
    view.handle(at(1_000), ViewEvent::Ended);
    view.handle(at(1_100), ViewEvent::PingSent(1));
    assert_eq!(view.handle(at(1_200), hello(BOOT)), [ViewChange::Lease(Time::ZERO), ViewChange::Unknown]);
    assert_eq!(view.handle(at(1_300), ViewEvent::Pong(1)), []);
    assert!(!view.known());
    assert_eq!(view.status(at(1_300), &model()), Status::Unknown { until: at(3_200) });
    assert_eq!(
        view.handle(at(1_400), ViewEvent::SnapshotEnd { seq: 8 }),
        [ViewChange::Gone(model()), ViewChange::Known]
    );
    assert_eq!(view.lease_until(), Time::ZERO);
}

#[test]
fn trace_loaded_after_gone() {
    let mut view = live();
    view.handle(at(400), copy(8, CopyState::Gone));
    assert_eq!(view.loaded(at(500), BOOT, 5, &model()), []);
    assert_eq!(view.loaded(at(500), BOOT, 8, &model()), []);
    assert_eq!(view.status(at(500), &model()), Status::Absent);

    // The same when the copy is only absent from a new snapshot.
    let mut view = live();
    view.handle(at(400), hello(BOOT));
    view.handle(at(400), ViewEvent::SnapshotEnd { seq: 9 });
    assert_eq!(view.loaded(at(500), BOOT, 6, &model()), []);
    assert!(view.copy(&model()).is_none());
}

#[test]
fn loaded_between_hello_and_a_snapshot_without_the_copy_is_too_old() {
    let mut view = AgentView::new(at(0));
    view.handle(at(0), hello(BOOT));
    view.loaded(at(10), BOOT, 1, &model());
    assert_eq!(view.handle(at(20), ViewEvent::SnapshotEnd { seq: 3 }), [ViewChange::Gone(model()), ViewChange::Known]);
}

#[test]
fn loaded_makes_a_copy_ready_before_the_stream_says_so() {
    let mut view = live();
    view.handle(at(400), copy(8, loading()));
    assert_eq!(view.loaded(at(900), BOOT + 1, 9, &model()), [], "another boot");
    let changes = view.loaded(at(900), BOOT, 9, &model());
    assert_eq!(changes.len(), 2);
    assert_eq!(changes[1], ViewChange::LoadTook(model(), Duration::from_millis(500)));
    assert_eq!(view.status(at(900), &model()), Status::Ready);
    assert_eq!(view.loaded(at(901), BOOT, 9, &model()), [], "told once");

    // What the stream says later is older, then equal, then newer.
    assert_eq!(view.handle(at(910), copy(8, loading())), []);
    assert_eq!(view.status(at(910), &model()), Status::Ready);
    assert_eq!(view.handle(at(920), copy(9, ready())).len(), 1);
    assert_eq!(view.copy(&model()).map(|seen| seen.state.clone()), Some(ready()));
    view.handle(at(930), copy(10, CopyState::Draining { bytes: 1, evict: true }));
    assert_eq!(view.status(at(930), &model()), Status::Draining);
}

#[test]
fn loaded_of_one_model_does_not_shut_out_that_of_another() {
    let mut view = live();
    let other = ModelId::from("other__isvc-0123456789");
    assert_eq!(view.loaded(at(500), BOOT, 12, &model()).len(), 1);
    assert_eq!(view.loaded(at(500), BOOT, 11, &other).len(), 1);
}

#[test]
fn a_snapshot_taken_before_a_load_ended_does_not_remove_its_copy() {
    let mut view = live();
    let other = ModelId::from("other__isvc-0123456789");
    view.handle(at(400), hello(BOOT));
    view.handle(at(400), copy(5, ready()));
    assert_eq!(view.loaded(at(410), BOOT, 9, &other).len(), 1);
    assert_eq!(view.handle(at(420), ViewEvent::SnapshotEnd { seq: 8 }), [ViewChange::Known]);
    assert_eq!(view.copies().count(), 2);
}

#[test]
fn hello_ends_the_lease_and_makes_copies_unknown_until_the_first_pong() {
    let mut view = live();
    view.handle(at(500), hello(BOOT));
    assert_eq!(view.status(at(500), &model()), Status::Unknown { until: at(2_500) });
    view.handle(at(600), copy(5, ready()));
    view.handle(at(600), ViewEvent::SnapshotEnd { seq: 7 });
    assert_eq!(view.status(at(600), &model()), Status::Unknown { until: at(2_500) });
    view.handle(at(600), ViewEvent::PingSent(9));
    view.handle(at(700), ViewEvent::Pong(9));
    assert_eq!(view.status(at(700), &model()), Status::Ready);
}

#[test]
fn a_new_agent_is_waited_for_two_seconds_from_the_first_dial() {
    let view = AgentView::new(at(1_000));
    assert_eq!(view.status(at(2_999), &model()), Status::Unknown { until: at(3_000) });
    assert_eq!(view.status(at(3_000), &model()), Status::NoLease);
}

#[test]
fn an_ended_stream_lets_the_lease_run_out_and_a_refused_connection_ends_it_at_once() {
    let mut view = live();
    assert_eq!(view.handle(at(500), ViewEvent::Ended), []);
    assert_eq!(view.status(at(1_999), &model()), Status::Ready);
    assert_eq!(view.status(at(2_000), &model()), Status::NoLease);

    let mut view = live();
    view.handle(at(500), ViewEvent::Ended);
    assert_eq!(view.handle(at(500), ViewEvent::Refused), [ViewChange::Lease(Time::ZERO)]);
    assert_eq!(view.status(at(500), &model()), Status::NoLease);
}

#[test]
fn a_new_boot_makes_all_that_was_seen_old() {
    let mut view = live();
    view.handle(at(400), hello(BOOT + 1));
    view.handle(at(400), ViewEvent::SnapshotEnd { seq: 0 });
    assert_eq!(view.copies().count(), 0);
    assert_eq!(view.loaded(at(500), BOOT, 99, &model()), []);
    assert_eq!(view.handle(at(500), copy(1, ready())).len(), 1);
    assert!(!view.answered_since(at(0)), "no ping was answered in this boot");
}

#[test]
fn answered_since_proves_that_a_connection_made_before_the_ping_is_the_agents() {
    let mut view = live();
    assert!(view.answered_since(at(0)));
    view.handle(at(500), ViewEvent::PingSent(2));
    assert!(!view.answered_since(at(400)));
    view.handle(at(900), ViewEvent::Pong(2));
    assert!(view.answered_since(at(400)));
}

#[test]
fn trace_failed_stays_in_the_view() {
    let mut view = live();
    let error = LoadError { code: 13, text: "bad model".into(), passing: false };
    let state = CopyState::Failed { error: error.clone(), until: at(1_000) };
    view.handle(at(400), copy(8, state));
    assert_eq!(view.status(at(999), &model()), Status::Failed { since: at(400), until: at(1_000), error });
    assert_eq!(view.status(at(1_000), &model()), Status::Absent);
}

#[test]
fn a_draining_copy_is_told_again_by_each_snapshot_so_that_it_is_acknowledged_again() {
    let mut view = live();
    let draining = CopyState::Draining { bytes: 100, evict: true };
    assert_eq!(view.handle(at(400), copy(8, draining.clone())).len(), 1);
    view.handle(at(500), ViewEvent::Ended);
    view.handle(at(600), hello(BOOT));
    let again = view.handle(at(600), copy(8, draining));
    assert!(matches!(&again[..], [ViewChange::Copy(_, seen)] if seen.seq == 8 && seen.since == at(400)));
}

#[test]
fn only_a_load_that_was_watched_from_its_beginning_is_a_sample() {
    let mut view = live();
    view.handle(at(400), hello(BOOT));
    view.handle(at(400), copy(8, loading()));
    view.handle(at(400), ViewEvent::SnapshotEnd { seq: 8 });
    assert_eq!(view.handle(at(600), copy(9, ready())).len(), 1, "found LOADING in the snapshot");
    view.handle(at(700), copy(10, loading()));
    view.handle(at(800), copy(11, CopyState::Loading { bytes: 5 }));
    assert_eq!(view.handle(at(900), copy(12, ready()))[1], ViewChange::LoadTook(model(), Duration::from_millis(200)));
}

#[test]
fn leaving_is_told_once_and_forgotten_with_the_stream() {
    let mut view = live();
    assert_eq!(view.handle(at(400), ViewEvent::Leaving), [ViewChange::Leaving]);
    assert_eq!(view.handle(at(400), ViewEvent::Leaving), []);
    assert!(view.leaving());
    view.handle(at(500), hello(BOOT));
    assert!(!view.leaving());
}

fn any_event() -> impl Strategy<Value = ViewEvent> {
    let state = prop_oneof![
        Just(CopyState::Queued),
        Just(loading()),
        Just(ready()),
        Just(CopyState::Draining { bytes: 1, evict: true }),
        Just(CopyState::Gone),
    ];
    prop_oneof![
        4 => (0u64..6).prop_map(ViewEvent::PingSent),
        4 => (0u64..6).prop_map(ViewEvent::Pong),
        2 => (0u64..3).prop_map(hello),
        2 => (0u64..20).prop_map(|seq| ViewEvent::SnapshotEnd { seq }),
        4 => (0u64..20, state).prop_map(|(seq, state)| copy(seq, state)),
        1 => Just(ViewEvent::Ended),
        1 => Just(ViewEvent::Refused),
        1 => Just(ViewEvent::Leaving),
    ]
}

proptest! {
    #[test]
    fn whatever_comes_a_lease_never_outlives_an_answered_ping_by_two_seconds(
        events in prop::collection::vec((0u64..700, any_event()), 0..80),
    ) {
        let mut now = at(0);
        let mut view = AgentView::new(now);
        let mut sent: Vec<(u64, Time)> = Vec::new();
        let mut answered = Time::ZERO;
        let mut whole = false;
        for (wait, event) in events {
            now = now + Duration::from_millis(wait);
            match &event {
                ViewEvent::PingSent(n) => sent.push((*n, now)),
                ViewEvent::Pong(n) => answered = sent.iter().filter(|(m, _)| m == n).map(|(_, at)| *at).fold(answered, Time::max),
                ViewEvent::Hello { .. } | ViewEvent::Refused => whole = false,
                ViewEvent::SnapshotEnd { .. } => whole = true,
                _ => {}
            }
            view.handle(now, event);
            prop_assert!(view.lease_until() <= answered + Duration::from_secs(2));
            if view.status(now, &model()) == Status::Ready {
                prop_assert!(whole && view.known());
                prop_assert!(now < answered + Duration::from_secs(2));
                let ready = view.copy(&model()).is_some_and(|seen| matches!(seen.state, CopyState::Ready { .. }));
                prop_assert!(ready);
            }
        }
    }
}
