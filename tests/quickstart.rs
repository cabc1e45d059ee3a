//! What a new user does: `modelring up` on the quickstart folder, the printed line, `infer`, `status`, Ctrl-C.

use std::process::{Command, Output};

use harness::{Folder, Up, binary};

const MODEL: &str = "example-onnx-mnist";

fn modelring(args: &[&str]) -> Output {
    Command::new(binary()).args(args).output().expect("the binary starts")
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).expect("text is printed")
}

#[test]
fn the_printed_curl_line_answers_ten_scores_the_highest_at_the_right_digit() {
    let folder = Folder::quickstart();
    let mut up = Up::start(folder.path(), &[]);
    let line = up.line_with("curl -s");
    let answer = Command::new("sh").arg("-c").arg(line.trim()).output().expect("a shell runs");
    let answer: serde_json::Value = serde_json::from_slice(&answer.stdout).expect("the answer is JSON");
    assert_eq!(answer["model_name"], MODEL);
    assert_eq!(answer["outputs"][0]["shape"], serde_json::json!([1, 10]));
    let scores: Vec<f64> = serde_json::from_value(answer["outputs"][0]["data"].clone()).expect("scores are numbers");
    let highest = (0..10).max_by(|a, b| scores[*a].total_cmp(&scores[*b]));
    assert_eq!(highest, Some(7), "{scores:?}");
}

#[test]
fn infer_prints_the_scores_and_marks_the_highest() {
    let folder = Folder::quickstart();
    let up = Up::start(folder.path(), &[]);
    let input = folder.path().join("requests/example-onnx-mnist-3.json").display().to_string();
    let rest = format!("http://{}", up.rest);
    let said = stdout(&modelring(&["infer", MODEL, "--input", &input, "--rest", &rest]));
    let marked = said.lines().find(|line| line.contains("highest")).expect("a line is marked");
    assert!(marked.trim_start().starts_with("3 "), "{said}");

    let failed = modelring(&["infer", "no-such-model", "--input", &input, "--rest", &rest]);
    assert!(!failed.status.success());
    let error = String::from_utf8_lossy(&failed.stderr).into_owned();
    assert!(error.contains("vmodel not found") && error.contains("NM"), "{error}");
}

#[test]
fn status_shows_models_and_instances_as_a_table_and_as_json() {
    let folder = Folder::quickstart();
    let mut up = Up::start(folder.path(), &[]);
    up.line_with("ready:");
    let dir = folder.path().display().to_string();

    let table = stdout(&modelring(&["status", &dir]));
    let row = table.lines().find(|line| line.starts_with(MODEL)).expect("the model has a row");
    assert!(row.contains("Loaded") && row.contains("KiB"), "{table}");
    assert!(table.contains("modelring-onnx") && table.contains("1 proxy connected"), "{table}");

    let json: serde_json::Value =
        serde_json::from_str(&stdout(&modelring(&["status", &dir, "--json"]))).expect("JSON is printed");
    assert_eq!(json["models"][0]["name"], MODEL);
    assert_eq!(json["models"][0]["state"], "Loaded");
    assert_eq!(json["models"][0]["copies"][0]["state"], "READY");
    let instance = json["instances"].as_object().and_then(|instances| instances.values().next()).expect("one instance");
    assert!(instance["ledger"]["capacity"].as_u64() > Some(0));
    assert_eq!(instance["ledger"]["overrun"], 0);
}

#[test]
fn status_of_a_folder_that_nobody_serves_says_so() {
    let folder = Folder::quickstart();
    let output = modelring(&["status", &folder.path().display().to_string()]);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains(".modelring/control"), "{output:?}");
}

#[test]
fn sigterm_ends_it_well() {
    let folder = Folder::quickstart();
    let mut up = Up::start(folder.path(), &[]);
    up.line_with("ready:");
    assert!(up.terminate().success());
}

#[test]
fn a_taken_port_is_named() {
    let folder = Folder::quickstart();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = taken.local_addr().expect("it has an address").to_string();
    let output = modelring(&["up", &folder.path().display().to_string(), "--grpc", &address, "--rest", "127.0.0.1:0"]);
    assert!(!output.status.success());
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains(&address) && error.contains("in use"), "{error}");
}

#[test]
fn nothing_is_written_outside_the_state_folder() {
    let folder = Folder::quickstart();
    let names = || {
        let mut names: Vec<_> = std::fs::read_dir(folder.path())
            .expect("the folder can be read")
            .map(|entry| entry.expect("the folder can be read").file_name())
            .filter(|name| name != ".modelring")
            .collect();
        names.sort();
        names
    };
    let before = names();
    let mut up = Up::start(folder.path(), &[]);
    up.line_with("ready:");
    assert_eq!(names(), before);
}

#[test]
fn help_names_every_command_and_flag_with_its_environment_twin() {
    let help = stdout(&modelring(&["--help"]));
    for command in ["up", "infer", "status", "proxy", "control", "agent", "runtime"] {
        assert!(help.lines().any(|line| line.trim_start().starts_with(command)), "{help}");
        let help = stdout(&modelring(&[command, "--help"]));
        assert!(help.contains("Usage:"), "{help}");
    }
    let proxy = stdout(&modelring(&["proxy", "--help"]));
    for twin in ["MODELRING_GRPC", "MODELRING_REST", "MODELRING_MEMORY_BUDGET", "NAMESPACE"] {
        assert!(proxy.contains(twin), "{proxy}");
    }
}
