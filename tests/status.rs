//! `modelring status` against a mesh of processes.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use harness::{
    Folder, Rest, binary,
    fleet::{Connection, Fleet, FleetSetup, Outcome, SOON, call},
};
use serde_json::Value;

const DEADLINE: Duration = Duration::from_secs(60);

fn status(args: &[&str]) -> Output {
    Command::new(binary()).arg("status").args(args).env("MODELRING_LOG", "error").output().expect("the binary starts")
}

fn json(folder: &Folder) -> Value {
    let output = status(&[&folder.path().display().to_string(), "--output", "json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("it prints JSON")
}

/// What the status says once it fits.
fn until(folder: &Folder, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + SOON;
    loop {
        let said = json(folder);
        if fits(&said) {
            return said;
        }
        assert!(Instant::now() < deadline, "not in time: {what}\n{said:#}");
    }
}

async fn start() -> (Folder, Fleet) {
    let folder = Folder::with_storage();
    (0..3).for_each(|number| folder.add_numbered(number));
    folder.add_isvc("missing", "affine/none.onnx");
    folder.write("odd.yaml", "kind: InferenceService\n  bad: [indent\n");
    let fleet = Fleet::start(&folder, FleetSetup { proxies: 2, instances: 2, ..FleetSetup::default() }).await;
    (folder, fleet)
}

#[tokio::test(flavor = "multi_thread")]
async fn status_tells_how_a_mesh_stands_and_what_is_wrong() {
    let (folder, mut fleet) = start().await;
    let caller = Connection::new(fleet.grpc(), 0);
    for _ in 0..30 {
        assert_eq!(call(&caller, 1, DEADLINE).await.outcome, Outcome::Right);
    }
    assert_eq!(call(&caller, 0, DEADLINE).await.outcome, Outcome::Right);

    let body = r#"{"inputs":[{"name":"x","shape":[1,3],"datatype":"FP32","data":[0,0,0]}]}"#;
    let complete = |said: &Value| {
        said["models"][0]["name"] == "model-01"
            && said["models"].as_array().is_some_and(|models| models.iter().any(|it| it["state"] == "FailedToLoad"))
            && said["proxy_tables"].as_object().is_some_and(|tables| tables.len() == 2)
    };
    let deadline = Instant::now() + SOON;
    let said = loop {
        // Again and again: an agent that first sees the storage's configuration forgets the failures before.
        let failed = Rest::send(fleet.proxies[0].rest, "POST", "/v2/models/missing/infer", body).await;
        assert_eq!(failed.reason(), "LF", "{}", failed.text());
        let said = json(&folder);
        if complete(&said) {
            break said;
        }
        assert!(Instant::now() < deadline, "use, failure and acknowledgements are not known: {said:#}");
    };
    assert_eq!(said["proxies"], 2);
    assert_eq!(said["control_connected"], true);
    assert_eq!(said["models"][0]["state"], "Loaded");
    assert_eq!(said["models"][0]["copies"][0]["state"], "READY");
    assert!(said["models"][0]["calls_per_second"].as_f64().is_some_and(|rate| rate > 0.0), "{said:#}");
    let instance = &said["instances"]["instance-0"];
    assert_eq!((&instance["connected"], &instance["accepts_new"]), (&true.into(), &true.into()));
    assert_eq!(instance["ledger"]["capacity"], 8 * (10 << 20));
    let wrong = said["wrong"].to_string();
    assert!(wrong.contains("InferenceService/missing") && wrong.contains("odd.yaml"), "{wrong}");
    let missing = said["models"].as_array().and_then(|models| models.iter().find(|it| it["name"] == "missing"));
    assert!(missing.is_some_and(|it| it["error"].as_str().is_some_and(|text| text.contains("none.onnx"))), "{said:#}");

    let table = status(&[&folder.path().display().to_string()]);
    let table = String::from_utf8(table.stdout).expect("it prints text");
    println!("{table}");
    let first = table.lines().nth(1).expect("there are models");
    assert!(first.starts_with("model-01 ") && first.contains("Loaded") && first.contains("10.0 MiB"), "{table}");
    assert!(table.contains("[###") && table.contains("2 proxies connected"), "{table}");
    assert!(table.contains("! InferenceService/missing: ") && table.contains("! "), "{table}");
    assert!(!table.contains('\x1b'), "there is no terminal");

    let filtered = status(&[&folder.path().display().to_string(), "--filter", "model-02"]);
    let filtered = String::from_utf8(filtered.stdout).expect("it prints text");
    assert!(filtered.contains("\nmodel-02 ") && !filtered.contains("model-01"), "{filtered}");

    fleet.instances[1].agent.kill();
    let said = until(&folder, "an agent that was killed is unreachable", |said| {
        said["instances"]["instance-1"]["connected"] == false
    });
    assert!(said["wrong"].to_string().contains("does not answer"), "{said:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn watching_prints_every_change_and_looking_is_not_counted() {
    let (folder, fleet) = start().await;
    let mut watching = Command::new(binary())
        .args(["status", "--watch", "--output", "json"])
        .arg(folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let (sender, lines) = std::sync::mpsc::sync_channel(10_000);
    let stdout = watching.stdout.take().expect("it is piped");
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    let next = |what: &str, fits: &dyn Fn(&Value) -> bool| {
        let deadline = Instant::now() + SOON;
        loop {
            let line = lines.recv_timeout(deadline.saturating_duration_since(Instant::now()));
            let line = line.unwrap_or_else(|_| panic!("not in time: {what}"));
            let said: Value = serde_json::from_str(&line).expect("each line is JSON");
            if fits(&said) {
                return said;
            }
        }
    };
    let said = next("both proxies", &|said| said["proxies"] == 2);
    assert_eq!(said["proxies"], 2, "an observer is no proxy");
    folder.add_numbered(7);
    next("the new model", &|said| said["models"].to_string().contains("model-07"));
    assert!(Command::new("kill").args(["-INT", &watching.id().to_string()]).status().expect("kill runs").success());
    let deadline = Instant::now() + SOON;
    let ended = loop {
        if let Some(ended) = watching.try_wait().expect("it can be waited for") {
            break ended;
        }
        assert!(Instant::now() < deadline, "it does not end");
        std::thread::sleep(Duration::from_millis(20));
    };
    assert!(ended.success(), "{ended}");
    drop(fleet);
}

#[test]
fn a_control_that_is_not_there_is_said_with_exit_code_1() {
    let said = status(&["--control", "http://127.0.0.1:9", "--timeout", "1s"]);
    assert_eq!(said.status.code(), Some(1));
    let text = String::from_utf8_lossy(&said.stderr);
    assert!(text.contains("control at http://127.0.0.1:9 does not answer within 1s"), "{text}");
    assert!(text.contains("refused"), "the cause is told: {text}");
    let folder = Folder::empty();
    let said = status(&[&folder.path().display().to_string()]);
    assert_eq!(said.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&said.stderr).contains("name the folder that is served"));
}
