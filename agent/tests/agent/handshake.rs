//! The handshake with a model server.

use std::time::{Duration, Instant};

use modelring_agent::Error;
use modelring_proto::{
    mmesh::runtime_status_response::{MethodInfo, Status as Readiness},
    v1::{Hello, agent_event, copy_state::State},
};
use tokio::time::timeout;

use crate::{
    fixture::{Fixture, LONG, Started, model},
    scripted::{MIB, Script, Scripted, eventually},
};

async fn hello(started: &Started) -> Hello {
    match started.watch().await.next().await.unwrap() {
        (_, agent_event::Event::Hello(hello)) => hello,
        (_, other) => panic!("{other:?} before Hello"),
    }
}

/// Why an agent ends with this script.
async fn ends(change: impl FnOnce(&mut Script)) -> String {
    let mut script = Script::default();
    change(&mut script);
    let server = Scripted::start(script);
    let fixture = Fixture::new(&[]);
    let mut started = fixture.start(&server.endpoint()).await;
    match timeout(LONG, started.running.ended()).await.expect("the agent ends") {
        Error::Server(error) => error.text,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_server_that_is_starting_is_asked_until_it_is_ready() {
    let server = Scripted::start(Script { starting: 3, ..Script::default() });
    let started = Fixture::new(&[]).start(&server.endpoint()).await;
    hello(&started).await;
    assert_eq!(server.book().looks, 4);
}

#[tokio::test]
async fn a_server_that_comes_late_is_waited_for() {
    let addr = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let started = Fixture::new(&[]).start(&format!("http://{addr}")).await;
    let mut watcher = started.watch().await;
    assert!(timeout(Duration::from_millis(200), watcher.next()).await.is_err(), "silent until the handshake is done");
    let _server = Scripted::start_at(addr, Script::default(), false);
    assert!(matches!(watcher.next().await.unwrap().1, agent_event::Event::Hello(_)));
}

#[tokio::test]
async fn a_server_that_says_failing_or_no_known_status_ends_the_agent() {
    assert_eq!(ends(|script| script.status.set_status(Readiness::Failing)).await, "runtimeStatus says FAILING");
    assert_eq!(ends(|script| script.status.status = 7).await, "runtimeStatus says 7, which is no status");
}

#[tokio::test]
async fn bad_numbers_end_the_agent_and_are_named() {
    assert!(ends(|script| script.status.max_loading_concurrency = 0).await.contains("maxLoadingConcurrency 0"));
    assert!(ends(|script| script.status.model_loading_timeout_ms = 99).await.contains("modelLoadingTimeoutMs 99"));
    assert!(
        ends(|script| script.status.default_model_size_in_bytes = 8191).await.contains("defaultModelSizeInBytes 8191")
    );
    let text = ends(|script| script.status.capacity_in_bytes = 100 * MIB - 1).await;
    assert!(text.contains(&format!("capacityInBytes {}, at least {} is needed", 100 * MIB - 1, 100 * MIB)), "{text}");
}

#[tokio::test]
async fn a_server_with_the_older_name_of_the_service_is_spoken_to_by_it() {
    let server = Scripted::start_older(Script::default());
    let started = Fixture::new(&["a"]).start(&server.endpoint()).await;
    started.load("a").await;
    assert!(server.book().loaded.contains(&model("a").id));
}

#[tokio::test]
async fn every_model_whose_files_are_on_the_volume_is_unloaded_before_the_first_load() {
    let server = Scripted::start(Script { unload_errors: 1, ..Script::default() });
    let fixture = Fixture::new(&["a"]);
    fixture.write("model-dir/old__isvc-0123456789/model.bin", "");
    fixture.write("model-dir/_server/config", "");
    let started = fixture.start(&server.endpoint()).await;
    hello(&started).await;
    assert_eq!(server.book().unloads, ["old__isvc-0123456789"; 2], "once in vain");
    assert!(!fixture.path("model-dir/old__isvc-0123456789").exists());
    assert!(fixture.path("model-dir/_server/config").exists());
}

#[tokio::test]
async fn an_agent_on_a_volume_of_an_earlier_start_unloads_nothing_for_three_seconds() {
    let server = Scripted::start(Script::default());
    let fixture = Fixture::new(&["a"]);
    let first = fixture.start(&server.endpoint()).await;
    first.load("a").await;
    first.running.shutdown(Duration::ZERO).await;
    assert_eq!(server.book().unloads, Vec::<String>::new(), "nothing is unloaded at the end");
    let began = Instant::now();
    let second = fixture.start(&server.endpoint()).await;
    let mut watcher = second.watch().await;
    eventually("unload", || !server.book().unloads.is_empty()).await;
    assert!(began.elapsed() >= Duration::from_secs(3));
    let (seq, event) = watcher.next().await.unwrap();
    assert!(matches!(event, agent_event::Event::Hello(_)));
    assert_eq!(seq, 0);
    assert_eq!(watcher.snapshot_end().await, 0, "no copy");
}

#[tokio::test]
async fn hello_says_who_the_agent_is_and_what_the_server_offers() {
    let mut script = Script::default();
    let info = |path: &[u32]| MethodInfo { id_injection_path: path.to_vec() };
    script.status.method_infos = [
        ("inference.GRPCInferenceService/ModelInfer".to_owned(), info(&[1])),
        ("my.Service/Call".to_owned(), info(&[2, 1])),
    ]
    .into();
    let server = Scripted::start(script);
    let started = Fixture::new(&[]).start(&server.endpoint()).await;
    let hello = hello(&started).await;
    assert_eq!((hello.protocol, hello.instance_id.as_str(), hello.pod_uid.as_str()), (1, "pod-1", "uid-1"));
    assert_eq!((hello.namespace.as_str(), hello.runtime.as_str()), ("ns", "custom"));
    assert_eq!(hello.endpoints[0].address, "127.0.0.1:8085");
    assert_eq!((hello.load_timeout_millis, hello.loading_concurrency, hello.allow_any_method), (5000, 2, false));
    assert_eq!(hello.methods[0].response_path, [1]);
    assert_eq!((hello.methods[1].request_path.as_slice(), hello.methods[1].response_path.len()), (&[2, 1][..], 0));
    assert_ne!(hello.boot_id, 0);
}

#[tokio::test]
async fn a_server_is_managed_by_its_port_or_its_unix_socket() {
    let fixture = Fixture::new(&["a"]);
    let server = Scripted::start(Script::default());
    let started = fixture.start(&format!("port:{}", server.addr.port())).await;
    started.load("a").await;

    let fixture = Fixture::new(&["a"]);
    let socket = fixture.path("server.sock");
    let mut server = Scripted::start_unix(&socket, Script::default());
    let started = fixture.start(&format!("unix:{}", socket.display())).await;
    let mut watcher = started.watch().await;
    started.load("a").await;
    watcher.copy("a", State::Ready).await;
    assert!(server.kill().loaded.contains(&model("a").id));
    watcher.ping(1).await;
    let mut gone = false;
    let pong = |_, event| match event {
        agent_event::Event::Copy(copy) => {
            gone |= copy.state() == State::Gone;
            None
        }
        agent_event::Event::Pong(_) => Some(()),
        _ => None,
    };
    watcher.until("pong", pong).await;
    assert!(gone, "the end of the socket is seen before the pong");
}
