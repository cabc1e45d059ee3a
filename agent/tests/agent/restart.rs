//! The model server goes and comes back.

use std::time::Duration;

use modelring_proto::v1::{agent_event, copy_state::State, load_event};
use tokio::time::timeout;

use crate::{
    fixture::{Ended, Fixture, LONG, model},
    scripted::{Script, Scripted, eventually},
};

#[tokio::test]
async fn a_killed_server_comes_back_empty_and_models_reload_on_demand() {
    let mut server = Scripted::start(Script::default());
    let started = Fixture::new(&["a"]).start(&server.endpoint()).await;
    let mut watcher = started.watch().await;
    let first = started.load("a").await;
    watcher.copy("a", State::Ready).await;
    server.kill();
    watcher.copy("a", State::Gone).await;
    let again = Scripted::start_at(server.addr, Script::default(), false);
    assert!(started.load("a").await > first);
    watcher.copy("a", State::Ready).await;
    assert_eq!(again.book().loads.len(), 1);
}

#[tokio::test]
async fn gone_goes_out_for_every_copy_before_the_pong_to_a_ping_after_the_end_of_the_server() {
    for round in 0..10 {
        let mut server = Scripted::start(Script::default());
        let started = Fixture::new(&["a", "b"]).start(&server.endpoint()).await;
        let mut watcher = started.watch().await;
        watcher.snapshot_end().await;
        started.load("a").await;
        started.load("b").await;
        watcher.ping(1).await;
        watcher.until("pong", |_, event| matches!(event, agent_event::Event::Pong(_)).then_some(())).await;
        server.kill();
        watcher.ping(2).await;
        let mut gone = 0;
        let n = watcher
            .until("pong", |_, event| match event {
                agent_event::Event::Copy(copy) if copy.state() == State::Gone => {
                    gone += 1;
                    None
                }
                agent_event::Event::Pong(pong) => Some(pong.n),
                _ => None,
            })
            .await;
        assert_eq!((n, gone), (2, 2), "round {round}");
    }
}

#[tokio::test]
async fn callers_of_a_load_that_dies_with_the_server_are_told() {
    let mut server = Scripted::start(Script { hold_loads: true, ..Script::default() });
    let started = Fixture::new(&["a"]).start(&server.endpoint()).await;
    started.watch().await.snapshot_end().await;
    let call = started.ask(model("a")).await.unwrap();
    eventually("the load", || !server.book().loads.is_empty()).await;
    server.kill();
    let ended = timeout(LONG, Ended::of(call)).await.unwrap();
    assert!(matches!(ended.last(), load_event::Event::Refused(_) | load_event::Event::Failed(_)), "{ended:?}");
}

#[tokio::test]
async fn a_server_that_comes_back_as_another_ends_the_streams_that_heard_of_the_first() {
    let mut server = Scripted::start(Script::default());
    let started = Fixture::new(&[]).start(&server.endpoint()).await;
    let mut watcher = started.watch().await;
    watcher.snapshot_end().await;
    server.kill();
    let mut script = Script::default();
    script.status.max_loading_concurrency = 7;
    let _again = Scripted::start_at(server.addr, script, false);
    let ended = watcher.next().await.unwrap_err();
    assert!(ended.message().contains("watch anew"), "{ended}");
    match started.watch().await.next().await.unwrap().1 {
        agent_event::Event::Hello(hello) => assert_eq!(hello.loading_concurrency, 7),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_stopping_agent_says_so_and_waits_for_what_is_needed_only_as_long_as_it_may() {
    let server = Scripted::start(Script::default());
    let started = Fixture::new(&["a"]).start(&server.endpoint()).await;
    started.load("a").await;
    let mut watcher = started.watch().await;
    watcher.snapshot_end().await;
    let stopping = tokio::spawn(started.running.shutdown(Duration::from_millis(300)));
    watcher.until("leaving", |_, event| matches!(event, agent_event::Event::Leaving(_)).then_some(())).await;
    assert!(!stopping.is_finished(), "its copy is needed");
    match Ended::of(started.client.clone().ensure_loaded(request("b")).await.unwrap().into_inner()).await.last() {
        load_event::Event::Refused(refused) => {
            assert_eq!(refused.reason(), modelring_proto::v1::refused::Reason::Leaving)
        }
        other => panic!("{other:?}"),
    }
    timeout(LONG, stopping).await.unwrap().unwrap();
    assert!(watcher.next().await.unwrap_err().message().contains("stopped"));
    assert_eq!(server.book().unloads, Vec::<String>::new(), "the server is left as it is");
}

fn request(name: &str) -> modelring_proto::v1::LoadRequest {
    modelring_proto::v1::LoadRequest { model: Some(model(name)), why: 1, ..Default::default() }
}
