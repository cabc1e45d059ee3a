//! When a draining copy is unloaded, and what calls a drain off.

use modelring_placement::pod::{CopyState, Event, Hints, Settings, Told, Why};

use crate::kit::{BOOT, Kit, id, limits, secs, settings};

/// A pod that `old` fills, and a caller's `new` that needs its place.
fn squeezed(kit: &mut Kit) -> (u64, u64) {
    let old = kit.load("old", 80);
    for proxy in ["p1", "p2"] {
        kit.ping(proxy);
    }
    let waiter = kit.ask("new");
    kit.sized("new", 80);
    assert_eq!(kit.shown("old"), [&CopyState::Draining { bytes: 80, evict: true }]);
    (old, waiter)
}

#[test]
fn an_unload_waits_for_every_proxy_with_a_lease_and_memory_for_the_server() {
    let mut kit = Kit::new();
    let (old, _) = squeezed(&mut kit);
    let seq = kit.seq("old");
    kit.ack("p1", "old", seq);
    assert!(!kit.unloads("old"));
    kit.ack("p2", "old", seq);
    assert!(kit.unloads("old"));
    assert_eq!((kit.state("old"), kit.state("new"), kit.account()), ("DRAINING", "QUEUED", (0, 0, 80, 0)));
    kit.unloaded("old", old);
    assert_eq!((kit.state("old"), kit.state("new"), kit.account()), ("GONE", "LOADING", (0, 80, 0, 0)));
}

#[test]
fn a_proxy_that_is_silent_for_3_s_is_not_waited_for() {
    let mut kit = Kit::new();
    squeezed(&mut kit);
    kit.wait(secs(2));
    kit.ping("p1");
    kit.ack("p1", "old", kit.seq("old"));
    assert!(!kit.unloads("old"), "p2 pinged 2 s ago");
    kit.wait(secs(1));
    assert!(kit.unloads("old"));
}

#[test]
fn a_proxy_that_goes_on_pinging_without_an_acknowledgement_is_waited_for_until_the_drain_timeout() {
    let mut kit = Kit::new();
    squeezed(&mut kit);
    for _ in 0..9 {
        kit.wait(secs(1));
        kit.ping("p1");
        assert!(!kit.unloads("old"));
    }
    kit.wait(secs(1));
    assert!(kit.unloads("old"));
}

#[test]
fn a_proxy_that_comes_during_a_drain_is_waited_for_as_well() {
    let mut kit = Kit::new();
    squeezed(&mut kit);
    let seq = kit.seq("old");
    kit.ping("p3");
    kit.ack("p1", "old", seq);
    kit.ack("p2", "old", seq);
    assert!(!kit.unloads("old"));
    kit.ack("p3", "old", seq);
    assert!(kit.unloads("old"));
}

#[test]
fn an_acknowledgement_of_another_boot_does_not_count() {
    let mut kit = Kit::new();
    kit.load("old", 80);
    kit.ping("p1");
    kit.ask("new");
    kit.sized("new", 80);
    let seq = kit.seq("old");
    kit.send(Event::DrainAck { watcher: "p1".into(), model: id("old"), boot: BOOT + 1, seq });
    assert!(!kit.unloads("old"));
}

#[test]
fn an_ask_for_a_draining_copy_queues_behind_the_caller_that_waits_for_its_memory() {
    let mut kit = Kit::new();
    let (old, _) = squeezed(&mut kit);
    let back = kit.ask("old");
    assert_eq!(kit.told(back), Some(&Told::Accepted { place: 1 }));
    assert_eq!(kit.state("old"), "DRAINING");
    for proxy in ["p1", "p2"] {
        kit.ack(proxy, "old", kit.seq("old"));
    }
    kit.unloaded("old", old);
    let states: Vec<_> = kit.shown("old").into_iter().cloned().collect();
    assert_eq!(states, [CopyState::Gone, CopyState::Queued]);
    assert_eq!(kit.state("new"), "LOADING");
}

#[test]
fn an_ask_calls_off_a_drain_for_a_load_that_no_caller_waits_for() {
    let mut kit = Kit::new();
    kit.load("old", 80);
    kit.ping("p1");
    let keep = kit.ask_as("new", Why::Keep, None);
    kit.sized("new", 80);
    let drained = kit.seq("old");
    let back = kit.ask("old");
    let seq = kit.seq("old");
    assert!(seq > drained);
    assert_eq!(kit.told(back), Some(&Told::Loaded { seq }));
    assert!(kit.told(keep).is_none() || !matches!(kit.told(keep), Some(Told::Loaded { .. })));
}

#[test]
fn a_drain_that_nobody_needs_any_more_is_called_off_and_gives_its_copy_to_who_waited() {
    let mut kit = Kit::new();
    let (_, waiter) = squeezed(&mut kit);
    let back = kit.ask("old");
    kit.gone(waiter);
    for _ in 0..9 {
        kit.wait(secs(1));
        kit.ping("p1");
    }
    assert_eq!(kit.state("old"), "DRAINING", "the load keeps its place for a while");
    kit.send(Event::Leave);
    assert_eq!(kit.state("old"), "READY");
    let seq = kit.seq("old");
    assert!(!kit.unloads("old"));
    assert!(seq > 0 && matches!(kit.told(back), Some(Told::Refused { .. })));
}

#[test]
fn an_unload_that_was_sent_is_not_taken_back() {
    let mut kit = Kit::new();
    let (old, _) = squeezed(&mut kit);
    for proxy in ["p1", "p2"] {
        kit.ack(proxy, "old", kit.seq("old"));
    }
    let back = kit.ask("old");
    assert!(matches!(kit.told(back), Some(Told::Accepted { .. })));
    kit.touch("old", 1);
    assert_eq!(kit.state("old"), "DRAINING");
    kit.unloaded("old", old);
    assert_eq!(kit.state("old"), "QUEUED");
}

#[test]
fn a_copy_whose_model_is_gone_goes_when_it_was_not_in_flight_for_60_s() {
    let mut kit = Kit::new();
    let old = kit.load("old", 10);
    kit.hint(1, &[], &[], &["old"]);
    kit.wait(secs(30));
    kit.touch("old", 1);
    kit.wait(secs(59));
    assert_eq!(kit.state("old"), "READY");
    kit.wait(secs(1));
    assert!(kit.unloads("old"));
    kit.unloaded("old", old);
    assert_eq!(kit.account(), (0, 0, 0, 0));
}

#[test]
fn hints_that_keep_a_draining_copy_call_its_drain_off() {
    let mut kit = Kit::new();
    let (_, waiter) = squeezed(&mut kit);
    kit.hint(1, &["old"], &[], &[]);
    assert_eq!(kit.state("old"), "READY");
    assert!(matches!(kit.told(waiter), Some(Told::Refused { refusal: modelring_placement::pod::Refusal::Pinned, .. })));
}

#[test]
fn a_missing_copy_is_believed_once_for_its_ready_and_the_account_waits_for_the_server() {
    let mut kit = Kit::new();
    let old = kit.load("old", 10);
    let seq = kit.seq("old");
    kit.send(Event::Missing { model: id("old"), boot: BOOT, seq: seq - 1 });
    kit.send(Event::Missing { model: id("old"), boot: BOOT + 1, seq });
    assert_eq!(kit.state("old"), "READY");
    kit.send(Event::Missing { model: id("old"), boot: BOOT, seq });
    assert!(kit.unloads("old"));
    assert_eq!((kit.state("old"), kit.account()), ("GONE", (0, 0, 10, 0)));
    kit.send(Event::Missing { model: id("old"), boot: BOOT, seq });
    assert!(!kit.unloads("old"));
    let waiter = kit.ask("old");
    assert_eq!(kit.state("old"), "QUEUED");
    kit.unloaded("old", old);
    let attempt = kit.sized("old", 10);
    kit.pulled("old", attempt);
    kit.loaded("old", attempt, 10);
    assert!(matches!(kit.told(waiter), Some(Told::Loaded { .. })));
}

#[test]
fn a_new_start_on_an_old_volume_counts_the_leases_of_the_one_before() {
    let mut kit = Kit::with(Settings { started_before: true, ..settings() }, limits(100, 2));
    assert_eq!(kit.pod.may_purge_at(), kit.now + secs(3));
    kit.load("old", 80);
    kit.ask("new");
    kit.sized("new", 80);
    assert!(!kit.unloads("old"));
    kit.wait(secs(3));
    assert!(kit.unloads("old"));
    assert_eq!(Kit::new().pod.may_purge_at(), Kit::new().now);
}

#[test]
fn hints_of_a_model_that_is_in_a_table_again_call_its_drain_off() {
    let mut kit = Kit::new();
    kit.load("old", 10);
    kit.wait(secs(60));
    kit.ping("p1");
    kit.hint(1, &[], &[], &["old"]);
    assert_eq!(kit.state("old"), "DRAINING");
    kit.send(Event::Hints(Hints { epoch: 1, ..Hints::default() }));
    assert_eq!(kit.state("old"), "READY");
}
