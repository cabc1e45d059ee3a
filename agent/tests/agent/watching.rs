//! Watch streams: their order, their leases, and who may say what.

use modelring_proto::v1::{
    DrainAck, Hints, Role, Touch, Touches, WatcherHello, agent_event::Event, copy_state::State,
    watcher_message::Message,
};
use tonic::Code;

use crate::{
    fixture::{Fixture, Watcher, model},
    scripted::{MIB, Script, Scripted},
};

#[tokio::test]
async fn a_stream_begins_with_hello_the_copies_and_the_end_of_the_snapshot_and_pongs_follow_in_order() {
    let server = Scripted::start(Script::default());
    let started = Fixture::new(&["a", "b"]).start(&server.endpoint()).await;
    let seqs = [started.load("a").await, started.load("b").await];
    let mut watcher = started.watch().await;
    watcher.ping(1).await;
    watcher.ping(2).await;
    assert!(matches!(watcher.next().await.unwrap(), (seq, Event::Hello(_)) if seq == seqs[1]));
    for (name, seq) in ["a", "b"].into_iter().zip(seqs) {
        match watcher.next().await.unwrap() {
            (of, Event::Copy(copy)) => {
                assert_eq!((of, copy.model, copy.state), (seq, model(name).id, State::Ready.into()))
            }
            (_, other) => panic!("{other:?}"),
        }
    }
    assert!(matches!(watcher.next().await.unwrap(), (seq, Event::SnapshotEnd(_)) if seq == seqs[1]));
    for n in [1, 2] {
        assert!(matches!(watcher.next().await.unwrap(), (seq, Event::Pong(pong)) if pong.n == n && seq == seqs[1]));
    }
}

#[tokio::test]
async fn the_seq_counts_changes_of_copies_only_and_is_the_same_on_every_stream() {
    let server = Scripted::start(Script::default());
    let started = Fixture::new(&["a"]).start(&server.endpoint()).await;
    let mut watchers = [started.watch_as(Role::Proxy, "p1").await, started.watch_as(Role::Observer, "o1").await];
    let end = watchers[0].snapshot_end().await;
    watchers[1].snapshot_end().await;
    started.load("a").await;
    let mut seen = Vec::new();
    for watcher in &mut watchers {
        let mut seqs = Vec::new();
        loop {
            let (seq, event) = watcher.next().await.unwrap();
            let Event::Copy(copy) = event else { panic!("{event:?}") };
            seqs.push((seq, copy.state()));
            if copy.state() == State::Ready {
                break;
            }
        }
        assert!(seqs.iter().map(|(seq, _)| *seq).eq(end + 1..=end + seqs.len() as u64), "{seqs:?}");
        seen.push(seqs);
    }
    assert_eq!(seen[0], seen[1]);
}

#[tokio::test]
async fn the_ledger_follows_the_snapshot_and_every_change() {
    let server = Scripted::start(Script::default());
    let started = Fixture::new(&["a"]).start(&server.endpoint()).await;
    let mut watcher = started.watch().await;
    watcher.snapshot_end().await;
    let ledger = |_, event| if let Event::Ledger(ledger) = event { Some(ledger) } else { None };
    let first = watcher.until("ledger", ledger).await;
    assert_eq!((first.capacity, first.loaded), (100 * MIB, 0));
    started.load("a").await;
    watcher
        .until("what is loaded", |_, event| {
            matches!(event, Event::Ledger(ledger) if ledger.loaded == 10 * MIB).then_some(())
        })
        .await;
}

#[tokio::test]
async fn another_protocol_is_refused_with_both_numbers_and_so_is_a_stream_without_hello() {
    let server = Scripted::start(Script::default());
    let started = Fixture::new(&[]).start(&server.endpoint()).await;
    let hello = |protocol, role: Role, id: &str| WatcherHello { protocol, role: role.into(), id: id.to_owned() };
    for (hello, code, text) in [
        (
            hello(2, Role::Proxy, "p"),
            Code::FailedPrecondition,
            "protocol 2 of the watcher is not protocol 1 of this agent",
        ),
        (hello(0, Role::Proxy, "p"), Code::FailedPrecondition, "protocol 0 of the watcher"),
        (hello(1, Role::Unspecified, "p"), Code::InvalidArgument, "role 0"),
        (hello(1, Role::Proxy, ""), Code::InvalidArgument, "id of a watcher"),
    ] {
        let status = started.watch_by(hello).await.err().expect("refused");
        assert_eq!(status.code(), code);
        assert!(status.message().contains(text), "{status}");
    }
    let (says, said) = tokio::sync::mpsc::channel(1);
    says.send(modelring_proto::v1::WatcherMessage { message: Some(Message::Ping(modelring_proto::v1::Ping { n: 1 })) })
        .await
        .unwrap();
    let status = started.client.clone().watch(tokio_stream::wrappers::ReceiverStream::new(said)).await.unwrap_err();
    assert!(status.message().contains("first message"), "{status}");
}

#[tokio::test]
async fn what_a_role_may_not_say_ends_its_stream() {
    let server = Scripted::start(Script::default());
    let started = Fixture::new(&[]).start(&server.endpoint()).await;
    for (role, message) in [
        (Role::Observer, Message::Touches(Touches::default())),
        (Role::Control, Message::DrainAck(DrainAck::default())),
        (Role::Proxy, Message::Hints(Hints::default())),
        (Role::Observer, Message::Hints(Hints::default())),
    ] {
        let mut watcher = started.watch_as(role, "w").await;
        watcher.snapshot_end().await;
        watcher.say(message).await;
        assert_eq!(watcher.next().await.unwrap_err().code(), Code::PermissionDenied);
    }
}

#[tokio::test]
async fn a_drain_waits_for_the_proxies_that_hold_a_lease_and_for_nobody_else() {
    let server = Scripted::start(Script { load_bytes: 60 * MIB, predict: Ok(60 * MIB), ..Script::default() });
    let started = Fixture::new(&["a", "b"]).start(&server.endpoint()).await;
    started.load("a").await;
    let mut proxy = started.watch().await;
    let observer = started.watch_as(Role::Observer, "o").await;
    let control = started.watch_as(Role::Control, "c").await;
    for watcher in [&observer, &control, &proxy] {
        watcher.ping(1).await;
    }
    proxy.until("pong", |_, event| matches!(event, Event::Pong(_)).then_some(())).await;
    let call = started.ask(model("b")).await.unwrap();
    let (seq, _) = proxy.copy("a", State::Draining).await;
    let boot_id = boot(&started).await;
    assert_eq!(server.book().unloads, Vec::<String>::new());
    let wrong = DrainAck { model: model("a").id, boot_id, seq: seq + 1 };
    proxy.say(Message::DrainAck(wrong.clone())).await;
    proxy.ping(2).await;
    proxy.until("pong", |_, event| matches!(event, Event::Pong(pong) if pong.n == 2).then_some(())).await;
    assert_eq!(server.book().unloads, Vec::<String>::new(), "an acknowledgement of another drain does not count");
    proxy.say(Message::DrainAck(DrainAck { seq, ..wrong })).await;
    proxy.copy("a", State::Gone).await;
    crate::fixture::Ended::of(call).await.loaded();
}

#[tokio::test]
async fn use_that_a_proxy_reports_calls_the_drain_off() {
    let server = Scripted::start(Script { load_bytes: 60 * MIB, predict: Ok(60 * MIB), ..Script::default() });
    let started = Fixture::new(&["a", "b"]).start(&server.endpoint()).await;
    started.load("a").await;
    let mut proxy = started.watch().await;
    proxy.ping(1).await;
    proxy.until("pong", |_, event| matches!(event, Event::Pong(_)).then_some(())).await;
    let call = started.ask(model("b")).await.unwrap();
    let (draining, _) = proxy.copy("a", State::Draining).await;
    let touch = Touch { model: model("a").id, age_millis: 0, count: 1, in_flight: 1 };
    proxy.say(Message::Touches(Touches { touches: vec![touch] })).await;
    let (ready, _) = proxy.copy("a", State::Ready).await;
    assert!(ready > draining);
    drop(call);
    assert_eq!(server.book().unloads, Vec::<String>::new());
}

#[tokio::test]
async fn a_watcher_that_does_not_read_is_dropped_and_the_others_go_on() {
    let server = Scripted::start(Script::default());
    let started = Fixture::new(&["a"]).start(&server.endpoint()).await;
    let mut other = started.watch_as(Role::Observer, "o").await;
    other.snapshot_end().await;
    let hello = WatcherHello { protocol: 1, role: Role::Proxy.into(), id: "slow".to_owned() };
    let mut slow = Watcher::open(started.over_a_narrow_connection().await, hello).await.unwrap();
    // The pongs lie unread until the window of the connection and the agent's buffer are full.
    for n in 0..20_000 {
        slow.ping(n).await;
    }
    let ended = loop {
        if let Err(ended) = slow.next().await {
            break ended;
        }
    };
    assert_eq!(ended.code(), Code::ResourceExhausted, "{ended}");
    started.load("a").await;
    other.copy("a", State::Ready).await;
}

async fn boot(started: &crate::fixture::Started) -> u64 {
    match started.watch_as(Role::Observer, "boot").await.next().await.unwrap().1 {
        Event::Hello(hello) => hello.boot_id,
        other => panic!("{other:?}"),
    }
}
