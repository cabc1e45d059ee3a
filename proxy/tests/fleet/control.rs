//! Tables from control: taken, refused, kept.

use std::sync::Arc;

use modelring_proto::v1::{self, proxy_message::Message, routes_update::Kind};
use modelring_proxy::{
    clock::Clock,
    fleet::{Fleet, Source},
};
use tokio::runtime::Handle;

use crate::{
    scripted::{ScriptedControl, until},
    world::{change, update},
};

fn fleet(control: &ScriptedControl, state_dir: Option<&tempfile::TempDir>) -> Arc<Fleet> {
    let fleet = Fleet::new(Clock::boot(), Handle::current());
    let state_dir = state_dir.map(|dir| dir.path().to_owned());
    let source = Source { control: control.address.clone(), namespace: "ns".into(), state_dir };
    fleet.recall(&source);
    fleet.start(source);
    fleet
}

async fn acknowledged(control: &ScriptedControl, epoch: u64, n: u64) {
    let wanted = Some(v1::Version { epoch, n });
    let ack = |message: &Message| match message {
        Message::Ack(ack) if ack.version == wanted => Some(()),
        _ => None,
    };
    control.hears("an acknowledgement", ack).await;
}

async fn refused(control: &ScriptedControl) -> String {
    let nack = |message: &Message| match message {
        Message::Nack(nack) => Some(nack.reason.clone()),
        _ => None,
    };
    control.hears("a refusal", nack).await
}

async fn hello(control: &ScriptedControl) -> v1::RoutesHello {
    let hello = |message: &Message| match message {
        Message::Hello(hello) => Some(hello.clone()),
        _ => None,
    };
    control.hears("a hello", hello).await
}

#[tokio::test]
async fn a_snapshot_and_a_delta_are_applied_and_acknowledged() {
    let control = ScriptedControl::start(vec![update(3, 1, Kind::SnapshotEnd, change(&[]))]).await;
    let fleet = fleet(&control, None);
    let said = hello(&control).await;
    assert_eq!((said.protocol, said.role(), said.namespace.as_str()), (1, v1::Role::Proxy, "ns"));
    assert_eq!(said.last, None);
    acknowledged(&control, 3, 1).await;
    let renamed = v1::VModel { name: "w".into(), active: "m".into(), ..Default::default() };
    let delta = v1::TableChange { vmodels: vec![renamed], ..Default::default() };
    control.send(update(3, 2, Kind::Delta, delta));
    acknowledged(&control, 3, 2).await;
    let table = fleet.table().expect("a table");
    assert!(table.vmodel("v").is_some() && table.vmodel("w").is_some());
}

#[tokio::test]
async fn an_update_that_does_not_fit_is_refused_and_the_last_table_stays() {
    let control = ScriptedControl::start(vec![update(3, 1, Kind::SnapshotEnd, change(&[]))]).await;
    let fleet = fleet(&control, None);
    acknowledged(&control, 3, 1).await;
    let dangling = v1::VModel { name: "w".into(), active: "nothing".into(), ..Default::default() };
    let wrong = v1::TableChange { vmodels: vec![dangling], removed_vmodels: vec!["v".into()], ..Default::default() };
    control.send(update(3, 2, Kind::Delta, wrong));
    assert_eq!(refused(&control).await, "vmodel `w` points at unknown model `nothing`");
    let table = fleet.table().expect("a table");
    assert!(table.vmodel("v").is_some(), "nothing of the update was applied");
    assert_eq!(table.version.n, 1);
}

#[tokio::test]
async fn after_a_gap_the_proxy_dials_anew_for_a_snapshot() {
    let control = ScriptedControl::start(vec![update(3, 1, Kind::SnapshotEnd, change(&[]))]).await;
    let _fleet = fleet(&control, None);
    hello(&control).await;
    acknowledged(&control, 3, 1).await;
    control.send(update(3, 5, Kind::Delta, v1::TableChange::default()));
    assert_eq!(refused(&control).await, "table 3.5 does not follow table 3.1");
    assert_eq!(hello(&control).await.last, Some(v1::Version { epoch: 3, n: 1 }));
    acknowledged(&control, 3, 1).await;
}

#[tokio::test]
async fn a_restarted_proxy_starts_from_the_kept_table_and_refuses_an_older_control() {
    let dir = tempfile::tempdir().expect("a folder");
    let first = ScriptedControl::start(vec![update(3, 1, Kind::SnapshotEnd, change(&[]))]).await;
    let before = fleet(&first, Some(&dir));
    acknowledged(&first, 3, 1).await;
    until("the kept table", || dir.path().join("table.pb").exists().then_some(())).await;
    before.stop();
    drop(first);

    let older = ScriptedControl::start(vec![update(2, 9, Kind::SnapshotEnd, v1::TableChange::default())]).await;
    let after = fleet(&older, Some(&dir));
    assert!(after.table().expect("the kept table").vmodel("v").is_some(), "before anybody is dialled");
    assert_eq!(hello(&older).await.last, Some(v1::Version { epoch: 3, n: 1 }));
    assert!(refused(&older).await.contains("older control"));
    hello(&older).await;
    assert_eq!(after.table().expect("the kept table").version.epoch, 3);
}

#[tokio::test]
async fn a_kept_table_of_another_namespace_or_format_is_as_none() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("table.pb");
    let first = ScriptedControl::start(vec![update(3, 1, Kind::SnapshotEnd, change(&[]))]).await;
    let before = fleet(&first, Some(&dir));
    until("the kept table", || file.exists().then_some(())).await;
    before.stop();
    drop(first);
    let none = ScriptedControl::start(Vec::new()).await;
    let of = |namespace: &str| {
        let fleet = Fleet::new(Clock::boot(), Handle::current());
        let state_dir = Some(dir.path().to_owned());
        fleet.recall(&Source { control: none.address.clone(), namespace: namespace.into(), state_dir });
        fleet.table().is_some()
    };
    assert!(of("ns") && !of("other"));

    // The format before this one was the update itself.
    let bare = update(3, 1, Kind::SnapshotEnd, change(&[]));
    std::fs::write(&file, prost::Message::encode_to_vec(&bare)).expect("a file");
    assert!(!of("ns"));
}

#[tokio::test]
async fn a_table_that_could_not_be_kept_is_kept_as_soon_as_the_folder_can_be_written() {
    let dir = tempfile::tempdir().expect("a folder");
    // A file where the folder is to be: nothing can be written there, whoever tries.
    let state = dir.path().join("state");
    std::fs::write(&state, b"").expect("a file");
    let control = ScriptedControl::start(vec![update(3, 1, Kind::SnapshotEnd, change(&[]))]).await;
    let fleet = Fleet::new(Clock::boot(), Handle::current());
    let source = Source { control: control.address.clone(), namespace: "ns".into(), state_dir: Some(state.clone()) };
    fleet.start(source);
    acknowledged(&control, 3, 1).await;
    std::fs::remove_file(&state).expect("the file");
    until("the kept table", || state.join("table.pb").exists().then_some(())).await;
}

#[tokio::test]
async fn a_kept_table_that_cannot_be_read_is_as_none() {
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::write(dir.path().join("table.pb"), b"\xff\xff\xff").expect("a file");
    let control = ScriptedControl::start(Vec::new()).await;
    let fleet = fleet(&control, Some(&dir));
    assert!(fleet.table().is_none());
    assert_eq!(hello(&control).await.last, None);
}

#[tokio::test]
async fn a_proxy_without_instances_is_ready_with_its_table() {
    let control = ScriptedControl::start(vec![update(3, 1, Kind::SnapshotEnd, change(&[]))]).await;
    let fleet = fleet(&control, None);
    let mut ready = fleet.ready();
    crate::scripted::soon("readiness", ready.wait_for(|ready| *ready)).await.expect("the fleet lives");
}
