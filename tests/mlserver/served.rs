//! A whole mesh: control, a proxy, an agent beside a real MLServer, and a bucket of a real S3 server.

use std::{net::SocketAddr, path::Path, process::Command};

use harness::{
    Folder, MlServer, Process, RawCall, Rest, S3, framed, free_address, grpc, grpcurl, k6, python_client,
    wait_until_ready,
};
use modelring_proto::inference::RepositoryModelUnloadRequest;
use prost::Message;
use serde_json::{Value, json};
use tonic::Code;

use crate::models::{ALL, Kind, data};

const BUCKET: &str = "modelring-example-models";

/// The running mesh. Its processes are killed when it is dropped.
struct Served {
    grpc: SocketAddr,
    rest: SocketAddr,
    folder: Folder,
    s3: S3,
    server: MlServer,
    _processes: [Process; 3],
}

// === impl Served ===

impl Served {
    /// Starts everything, with the three models in the bucket and no InferenceService yet.
    fn start() -> Self {
        let folder = Folder::empty();
        let s3 = S3::start();
        s3.make_bucket(BUCKET);
        for kind in ALL {
            s3.put(BUCKET, &format!("{}/{}", kind.format(), kind.file()), &kind.bytes());
        }
        let runtime = std::fs::read(Folder::checkout().join("config/runtimes/mlserver-1.x.yaml"));
        folder.write("mlserver-1.x.yaml", runtime.expect("the manifest is there"));
        let [agent, control, grpc, rest] = std::array::from_fn(|_| free_address());
        folder.write("instances.yaml", format!("- address: {agent}\n  runtime: mlserver-1.x\n"));
        let served = folder.path().join("pod");
        let server = MlServer::start(&served);

        let text = |path: &Path| path.display().to_string();
        let mut control_process = Process::start(&["control", &text(folder.path()), "--listen", &control.to_string()]);
        control_process.wait_for(control);
        let mut agent_process = Process::start(&[
            "agent",
            "--server=mlserver",
            "--runtime=mlserver-1.x",
            &format!("--listen={agent}"),
            &format!("--model-dir={}", text(&served)),
            &format!("--storage-config={}", text(&folder.path().join(".modelring/storage-config"))),
            &format!("--runtime-port={}", server.grpc.port()),
            // MLServer is reached as in a pod: only by its agent.
            "--relay=127.0.0.1:0",
            "--container-mem-req-bytes=1073741824",
            "--mem-buffer-bytes=134217728",
            "--loadtime-timeout=90000",
        ]);
        agent_process.wait_for(agent);
        let mut proxy_process = Process::start(&[
            "proxy",
            &format!("--grpc={grpc}"),
            &format!("--rest={rest}"),
            &format!("--control=http://{control}"),
        ]);
        proxy_process.wait_for(grpc);
        wait_until_ready(rest);
        Self { grpc, rest, folder, s3, server, _processes: [control_process, agent_process, proxy_process] }
    }

    /// Writes the storage Secret.
    fn write_secret(&self, entries: &[(&str, String)]) {
        let mut secret = "apiVersion: v1\nkind: Secret\nmetadata:\n  name: storage-config\nstringData:\n".to_owned();
        for (key, entry) in entries {
            secret.push_str(&format!("  {key}: '{entry}'\n"));
        }
        self.folder.write("storage-config.yaml", secret);
    }

    /// Writes an InferenceService whose model lies where `location`, lines of YAML, says. `format` may have a version
    /// behind a `:`.
    fn write_isvc(&self, name: &str, format: &str, location: &[&str]) {
        let location: String = location.iter().map(|line| format!("      {line}\n")).collect();
        let format = format.replace(':', "\n        version: ");
        let manifest = format!(
            "apiVersion: serving.kserve.io/v1beta1\nkind: InferenceService\nmetadata:\n  name: {name}\n  annotations:\n    \
             serving.kserve.io/deploymentMode: ModelMesh\nspec:\n  predictor:\n    model:\n      modelFormat:\n        \
             name: {format}\n{location}"
        );
        self.folder.write(&format!("{name}.yaml"), manifest);
    }

    /// Waits until the proxy knows the model.
    async fn known(&self, name: &str) {
        let known = async {
            while Rest::send(self.rest, "GET", &format!("/v2/models/{name}/ready"), "").await.status == 404 {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(crate::agent::LONG, known).await.expect("the proxy knows the model in time");
    }

    /// Calls a model by REST.
    async fn infer(&self, kind: Kind, name: &str) -> Rest {
        let (rows, _) = kind.rows();
        let shape = [rows.len(), rows[0].len()];
        let input = json!({"name": "predict", "datatype": "FP32", "shape": shape, "data": rows});
        let body = json!({"id": "42", "inputs": [input]}).to_string();
        Rest::send(self.rest, "POST", &format!("/v2/models/{name}/infer"), body).await
    }
}

fn numbers(output: &Value) -> Vec<f64> {
    serde_json::from_value(output["data"].clone()).unwrap_or_else(|error| panic!("{error}: {output}"))
}

/// The three InferenceServices: by storage key, by URI, and as a folder with settings of its own.
async fn three_models(served: &Served) {
    served.write_secret(&[("localMinIO", served.s3.entry(BUCKET)), ("default_s3", served.s3.entry(BUCKET))]);
    served.write_isvc(
        "digits-svm",
        "sklearn:0",
        &["storage:", "  key: localMinIO", "  path: sklearn/mnist-svm.joblib"],
    );
    served.write_isvc("mushroom-xgboost", "xgboost:1", &[&format!("storageUri: s3://{BUCKET}/xgboost/mushroom.json")]);
    let settings =
        r#"{"name":"any","implementation":"mlserver_lightgbm.LightGBMModel","parameters":{"uri":"./mushroom.bst"}}"#;
    served.s3.put(BUCKET, "folder/model-settings.json", settings.as_bytes());
    served.s3.put(BUCKET, "folder/mushroom.bst", &Kind::Lightgbm.bytes());
    served.write_isvc("mushroom-lightgbm", "lightgbm:3", &["storage:", "  key: localMinIO", "  path: folder"]);
    for name in NAMES {
        served.known(name).await;
    }
}

/// Names of the InferenceServices, in the order of the kinds.
const NAMES: [&str; 3] = ["digits-svm", "mushroom-xgboost", "mushroom-lightgbm"];
/// What the clients are told of them.
const ROWS: [&str; 3] =
    ["digits-svm=digits/svm", "mushroom-xgboost=mushrooms/xgboost", "mushroom-lightgbm=mushrooms/lightgbm"];

#[tokio::test(flavor = "multi_thread")]
async fn digits_and_mushrooms_from_s3_are_answered_rightly_to_every_client() {
    let served = Served::start();
    three_models(&served).await;

    for (kind, name) in ALL.into_iter().zip(NAMES) {
        let answer = grpc(served.grpc).await.model_infer(kind.request(name)).await.expect("gRPC answers");
        assert!(answer.metadata().contains_key("mm-model-id"));
        let answer = answer.into_inner();
        assert_eq!(answer.model_name, name);
        kind.assert_right(&answer);

        let answer = served.infer(kind, name).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let answer = answer.json();
        assert_eq!((&answer["model_name"], &answer["id"]), (&json!(name), &json!("42")));
        kind.assert_numbers(&numbers(&answer["outputs"][0]));
    }

    let requests = data("requests.json").display().to_string();
    let (grpc, rest, url) = (served.grpc.to_string(), served.rest.to_string(), format!("http://{}", served.rest));
    for (script, address) in [
        ("tabular_triton_grpc.py", &grpc),
        ("tabular_triton_http.py", &rest),
        ("tabular_kserve.py", &grpc),
        ("tabular_kserve.py", &url),
    ] {
        let said = python_client(script, &[address, &requests, ROWS[0], ROWS[1], ROWS[2]]);
        assert_eq!(said, "ok\n", "{script} {address}");
    }

    let (rows, _) = Kind::Svm.rows();
    let message = json!({
        "model_name": "digits-svm",
        "inputs": [{
            "name": "predict", "datatype": "FP32", "shape": [rows.len(), 64],
            "contents": {"fp32_contents": rows.concat()},
        }],
    });
    let output = Command::new(grpcurl())
        .args(["-plaintext", "-d", &message.to_string(), &grpc, "inference.GRPCInferenceService/ModelInfer"])
        .output()
        .expect("grpcurl starts");
    let answer: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    // 64-bit numbers are texts in the JSON of protobuf.
    let digits: Vec<String> =
        serde_json::from_value(answer["outputs"][0]["contents"]["int64Contents"].clone()).expect("a list of digits");
    assert_eq!(digits, ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_do_not_manage_mlserver() {
    let served = Served::start();
    three_models(&served).await;
    assert_eq!(served.infer(Kind::Svm, NAMES[0]).await.status, 200);
    let message =
        framed(&RepositoryModelUnloadRequest { model_name: NAMES[0].to_owned(), ..Default::default() }.encode_to_vec());
    for method in [
        "RepositoryIndex",
        "RepositoryModelLoad",
        "RepositoryModelUnload",
        "SystemSharedMemoryRegister",
        "CudaSharedMemoryStatus",
    ] {
        let path = format!("/inference.GRPCInferenceService/{method}");
        for header in [None, Some(NAMES[0])] {
            let mut call = RawCall::new(&path);
            if let Some(name) = header {
                call = call.header("mm-vmodel-id", name);
            }
            let answer = call.frame(message.clone()).send(served.grpc).await;
            assert_eq!(answer.code, Code::Unimplemented as u32, "{method}: {}", answer.text);
        }
    }
    assert_eq!(served.infer(Kind::Svm, NAMES[0]).await.status, 200, "it is still there");
}

#[tokio::test(flavor = "multi_thread")]
async fn k6_at_a_steady_rate_sees_right_answers_only() {
    let served = Served::start();
    three_models(&served).await;
    for (kind, name) in ALL.into_iter().zip(NAMES) {
        // The first call of each waits for its load; what is measured is what comes after.
        assert_eq!(served.infer(kind, name).await.status, 200);
    }
    let soak = std::env::var_os("MODELRING_SOAK").is_some();
    let output = Command::new(k6())
        .args(["run", "--quiet", "--no-usage-report"])
        .arg(format!("-eGRPC={}", served.grpc))
        .arg(format!("-eREST=http://{}", served.rest))
        .arg(format!("-eREQUESTS={}", data("requests.json").display()))
        .arg(format!("-eMODELS={}", ROWS.join(",")))
        .args(["-eRATE=10", if soak { "-eDURATION=120s" } else { "-eDURATION=5s" }])
        .arg(Folder::checkout().join("loadtests/k6/tabular.js"))
        .output()
        .expect("k6 starts");
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}\n{errors}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_bucket_refuses_reaches_the_caller_with_its_cause() {
    let served = Served::start();
    let entry = served.s3.entry(BUCKET);
    let mut wrong: Value = serde_json::from_str(&entry).expect("an entry is JSON");
    wrong["secret_access_key"] = json!("not-the-secret");
    served.write_secret(&[
        ("good", entry),
        ("wrong", wrong.to_string()),
        ("elsewhere", served.s3.entry("no-such-bucket")),
    ]);
    for (name, key, path, cause) in [
        ("wrong-credentials", "wrong", "xgboost/mushroom.json", "SignatureDoesNotMatch"),
        ("missing-bucket", "elsewhere", "xgboost/mushroom.json", "NoSuchBucket"),
        ("missing-object", "good", "xgboost/no-such-model.json", "no-such-model.json"),
        ("missing-key", "nowhere", "xgboost/mushroom.json", "Storage secretKey not found: nowhere"),
    ] {
        served.write_isvc(name, "xgboost", &["storage:", &format!("  key: {key}"), &format!("  path: {path}")]);
        served.known(name).await;
        let status =
            grpc(served.grpc).await.model_infer(Kind::Xgboost.request(name)).await.expect_err("it cannot be loaded");
        assert_eq!(status.code(), Code::Internal, "{name}: {status}");
        assert!(status.message().contains(cause), "{name}: {}", status.message());
        assert!(!status.message().contains("not-the-secret"), "{name}: {}", status.message());
        assert_eq!(
            status.metadata().get("modelring-reason").map(|reason| reason.as_bytes()),
            Some(&b"LF"[..]),
            "{name}"
        );

        let answer = served.infer(Kind::Xgboost, name).await;
        assert_eq!((answer.status, answer.reason()), (500, "LF"), "{name}: {}", answer.text());
        let error = answer.json();
        assert!(error["error"].as_str().is_some_and(|text| text.contains(cause)), "{name}: {error}");
        assert_eq!(error["code"], 13, "{name}: {error}");
    }

    // A model that MLServer cannot use is told in its words.
    served.s3.put(BUCKET, "xgboost/broken.json", b"this is no model");
    served.write_isvc("broken", "xgboost", &["storage:", "  key: good", "  path: xgboost/broken.json"]);
    served.known("broken").await;
    let answer = served.infer(Kind::Xgboost, "broken").await;
    assert_eq!((answer.status, answer.reason()), (500, "LF"), "{}", answer.text());
    assert!(answer.text().contains("Failed to load Model due to MLServer runtime error: "), "{}", answer.text());

    // The object comes, the Secret changes: what failed is tried anew.
    served.s3.put(BUCKET, "xgboost/no-such-model.json", &Kind::Xgboost.bytes());
    served.write_secret(&[("good", served.s3.entry(BUCKET)), ("wrong", served.s3.entry(BUCKET))]);
    for name in ["missing-object", "wrong-credentials"] {
        let recovers = async {
            loop {
                let answer = served.infer(Kind::Xgboost, name).await;
                if answer.status == 200 {
                    return answer;
                }
                tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            }
        };
        let answer = tokio::time::timeout(crate::agent::LONG, recovers).await.expect("it recovers in time");
        Kind::Xgboost.assert_numbers(&numbers(&answer.json()["outputs"][0]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mlserver_is_killed_under_calls_and_comes_back_and_no_call_reaches_a_model_that_is_not_loaded() {
    let mut served = Served::start();
    three_models(&served).await;
    for (kind, name) in ALL.into_iter().zip(NAMES) {
        assert_eq!(served.infer(kind, name).await.status, 200);
    }
    served.server.kill();
    served.server.start_again();
    // A call that comes now waits for the server to be back and for the load; it is never answered by the server's
    // NOT_FOUND. Calls may fail while there is no server: by the proxy, with its reason.
    for (kind, name) in ALL.into_iter().zip(NAMES) {
        let recovers = async {
            loop {
                match grpc(served.grpc).await.model_infer(kind.request(name)).await {
                    Ok(answer) => return kind.assert_right(&answer.into_inner()),
                    Err(status) => {
                        assert_ne!(status.code(), Code::NotFound, "{name}: {status}");
                        assert!(status.metadata().contains_key("modelring-reason"), "{name}: {status}");
                    }
                }
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(crate::agent::LONG, recovers).await.expect("it recovers in time");
    }
}
