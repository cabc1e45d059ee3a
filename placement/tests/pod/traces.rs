//! Orders of events in which earlier wordings of the contract broke a promise: each must be kept now.

use modelring_placement::{
    id::WatcherId,
    pod::{Action, Event, Refusal, Settings, Told, Why},
};

use crate::kit::{BOOT, Kit, id, limits, secs, settings};

fn one_place() -> Kit {
    Kit::with(settings(), limits(100, 1))
}

/// The acknowledgement of the first drain comes during the second.
#[test]
fn trace_ack_of_a_called_off_drain() {
    let mut kit = Kit::new();
    kit.load("old", 80);
    kit.ping("p1");
    kit.ask_as("new", Why::Keep, None);
    kit.sized("new", 80);
    let first = kit.seq("old");
    kit.touch("old", 1);
    assert_eq!(kit.state("old"), "READY");
    let waiter = kit.ask("new");
    for _ in 0..3 {
        kit.wait(secs(1));
        kit.ping("p1");
    }
    if !matches!(kit.told(waiter), Some(Told::Accepted { .. })) {
        kit.ask("new");
    }
    kit.sized("new", 80);
    assert_eq!(kit.state("old"), "DRAINING");
    assert!(kit.seq("old") > first + 1, "READY came between, with a seq of its own");
    kit.ack("p1", "old", first);
    assert!(!kit.unloads("old"));
    kit.ack("p1", "old", kit.seq("old"));
    assert!(kit.unloads("old"));
}

/// An agent that is back at once does not know who may still believe in the copies of its last start.
#[test]
fn trace_new_agent_unloads_at_once() {
    let kit = Kit::with(Settings { started_before: true, ..settings() }, limits(100, 1));
    assert_eq!(kit.pod.may_purge_at(), kit.now + secs(3));
}

/// The agent's end of a stream ends; the proxy has not noticed and believes on.
#[test]
fn trace_lease_forgotten_with_the_stream() {
    let mut kit = Kit::new();
    kit.load("old", 80);
    kit.ping("p1");
    kit.wait(secs(2));
    // No event tells of the stream: a lease does not depend on it.
    kit.ask("new");
    kit.sized("new", 80);
    assert!(!kit.unloads("old"));
    kit.wait(secs(1));
    assert!(kit.unloads("old"));
}

/// The end of a server is told before the pong, even where the next one is already there.
#[test]
fn trace_server_back_before_noticed() {
    let mut kit = Kit::new();
    kit.load("a", 10);
    kit.send(Event::ServerReady(2, limits(100, 1)));
    assert_eq!((kit.state("a"), kit.account()), ("GONE", (0, 0, 0, 0)));
    kit.load("a", 10);
}

/// Nothing is granted before the handshake, which ends with an index that shows nothing.
#[test]
fn trace_load_in_flight_at_a_crash() {
    let mut kit = Kit::new();
    kit.send(Event::ServerGone(1));
    let waiter = kit.ask("y");
    assert!(matches!(kit.told(waiter), Some(Told::Refused { .. })));
    assert!(!kit.did(|action| matches!(action, Action::Size(..) | Action::Pull(..) | Action::Load(..))));
}

/// The unload of a load that timed out is not even sent while the load may still run.
#[test]
fn trace_load_given_up_still_runs() {
    let mut kit = one_place();
    kit.ask("a");
    let attempt = kit.sized("a", 60);
    kit.pulled("a", attempt);
    kit.wait(secs(60));
    assert!(!kit.unloads("a"));
    kit.send(Event::Unloaded(id("a"), attempt));
    assert_eq!(kit.account(), (0, 60, 0, 0));
    kit.loaded("a", attempt, 60);
    assert!(kit.unloads("a"));
    assert_eq!(kit.account(), (0, 0, 60, 0));
}

/// The end of the old server is told late, after a load was sent to the new one.
#[test]
fn trace_gone_credits_a_new_load() {
    let mut kit = Kit::new();
    kit.load("a", 10);
    kit.send(Event::ServerReady(2, limits(100, 1)));
    kit.ask("b");
    let attempt = kit.sized("b", 70);
    kit.pulled("b", attempt);
    kit.send(Event::ServerGone(1));
    assert_eq!((kit.state("b"), kit.account()), ("LOADING", (0, 70, 0, 0)));
    kit.send(Event::ServerReady(1, limits(100, 1)));
    assert_eq!(kit.account(), (0, 70, 0, 0));
    kit.loaded("b", attempt, 70);
    assert_eq!(kit.state("b"), "READY");
}

/// A frozen control thaws and hints a kept copy away.
#[test]
fn trace_hints_of_an_old_control() {
    let mut kit = Kit::new();
    kit.load("old", 80);
    kit.hint(5, &["old"], &[], &[]);
    kit.hint(4, &[], &[], &["old"]);
    kit.wait(secs(100));
    assert_eq!(kit.state("old"), "READY");
    let waiter = kit.ask("new");
    kit.sized("new", 80);
    assert!(matches!(kit.told(waiter), Some(Told::Refused { refusal: Refusal::Pinned, .. })));
}

/// A stale proxy has a deleted model loaded once more: it goes after 60 s. A model that was made again stays.
#[test]
fn trace_zombie_of_a_deleted_model() {
    let mut kit = Kit::new();
    kit.hint(1, &[], &[], &["zombie"]);
    kit.load("zombie", 10);
    kit.wait(secs(59));
    assert_eq!(kit.state("zombie"), "READY");
    kit.wait(secs(1));
    assert!(kit.unloads("zombie"));

    let mut kit = Kit::new();
    kit.load("again", 10);
    kit.hint(1, &[], &[], &["again"]);
    kit.wait(secs(50));
    kit.hint(1, &[], &[], &[]);
    kit.wait(secs(1000));
    assert_eq!(kit.state("again"), "READY");
}

/// The new version pulls in place of the old one, whose callers want it back.
#[test]
fn trace_room_made_and_taken_back() {
    let mut kit = one_place();
    let old = kit.load("old", 80);
    let control = kit.ask_as("new", Why::Keep, Some("old"));
    kit.sized("new", 80);
    kit.unloaded("old", old);
    assert_eq!(kit.state("new"), "LOADING");
    kit.gone(control);
    kit.ask("old");
    kit.wait(secs(100));
    assert!(!kit.did(|action| matches!(action, Action::CancelPull(model, _) if *model == id("new"))));
    assert_eq!(kit.state("new"), "LOADING");
}

/// Callers of X and Y whose deadlines are shorter than a load do not take each other's pull.
#[test]
fn trace_short_deadlines_alternate() {
    let mut kit = one_place();
    let x = kit.ask("x");
    let attempt = kit.sized("x", 80);
    kit.gone(x);
    for _ in 0..10 {
        for model in ["y", "x"] {
            let waiter = kit.ask(model);
            kit.wait(secs(5));
            assert_eq!(kit.state("x"), "LOADING");
            kit.gone(waiter);
        }
    }
    kit.pulled("x", attempt);
    kit.loaded("x", attempt, 80);
    assert_eq!(kit.state("x"), "READY");
}

/// Y waits for the place of X, and X becomes kept.
#[test]
fn trace_accepted_behind_a_kept_copy() {
    let mut kit = one_place();
    kit.ask("x");
    let x = kit.sized("x", 80);
    let y = kit.ask("y");
    kit.sized("y", 80);
    assert_eq!(kit.told(y), Some(&Told::Accepted { place: 0 }));
    kit.hint(1, &["x"], &[], &[]);
    kit.pulled("x", x);
    kit.loaded("x", x, 80);
    assert!(matches!(kit.told(y), Some(Told::Refused { refusal: Refusal::Pinned, .. })));
}

/// X is called without end and Y waits: they take turns.
#[test]
fn trace_two_models_one_place() {
    let mut kit = Kit::with(Settings { min_churn_age: Some(secs(8)), ..settings() }, limits(100, 1));
    let (mut holder, mut other) = ("x", "y");
    let mut attempt = kit.load(holder, 80);
    for _ in 0..4 {
        let asked = kit.now;
        let next = loop {
            kit.ping("p1");
            kit.touch(holder, 1);
            let waiter = kit.ask(other);
            assert!(kit.now.since(asked) <= secs(25), "{other} is starved");
            if matches!(kit.told(waiter), Some(Told::Accepted { .. })) {
                let next = kit.sized(other, 80);
                if kit.state(holder) == "DRAINING" {
                    break next;
                }
            }
            kit.wait(secs(1));
        };
        assert!(kit.now.since(asked) >= secs(19), "twice the drain timeout of 10 s is not over");
        kit.ping("p1");
        kit.touch(holder, 1);
        let back = kit.ask(holder);
        assert_eq!(kit.told(back), Some(&Told::Accepted { place: 1 }));
        assert_eq!(kit.state(holder), "DRAINING", "nothing calls that drain off");
        kit.gone(back);
        kit.ack("p1", holder, kit.seq(holder));
        kit.unloaded(holder, attempt);
        kit.pulled(other, next);
        kit.loaded(other, next, 80);
        assert_eq!(kit.state(other), "READY");
        (holder, other, attempt) = (other, holder, next);
        kit.wait(secs(1));
    }
}

/// A call on M1 waits for M2, whose load drains M1: the next victim goes, or the load is refused.
#[test]
fn trace_nested_call_and_drain() {
    let mut kit = Kit::new();
    kit.load("m1", 50);
    kit.wait(secs(1));
    kit.load("m3", 50);
    kit.ping("p1");
    let waiter = kit.ask("m2");
    kit.sized("m2", 50);
    assert_eq!((kit.state("m1"), kit.state("m3")), ("DRAINING", "READY"));
    kit.touch("m1", 1);
    assert_eq!((kit.state("m1"), kit.state("m3")), ("READY", "DRAINING"));
    kit.touch("m3", 1);
    assert_eq!((kit.state("m1"), kit.state("m3")), ("READY", "READY"));
    assert!(matches!(kit.told(waiter), Some(Told::Refused { refusal: Refusal::Full, retry_after: Some(_), .. })));
}

/// A failure counts until its time, in the snapshot too.
#[test]
fn trace_failed_stays_in_the_view() {
    let mut kit = Kit::new();
    kit.ask("a");
    let attempt = kit.sized("a", 3000);
    assert_eq!((kit.state("a"), attempt), ("FAILED", 1));
    kit.wait(secs(450));
    assert_eq!(kit.state("a"), "GONE");
    assert_eq!(kit.pod.copies().count(), 0);
}

/// An acknowledgement of a copy's former life does not count for a drain of its next one.
#[test]
fn trace_ack_of_an_earlier_load() {
    let mut kit = Kit::new();
    kit.load("a", 80);
    kit.ping("p1");
    kit.ask("b");
    kit.sized("b", 80);
    let seq = kit.seq("a");
    kit.send(Event::ServerGone(1));
    kit.send(Event::ServerReady(2, limits(100, 1)));
    kit.load("a", 80);
    kit.ask("b");
    kit.sized("b", 80);
    kit.send(Event::DrainAck { watcher: WatcherId::from("p1"), model: id("a"), boot: BOOT, seq });
    assert!(!kit.unloads("a"));
}
