//! Loads, evictions and what becomes of the callers.

use std::{os::unix::fs::symlink, time::Duration};

use futures_util::future::join_all;
use modelring_proto::v1::{Hints, Role, copy_state::State, load_event, watcher_message::Message};
use tonic::{Code, Status};

use crate::{
    fixture::{Ended, Fixture, model},
    scripted::{MIB, Script, Scripted, eventually},
};

#[tokio::test]
async fn a_load_pulls_the_files_and_tells_how_far_it_is() {
    let server = Scripted::start(Script { max_concurrency: 3, ..Script::default() });
    let fixture = Fixture::new(&["a"]);
    let started = fixture.start(&server.endpoint()).await;
    let mut watcher = started.watch().await;
    watcher.snapshot_end().await;
    let ended = started.ensure(model("a")).await;
    let stages: Vec<_> = ended
        .events
        .iter()
        .map(|event| match event {
            load_event::Event::Accepted(_) => "accepted",
            load_event::Event::Progress(progress) => progress.stage.as_str(),
            load_event::Event::Loaded(_) => "loaded",
            _ => "other",
        })
        .collect();
    assert_eq!((stages.first(), stages.last()), (Some(&"accepted"), Some(&"loaded")));
    assert!(stages.contains(&"pulling") && stages.contains(&"loading"), "{stages:?}");

    let (_, queued) = watcher.copy("a", State::Queued).await;
    assert_eq!(queued.bytes, 0);
    let (_, loading) = watcher.copy("a", State::Loading).await;
    assert_eq!(loading.bytes, 10 * MIB);
    let (seq, ready) = watcher.copy("a", State::Ready).await;
    assert_eq!(seq, ended.loaded());
    assert_eq!(
        (ready.bytes, ready.concurrency_limit),
        (10 * MIB, 0),
        "no limit unless the server says limitModelConcurrency"
    );

    let book = server.book();
    let load = &book.loads[0];
    let path = fixture.path("model-dir").canonicalize().unwrap().join(&load.model_id).join("model.bin");
    assert_eq!((load.model_id.as_str(), load.model_type.as_str()), ("a__isvc-0123456789", "mt:test"));
    assert_eq!(load.model_path, path.display().to_string());
    assert_eq!(load.model_key, r#"{"model_type":{"name":"test"},"disk_size_bytes":1000}"#);
    let prediction = &book.predictions[0];
    assert_eq!((&prediction.model_path, &prediction.model_key), (&load.model_path, &load.model_key));
}

#[tokio::test]
async fn the_concurrency_limit_counts_where_the_server_says_so() {
    let mut script = Script { max_concurrency: 3, ..Script::default() };
    script.status.limit_model_concurrency = true;
    let server = Scripted::start(script);
    let started = Fixture::new(&["a"]).start(&server.endpoint()).await;
    started.load("a").await;
    assert_eq!(started.watch().await.copy("a", State::Ready).await.1.concurrency_limit, 3);
}

#[tokio::test]
async fn five_hundred_callers_make_one_load_and_one_pull() {
    let server = Scripted::start(Script { hold_loads: true, ..Script::default() });
    let started = Fixture::new(&["a"]).start(&server.endpoint()).await;
    started.watch().await.snapshot_end().await;
    let calls: Vec<_> = join_all((0..500).map(|_| started.ask(model("a")))).await;
    eventually("the load", || !server.book().loads.is_empty()).await;
    server.let_loads_go();
    let seqs: Vec<_> =
        join_all(calls.into_iter().map(|call| Ended::of(call.unwrap()))).await.iter().map(Ended::loaded).collect();
    assert_eq!(seqs.len(), 500);
    assert!(seqs.iter().all(|seq| *seq == seqs[0]));
    assert_eq!(server.book().loads.len(), 1);
}

#[tokio::test]
async fn callers_that_go_away_leave_the_load_to_the_one_that_stays() {
    let server = Scripted::start(Script { hold_loads: true, ..Script::default() });
    let started = Fixture::new(&["a", "b"]).start(&server.endpoint()).await;
    started.watch().await.snapshot_end().await;
    let mut calls = join_all((0..500).map(|_| started.ask(model("a")))).await;
    eventually("the load", || !server.book().loads.is_empty()).await;
    let stays = calls.pop().unwrap().unwrap();
    drop(calls);
    server.let_loads_go();
    Ended::of(stays).await.loaded();
    started.load("b").await;
    assert_eq!(server.book().loads.len(), 2);
}

#[tokio::test]
async fn what_does_not_fit_together_takes_turns_and_comes_back() {
    let server = Scripted::start(Script { load_bytes: 60 * MIB, predict: Ok(60 * MIB), ..Script::default() });
    let fixture = Fixture::new(&["a", "b"]);
    let started = fixture.start(&server.endpoint()).await;
    let mut watcher = started.watch().await;
    for (comes, goes) in [("a", None), ("b", Some("a")), ("a", Some("b"))] {
        started.load(comes).await;
        if let Some(goes) = goes {
            let (_, draining) = watcher.copy(goes, State::Draining).await;
            assert_eq!(draining.drain(), modelring_proto::v1::copy_state::Drain::Evict);
            watcher.copy(goes, State::Gone).await;
            assert!(!fixture.path("model-dir").join(model(goes).id).exists());
        }
        watcher.copy(comes, State::Ready).await;
        assert_eq!(server.book().loaded.into_iter().collect::<Vec<_>>(), [model(comes).id]);
    }
    assert_eq!(server.book().loads.len(), 3);
}

#[tokio::test]
async fn an_unload_that_fails_is_tried_again_and_its_memory_stays_charged_until_it_works() {
    let server = Scripted::start(Script { load_bytes: 60 * MIB, predict: Ok(60 * MIB), ..Script::default() });
    let started = Fixture::new(&["a", "b"]).start(&server.endpoint()).await;
    started.load("a").await;
    server.change(|script| script.unload_errors = 1);
    started.load("b").await;
    let book = server.book();
    assert_eq!(book.unloads, [model("a").id, model("a").id]);
    assert_eq!(book.loaded.into_iter().collect::<Vec<_>>(), [model("b").id]);
}

#[tokio::test]
async fn the_size_of_a_copy_is_what_the_server_says_at_load_or_when_asked() {
    let server = Scripted::start(Script { load_bytes: 0, model_size: Ok(7 * MIB), ..Script::default() });
    let started = Fixture::new(&["a", "b"]).start(&server.endpoint()).await;
    let mut watcher = started.watch().await;
    started.load("a").await;
    assert_eq!(watcher.copy("a", State::Ready).await.1.bytes, 7 * MIB);
    server.change(|script| script.model_size = Err(Status::internal("cannot tell")));
    started.load("b").await;
    assert_eq!(watcher.copy("b", State::Ready).await.1.bytes, 10 * MIB, "the reservation stays");
}

#[tokio::test]
async fn without_a_prediction_the_size_in_storage_counts_and_unimplemented_is_remembered() {
    let server =
        Scripted::start(Script { predict: Err(Status::internal("not now")), load_bytes: 2000, ..Script::default() });
    let started = Fixture::new(&["a", "b", "c", "d"]).start(&server.endpoint()).await;
    let mut watcher = started.watch().await;
    started.load("a").await;
    assert_eq!(watcher.copy("a", State::Loading).await.1.bytes, 1250);
    server.change(|script| script.predict = Err(Status::unimplemented("never")));
    started.load("b").await;
    assert_eq!(watcher.copy("b", State::Loading).await.1.bytes, 2000, "learned from the one before");
    started.load("c").await;
    assert_eq!(server.book().predictions.len(), 2);
    let hinted = modelring_proto::v1::ModelRef { size_hint: 3 * MIB, ..model("d") };
    started.ensure(hinted).await.loaded();
    assert_eq!(watcher.copy("d", State::Loading).await.1.bytes, 3 * MIB);
}

#[tokio::test]
async fn a_failed_load_keeps_code_and_text_is_unloaded_and_refused_for_a_while() {
    let server = Scripted::start(Script::default());
    server.change(|script| drop(script.load_errors.insert(model("a").id, Status::invalid_argument("no model at all"))));
    let fixture = Fixture::new(&["a"]);
    let started = fixture.start(&server.endpoint()).await;
    let mut watcher = started.watch().await;
    let text = "Failed to load model due to model runtime error: no model at all";
    assert_eq!(started.ensure(model("a")).await.failed(), (Code::InvalidArgument as u32, text));
    let (_, failed) = watcher.copy("a", State::Failed).await;
    assert_eq!((failed.code, failed.text.as_str()), (Code::InvalidArgument as u32, text));
    assert!(failed.retry_after_millis > 60_000, "{}", failed.retry_after_millis);
    eventually("unload after a failed load", || server.book().unloads == [model("a").id]).await;
    match started.ensure(model("a")).await.last() {
        load_event::Event::Refused(refused) => {
            assert_eq!(refused.reason(), modelring_proto::v1::refused::Reason::Failing);
            assert_eq!(refused.text, text);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(server.book().loads.len(), 1);
}

#[tokio::test]
async fn a_load_that_times_out_fails_for_its_callers_and_runs_on_until_the_server_answers() {
    let mut script = Script { hold_loads: true, ..Script::default() };
    script.status.model_loading_timeout_ms = 200;
    let server = Scripted::start(script);
    let started = Fixture::new(&["a"]).start(&server.endpoint()).await;
    assert_eq!(started.ensure(model("a")).await.failed().0, Code::DeadlineExceeded as u32);
    assert_eq!(server.book().unloads, Vec::<String>::new(), "the server has not answered");
    server.let_loads_go();
    eventually("the unload that follows", || server.book().unloads == [model("a").id]).await;
    assert_eq!((server.book().loads.len(), server.book().loaded.len()), (1, 0), "it was loaded, and then unloaded");
}

#[tokio::test]
async fn a_model_that_cannot_be_pulled_fails_before_the_server_hears_of_it() {
    let server = Scripted::start(Script::default());
    let fixture = Fixture::new(&["a"]);
    symlink("/etc", fixture.path("root/models/out")).unwrap();
    let started = fixture.start(&server.endpoint()).await;
    let failing = |name: &str, path: &str, key: &str| {
        let model = modelring_proto::v1::ModelRef { path: path.to_owned(), key: key.to_owned(), ..model(name) };
        let started = &started;
        async move {
            let ended = started.ensure(model).await;
            let (code, text) = ended.failed();
            (code, text.to_owned())
        }
    };
    let local = r#"{"storage_key":"local"}"#;
    let prefix = "Failed to pull model from storage due to error: ";
    for (name, path, key, code, text) in [
        ("m1", "a/none.bin", local, Code::NotFound, format!("{prefix}no file or folder 'a/none.bin'")),
        (
            "m2",
            "../storage-config/local",
            local,
            Code::InvalidArgument,
            format!("{prefix}path '../storage-config/local' climbs out of"),
        ),
        ("m3", "/etc/passwd", local, Code::InvalidArgument, format!("{prefix}path '/etc/passwd' is absolute")),
        ("m4", "out/passwd", local, Code::InvalidArgument, format!("{prefix}path 'out/passwd' leads by a link out of")),
        ("m5", "a", "{", Code::InvalidArgument, "Invalid modelKey in LoadModelRequest".to_owned()),
        ("m6", "a", "{}", Code::InvalidArgument, "Predictor Storage field missing".to_owned()),
        (
            "m7",
            "a",
            r#"{"storage_key":"no"}"#,
            Code::FailedPrecondition,
            "Did not find storage config for key no".to_owned(),
        ),
        (
            "m8",
            "a",
            r#"{"storage_params":{"type":"gopher"}}"#,
            Code::InvalidArgument,
            format!("{prefix}could not process pull command: no provider registered for repositories of type 'gopher'"),
        ),
    ] {
        let failed = failing(name, path, key).await;
        assert_eq!(failed.0, code as u32, "{failed:?}");
        assert!(failed.1.starts_with(&text), "{failed:?}");
        assert!(!fixture.path("model-dir").join(model(name).id).exists());
    }
    assert_eq!(server.book().loads.len() + server.book().predictions.len(), 0);
}

#[tokio::test]
async fn a_changed_storage_secret_ends_the_memory_of_failures() {
    let server = Scripted::start(Script::default());
    let fixture = Fixture::new(&["a"]);
    fixture.write("storage-config/local", r#"{"type":"local","path":"elsewhere"}"#);
    let started = fixture.start(&server.endpoint()).await;
    assert!(started.ensure(model("a")).await.failed().1.contains("elsewhere"));
    fixture.write("storage-config/local", r#"{"type":"local","path":"models"}"#);
    let loading = async {
        while !matches!(started.ensure(model("a")).await.last(), load_event::Event::Loaded(_)) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), loading).await.expect("the new entry is used");
}

#[tokio::test]
async fn an_id_that_names_no_folder_of_its_own_fails_at_once() {
    let server = Scripted::start(Script::default());
    let started = Fixture::new(&["a"]).start(&server.endpoint()).await;
    for id in ["", "../a", "a/b", "_modelring", ".."] {
        let ended = started.ensure(modelring_proto::v1::ModelRef { id: id.to_owned(), ..model("a") }).await;
        assert!(ended.failed().1.starts_with("invalid model id"), "{ended:?}");
    }
}

#[tokio::test]
async fn a_request_without_model_or_reason_is_no_request() {
    let server = Scripted::start(Script::default());
    let started = Fixture::new(&["a"]).start(&server.endpoint()).await;
    let no_model = modelring_proto::v1::LoadRequest { why: 1, ..Default::default() };
    let no_why = modelring_proto::v1::LoadRequest { model: Some(model("a")), ..Default::default() };
    for request in [no_model, no_why] {
        assert_eq!(started.client.clone().ensure_loaded(request).await.unwrap_err().code(), Code::InvalidArgument);
    }
}

#[tokio::test]
async fn a_copy_that_control_keeps_is_never_evicted() {
    let server = Scripted::start(Script { load_bytes: 60 * MIB, predict: Ok(60 * MIB), ..Script::default() });
    let started = Fixture::new(&["a", "b"]).start(&server.endpoint()).await;
    started.load("a").await;
    let control = started.watch_as(Role::Control, "control-1").await;
    control.say(Message::Hints(Hints { epoch: 1, keep: vec![model("a").id], ..Default::default() })).await;
    // A pong tells that the hints before it were heard.
    let mut control = control;
    control.ping(1).await;
    control
        .until("pong", |_, event| matches!(event, modelring_proto::v1::agent_event::Event::Pong(_)).then_some(()))
        .await;
    match started.ensure(model("b")).await.last() {
        load_event::Event::Refused(refused) => {
            assert_eq!(refused.reason(), modelring_proto::v1::refused::Reason::Pinned)
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_refusal_that_the_size_brings_is_the_first_word_and_ends_the_call() {
    let server = Scripted::start(Script { load_bytes: 60 * MIB, predict: Ok(60 * MIB), ..Script::default() });
    let fixture = Fixture::new(&["a", "b"]);
    let mut config = fixture.config(&server.endpoint());
    config.min_churn_age = Some(Duration::from_secs(600));
    let started = crate::fixture::Started::of(config).await.unwrap();
    started.load("a").await;
    let ended = started.ensure(model("b")).await;
    match &ended.events[..] {
        [load_event::Event::Refused(refused)] => {
            assert_eq!(refused.reason(), modelring_proto::v1::refused::Reason::Churn)
        }
        other => panic!("{other:?}"),
    }
}
