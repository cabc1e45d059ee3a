//! Clients that others wrote, against the quickstart; every answer is held against onnxruntime.

use std::process::Command;

use harness::{Folder, Up, grpcurl, python_client};

const MODEL: &str = "example-onnx-mnist";

struct Served {
    up: Up,
    folder: Folder,
}

impl Served {
    fn start() -> Self {
        let folder = Folder::quickstart();
        Self { up: Up::start(folder.path(), &[]), folder }
    }

    fn file(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn reference(&self) -> Vec<f64> {
        let said = python_client("reference.py", &[&self.file("models/onnx/mnist.onnx"), &self.request()]);
        serde_json::from_str(&said).expect("the reference is a list")
    }

    fn request(&self) -> String {
        self.file("requests/example-onnx-mnist-7.json")
    }

    fn grpcurl(&self, args: &[&str]) -> String {
        let output = Command::new(grpcurl()).arg("-plaintext").args(args).output().expect("grpcurl starts");
        assert!(output.status.success(), "grpcurl {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("grpcurl prints text")
    }
}

fn assert_close(got: &[f64], expected: &[f64]) {
    assert_eq!(got.len(), expected.len());
    for (got, expected) in got.iter().zip(expected) {
        assert!((got - expected).abs() <= 1e-2 + 1e-4 * expected.abs(), "{got} is not {expected}");
    }
}

#[test]
fn tritonclient_over_grpc() {
    let served = Served::start();
    let (model, request) = (served.file("models/onnx/mnist.onnx"), served.request());
    assert_eq!(python_client("triton_grpc.py", &[&served.up.grpc.to_string(), MODEL, &model, &request]), "ok\n");
}

#[test]
fn tritonclient_over_http() {
    let served = Served::start();
    let (model, request) = (served.file("models/onnx/mnist.onnx"), served.request());
    assert_eq!(python_client("triton_http.py", &[&served.up.rest.to_string(), MODEL, &model, &request]), "ok\n");
}

#[test]
fn grpcurl_finds_the_services_by_reflection_and_calls_a_model() {
    let served = Served::start();
    let address = served.up.grpc.to_string();
    let services = served.grpcurl(&[&address, "list"]);
    assert!(services.lines().any(|line| line == "inference.GRPCInferenceService"), "{services}");
    assert!(services.lines().any(|line| line == "grpc.health.v1.Health"), "{services}");
    assert!(!services.contains("mmesh.ModelRuntime"), "{services}");

    let body: serde_json::Value =
        serde_json::from_slice(&std::fs::read(served.request()).expect("the request is there")).expect("it is JSON");
    let message = serde_json::json!({
        "model_name": MODEL,
        "inputs": [{
            "name": "Input3", "datatype": "FP32", "shape": [1, 1, 28, 28],
            "contents": {"fp32_contents": body["inputs"][0]["data"]},
        }],
    });
    let answer = served.grpcurl(&["-d", &message.to_string(), &address, "inference.GRPCInferenceService/ModelInfer"]);
    let answer: serde_json::Value = serde_json::from_str(&answer).expect("grpcurl prints JSON");
    assert_eq!(answer["modelName"], MODEL);
    let scores: Vec<f64> = serde_json::from_value(answer["outputs"][0]["contents"]["fp32Contents"].clone())
        .expect("typed input is answered typed");
    assert_close(&scores, &served.reference());

    let health = served.grpcurl(&[&address, "grpc.health.v1.Health/Check"]);
    assert!(health.contains("SERVING"), "{health}");
    for (method, field) in [("ServerLive", "live"), ("ServerReady", "ready")] {
        let answer = served.grpcurl(&[&address, &format!("inference.GRPCInferenceService/{method}")]);
        let answer: serde_json::Value = serde_json::from_str(&answer).expect("grpcurl prints JSON");
        assert_eq!(answer[field], true);
    }
}

#[test]
fn curl_over_http_1_and_http_2_on_both_ports() {
    let served = Served::start();
    for port in [served.up.grpc, served.up.rest] {
        for version in ["--http1.1", "--http2-prior-knowledge"] {
            let output = Command::new("curl")
                .args(["-sS", version, "-d", &format!("@{}", served.request())])
                .arg(format!("http://{port}/v2/models/{MODEL}/infer"))
                .output()
                .expect("curl starts");
            let answer: serde_json::Value = serde_json::from_slice(&output.stdout)
                .unwrap_or_else(|error| panic!("{version}: {error}: {}", String::from_utf8_lossy(&output.stderr)));
            let scores: Vec<f64> =
                serde_json::from_value(answer["outputs"][0]["data"].clone()).expect("scores are numbers");
            assert_close(&scores, &served.reference());
        }
    }
}
