//! A pod that is to go away serves until its hot copies are ready elsewhere.

use modelring_placement::pod::{Event, Refusal, Told};

use crate::kit::{Kit, id, secs};

#[test]
fn a_leaving_pod_refuses_new_loads_and_ends_those_that_the_server_does_not_have() {
    let mut kit = Kit::new();
    kit.ask("sent");
    let sent = kit.sized("sent", 10);
    kit.pulled("sent", sent);
    let pulling = kit.ask("pulling");
    kit.sized("pulling", 10);
    let queued = kit.ask("queued");
    kit.send(Event::Leave);
    for waiter in [pulling, queued] {
        assert!(matches!(kit.told(waiter), Some(Told::Refused { refusal: Refusal::Leaving, .. })));
    }
    assert_eq!((kit.state("pulling"), kit.state("queued"), kit.account()), ("GONE", "GONE", (0, 10, 0, 0)));
    let late = kit.ask("new");
    assert!(matches!(kit.told(late), Some(Told::Refused { refusal: Refusal::Leaving, .. })));
    assert!(!kit.pod.is_idle(kit.now), "a caller waits");
    kit.loaded("sent", sent, 10);
    assert_eq!(kit.state("sent"), "READY");
}

#[test]
fn hot_copies_are_needed_until_they_are_ready_elsewhere_and_nobody_uses_them_here() {
    let mut kit = Kit::new();
    kit.load("cold", 10);
    kit.wait(secs(3600));
    kit.load("hot", 10);
    kit.ping("p1");
    kit.send(Event::Leave);
    assert_eq!(kit.pod.needed(kit.now).collect::<Vec<_>>(), [&id("hot")]);
    kit.wait(secs(1));
    kit.ping("p1");
    kit.hint(1, &[], &["hot"], &[]);
    assert_eq!(kit.state("hot"), "LEAVING");
    assert!(!kit.pod.is_idle(kit.now));
    kit.touch("hot", 1);
    assert_eq!(kit.state("hot"), "LEAVING", "it is ready elsewhere: use here does not call it off");
    kit.ack("p1", "hot", kit.seq("hot"));
    assert!(kit.pod.is_idle(kit.now));
    assert!(!kit.unloads("hot"));
    assert_eq!((kit.state("hot"), kit.account()), ("LEAVING", (20, 0, 0, 0)));
}

#[test]
fn a_copy_that_is_lost_elsewhere_is_ready_here_again() {
    let mut kit = Kit::new();
    kit.load("hot", 10);
    kit.send(Event::Leave);
    kit.wait(secs(1));
    kit.ping("p1");
    kit.hint(1, &[], &["hot"], &[]);
    kit.ack("p1", "hot", kit.seq("hot"));
    kit.hint(1, &["hot"], &[], &[]);
    assert_eq!(kit.state("hot"), "READY");
    kit.wait(secs(1));
    kit.hint(1, &[], &["hot"], &[]);
    assert_eq!(kit.state("hot"), "LEAVING");
    kit.hint(1, &[], &[], &[]);
    assert_eq!(kit.state("hot"), "LEAVING", "control counts ready copies only, and this one drains");
    let waiter = kit.ask("hot");
    assert_eq!(kit.state("hot"), "READY", "somebody does not find it elsewhere");
    assert!(matches!(kit.told(waiter), Some(Told::Loaded { .. })));
}

#[test]
fn copies_cool_down_while_a_pod_leaves() {
    let mut kit = Kit::new();
    kit.load("hot", 10);
    kit.send(Event::Leave);
    kit.wait(secs(3599));
    assert!(!kit.pod.is_idle(kit.now));
    assert_eq!(kit.pod.next_wake(), Some(kit.now + secs(1)));
    kit.wait(secs(1));
    assert!(kit.pod.is_idle(kit.now));
}
