//! Files stay on disk after an unload, within a limit, and are used again.

use std::time::Duration;

use modelring_agent::Config;
use modelring_proto::v1::{
    Hints, Role, agent_event, copy_state::State, load_event::Event, refused::Reason, watcher_message::Message,
};
use tonic::Status;

use super::*;
use crate::{faulty_link::Fault, scripted::eventually};

/// Two models that the server does not hold together.
async fn one_at_a_time(disk_limit: Option<u64>) -> Stage {
    let content = noise(3 << 20);
    let objects = ["a", "b", "c"].map(|name| (format!("{name}/model.bin"), &content[..]));
    let stage = Stage::new(objects).await;
    stage.server.change(|script| (script.load_bytes, script.predict) = (60 * MIB, Ok(60 * MIB)));
    if disk_limit.is_some() { stage.restart(disk_limit).await } else { stage }
}

impl Stage {
    /// Stops the agent and starts another on its model directory.
    async fn restart(self, disk_limit: Option<u64>) -> Self {
        let Self { s3, link, server, fixture, started } = self;
        started.running.shutdown(Duration::ZERO).await;
        let config = Config { disk_limit, ..fixture.config(&server.endpoint()) };
        let started = Started::of(config).await.unwrap();
        Self { s3, link, server, fixture, started }
    }

    /// Ranges that were asked for of a model.
    fn pulls(&self, name: &str) -> usize {
        self.link.ranges().iter().filter(|(path, _)| path.contains(&format!("/{name}/"))).count()
    }

    fn is_on_disk(&self, name: &str) -> bool {
        self.fixture.path("model-dir").join(model(name).id).join("model.bin").exists()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_is_no_pull_after_an_unload_and_after_a_restart_of_the_agent() {
    let stage = one_at_a_time(None).await;
    for name in ["a", "b", "a", "b"] {
        stage.started.ensure(at(name, &format!("{name}/model.bin"))).await.loaded();
    }
    assert_eq!((stage.pulls("a"), stage.pulls("b")), (1, 1));
    assert!(stage.is_on_disk("a") && stage.is_on_disk("b"));

    let stage = stage.restart(None).await;
    for name in ["a", "b"] {
        stage.started.ensure(at(name, &format!("{name}/model.bin"))).await.loaded();
    }
    assert_eq!((stage.pulls("a"), stage.pulls("b")), (1, 1));

    // Another content of the same key is another model.
    stage.s3.put("models", "a/model.bin", b"changed");
    stage.started.ensure(at("a", "a/model.bin")).await.loaded();
    assert_eq!(stage.files("a")["model.bin"], b"changed");

    // A store that is away keeps nothing from loading that is on disk.
    stage.started.ensure(at("b", "b/model.bin")).await.loaded();
    stage.link.decide(|_| Fault::Busy);
    stage.started.ensure(at("a", "a/model.bin")).await.loaded();
    assert_eq!(stage.files("a")["model.bin"], b"changed");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_disk_limit_holds_the_least_recently_used_goes_and_what_never_fits_is_refused() {
    let stage = one_at_a_time(Some(7 << 20)).await;
    for name in ["a", "b", "c"] {
        stage.started.ensure(at(name, &format!("{name}/model.bin"))).await.loaded();
    }
    assert!(!stage.is_on_disk("a"), "used least recently");
    assert!(stage.is_on_disk("b") && stage.is_on_disk("c"));
    stage.started.ensure(at("b", "b/model.bin")).await.loaded();
    assert_eq!(stage.pulls("b"), 1);

    let stage = stage.restart(Some(4 << 20)).await;
    assert!(stage.is_on_disk("b") && !stage.is_on_disk("c"), "a lower limit holds at once");

    // Both at once do not fit on disk, though the server has room for both.
    stage.server.change(|script| (script.load_bytes, script.predict) = (10 * MIB, Ok(10 * MIB)));
    stage.started.ensure(at("b", "b/model.bin")).await.loaded();
    match stage.started.ensure(at("c", "c/model.bin")).await.last() {
        Event::Refused(refused) => {
            assert_eq!(refused.reason(), Reason::Disk);
            assert!(refused.text.contains("needs 3.0 MiB on disk; files may take 4.0 MiB"), "{refused:?}");
            assert!(refused.text.contains("loaded models use 3.0 MiB"), "{refused:?}");
        }
        other => panic!("{other:?}"),
    }
    let stage = stage.restart(Some(1 << 20)).await;
    match stage.started.ensure(at("a", "a/model.bin")).await.last() {
        Event::Refused(refused) => assert_eq!(refused.reason(), Reason::Disk),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn half_pulled_and_unknown_folders_go_at_the_start_of_an_agent() {
    let stage = one_at_a_time(None).await;
    stage.started.ensure(at("a", "a/model.bin")).await.loaded();
    for path in ["_modelring/pulls/9/m", "unknown__isvc-1/model.bin", "_modelring/kept/no-model"] {
        let path = stage.fixture.path("model-dir").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "{").unwrap();
    }
    let stage = stage.restart(None).await;
    stage.started.ensure(at("a", "a/model.bin")).await.loaded();
    let dir = stage.fixture.path("model-dir");
    eventually("the end of leftovers", || !dir.join("unknown__isvc-1").exists()).await;
    assert_eq!(stage.unfinished(), 0);
    assert!(!dir.join("_modelring/kept/no-model").exists());
    assert_eq!(stage.pulls("a"), 1);
    let unloads = stage.server.book().unloads;
    assert!(unloads.contains(&"unknown__isvc-1".to_owned()), "the server was asked to let it go: {unloads:?}");
    let mut watcher = stage.started.watch().await;
    watcher.copy("a", State::Ready).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_not_as_they_were_pulled_are_pulled_again() {
    let stage = one_at_a_time(None).await;
    stage.started.ensure(at("a", "a/model.bin")).await.loaded();
    stage.started.ensure(at("b", "b/model.bin")).await.loaded();
    fs::write(stage.fixture.path("model-dir").join(model("a").id).join("model.bin"), "short").unwrap();
    stage.started.ensure(at("a", "a/model.bin")).await.loaded();
    assert_eq!(stage.pulls("a"), 2);
    assert_eq!(stage.files("a")["model.bin"], noise(3 << 20));
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_a_model_that_left_the_table_or_that_the_server_would_not_have_are_not_kept() {
    let stage = one_at_a_time(None).await;
    stage.started.ensure(at("a", "a/model.bin")).await.loaded();
    let mut control = stage.started.watch_as(Role::Control, "control-1").await;
    control.say(Message::Hints(Hints { epoch: 1, gone: vec![model("a").id], ..Default::default() })).await;
    control.ping(1).await;
    control.until("pong", |_, event| matches!(event, agent_event::Event::Pong(_)).then_some(())).await;
    stage.started.ensure(at("b", "b/model.bin")).await.loaded();
    assert!(!stage.is_on_disk("a"));

    let bad = Status::invalid_argument("this is no model");
    stage.server.change(|script| drop(script.load_errors.insert(model("c").id, bad)));
    assert!(stage.started.ensure(at("c", "c/model.bin")).await.failed().1.contains("this is no model"));
    eventually("the removal", || !stage.is_on_disk("c")).await;
    stage.started.ensure(at("b", "b/model.bin")).await.loaded();
    assert_eq!((stage.pulls("b"), stage.pulls("c")), (1, 1));
}
