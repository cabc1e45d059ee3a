//! The agent's adapter: handshake, loads, unloads, and what MLServer itself says.

use std::time::Duration;

use harness::{MlServer, binary, grpc};
use modelring_agent::{Error, adapter::Settings};
use modelring_proto::{
    inference::{ModelMetadataRequest, RepositoryIndexRequest, ServerReadyRequest},
    v1::{Missing, copy_state::State, watcher_message},
};
use tonic::{Code, Status};

use crate::{
    agent::{Driven, LONG, Pod, exists, id, model, real, settings},
    models::{ALL, Kind},
};

/// Asks MLServer itself.
async fn infer(server: &MlServer, kind: Kind, name: &str) -> Result<(), Status> {
    let answer = grpc(server.grpc).await.model_infer(kind.request(&id(name))).await?;
    kind.assert_right(&answer.into_inner());
    Ok(())
}

/// What MLServer's index says is ready.
async fn ready(server: &MlServer) -> Vec<String> {
    let request = RepositoryIndexRequest { ready: true, ..Default::default() };
    let index = grpc(server.grpc).await.repository_index(request).await.expect("it has an index");
    index.into_inner().models.into_iter().map(|model| model.name).collect()
}

/// Whether MLServer says that it is ready: not while a model is being loaded.
async fn says_ready(server: &MlServer) -> bool {
    grpc(server.grpc).await.server_ready(ServerReadyRequest {}).await.expect("it answers").into_inner().ready
}

/// A model whose load ends when `gate` is there.
fn add_gated(pod: &Pod, path: &str, gate: &std::path::Path) {
    let settings = r#"{"name":"any","implementation":"gated.Gated"}"#;
    let code = format!(
        "import asyncio, os\nfrom mlserver import MLModel\n\nclass Gated(MLModel):\n    async def load(self):\n        \
         while not os.path.exists({gate:?}):\n            await asyncio.sleep(0.05)\n        return True\n"
    );
    pod.add(&format!("{path}/model-settings.json"), settings);
    pod.add(&format!("{path}/gated.py"), code);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_three_kinds_are_loaded_answer_rightly_and_are_unloaded_in_order() {
    let pod = Pod::new();
    let server = MlServer::start(&pod.model_dir());
    let agent = pod.drive(&server).await;
    let mut watcher = agent.watch().await;

    let hello = watcher.hello.clone();
    assert_eq!((hello.runtime.as_str(), hello.loading_concurrency, hello.allow_any_method), ("mlserver-1.x", 1, false));
    let methods: Vec<_> = hello
        .methods
        .iter()
        .map(|method| (method.name.as_str(), method.request_path.as_slice(), method.response_path.as_slice()))
        .collect();
    let one = &[1][..];
    assert_eq!(
        methods,
        [
            ("inference.GRPCInferenceService/ModelInfer", one, one),
            ("inference.GRPCInferenceService/ModelMetadata", one, one),
            ("inference.GRPCInferenceService/ModelStreamInfer", one, one),
        ]
    );

    for kind in ALL {
        agent.load(real(kind.format(), kind)).await;
        let copy = watcher.copy(kind.format(), State::Ready).await;
        assert_eq!(copy.bytes, (kind.bytes().len() as f64 * 1.25) as u64, "size on disk x multiplier");
        infer(&server, kind, kind.format()).await.expect("it is answered");
    }
    let mut held = ready(&server).await;
    held.sort();
    assert_eq!(held, ["lightgbm", "sklearn", "xgboost"].map(id));

    // A schema becomes MLServer's metadata; a folder with settings of its own is adapted.
    pod.add("digits/model-settings.json", r#"{"name":"mnist-svm","implementation":"mlserver_sklearn.SKLearnModel","parameters":{"version":"v0.1.0","uri":"./svm.joblib"}}"#);
    pod.add("digits/svm.joblib", Kind::Svm.bytes());
    pod.add("schema.json", r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[-1,64]}]}"#);
    let mut described = model("described", "sklearn", "digits");
    described.key = r#"{"storage_key":"local","model_type":{"name":"sklearn"},"schema_path":"schema.json"}"#.to_owned();
    agent.load(described).await;
    infer(&server, Kind::Svm, "described").await.expect("it is answered");
    let request = ModelMetadataRequest { name: id("described"), ..Default::default() };
    let metadata = grpc(server.grpc).await.model_metadata(request).await.expect("it has metadata").into_inner();
    assert_eq!((metadata.inputs[0].name.as_str(), metadata.inputs[0].shape.as_slice()), ("x", &[-1, 64][..]));

    // A proxy's word that a model is not there is held against the index.
    let copy = watcher.copies[&id("xgboost")].clone();
    let missing = Missing { model: copy.model, boot_id: hello.boot_id, seq: watcher.seqs[&id("xgboost")] };
    watcher.say(watcher_message::Message::Missing(missing)).await;
    watcher.ping().await;
    infer(&server, Kind::Xgboost, "xgboost").await.expect("it stays");
    assert_eq!(watcher.copies[&id("xgboost")].state(), State::Ready);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_makes_room_for_another_is_gone_from_server_and_disk() {
    let pod = Pod::new();
    let server = MlServer::start(&pod.model_dir());
    // Room for the SVM alone, or the two others together: they are counted at 15 bytes a byte.
    let tight = Settings {
        container_mem_req_bytes: Some((256 << 20) + 5_200_000),
        modelsize_multiplier: 15.0,
        default_modelsize: 100_000,
        ..settings()
    };
    let agent = Driven::start(pod.config(&server, tight)).await.expect("the agent starts");
    let mut watcher = agent.watch().await;
    agent.load(real("first", Kind::Svm)).await;
    infer(&server, Kind::Svm, "first").await.expect("it is answered");
    let dir = pod.model_dir().join("_mlserver_models").join(id("first"));
    assert!(exists(&dir));
    watcher.ping().await;

    let (loaded, ()) = tokio::join!(agent.ensure(real("second", Kind::Lightgbm)), async {
        let draining = watcher.copy("first", State::Draining).await;
        assert_eq!(ready(&server).await, [id("first")], "unloaded only when nobody uses it");
        let ack = modelring_proto::v1::DrainAck {
            model: draining.model,
            boot_id: watcher.hello.boot_id,
            seq: watcher.seqs[&id("first")],
        };
        watcher.say(watcher_message::Message::DrainAck(ack)).await;
        watcher.copy("first", State::Gone).await;
    });
    assert!(matches!(loaded, modelring_proto::v1::load_event::Event::Loaded(_)), "{loaded:?}");
    assert_eq!(ready(&server).await, [id("second")]);
    assert!(!exists(&dir) && !exists(&pod.model_dir().join(id("first"))), "nothing is left of it");
    let status = infer(&server, Kind::Svm, "first").await.expect_err("it is gone");
    assert_eq!(
        (status.code(), status.message()),
        (Code::NotFound, "Model first__isvc-0123456789 with version  not found")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_loaded_fails_with_the_text_of_adapter_or_server() {
    let pod = Pod::new();
    pod.add("broken.joblib", "this is no model");
    pod.add("odd/model-settings.json", r#"{"implementation":"mlserver_sklearn.SKLearnModel","parameters":5}"#);
    pod.add("nowhere/model-settings.json", r#"{"implementation":"no.Such"}"#);
    let server = MlServer::start(&pod.model_dir());
    let agent = pod.drive(&server).await;

    let (code, text) = agent.fails(model("unknown", "my-type", "mushroom.json")).await;
    assert_eq!(code, Code::NotFound as u32);
    assert_eq!(
        text,
        format!(
            "Failed to load Model due to MLServer runtime error: Model {} not found; no implementation is known for models \
             of type 'my-type': bring a model-settings.json that names one",
            id("unknown")
        )
    );
    let (code, text) = agent.fails(model("broken", "sklearn", "broken.joblib")).await;
    assert_eq!(code, Code::Internal as u32, "{text}");
    assert!(text.starts_with("Failed to load Model due to MLServer runtime error: "), "{text}");
    let (_, text) = agent.fails(model("odd", "sklearn", "odd")).await;
    assert!(text.starts_with("Failed to load Model due to adapter error: '"), "{text}");
    assert!(text.ends_with("odd/model-settings.json' is wrong: parameters is not an object"), "{text}");
    let (_, text) = agent.fails(model("nowhere", "sklearn", "nowhere")).await;
    assert!(text.starts_with("Failed to load Model due to MLServer runtime error: "), "{text}");
    // Settings deeper in the folder of one model would be another model to MLServer, under the name of anybody's.
    agent.load(real("right", Kind::Xgboost)).await;
    pod.add(
        "two/model-settings.json",
        r#"{"implementation":"mlserver_sklearn.SKLearnModel","parameters":{"uri":"./svm.joblib"}}"#,
    );
    pod.add("two/svm.joblib", Kind::Svm.bytes());
    let stolen = format!(r#"{{"name":"{}","implementation":"mlserver_sklearn.SKLearnModel"}}"#, id("right"));
    pod.add("two/extra/model-settings.json", stolen);
    let (code, text) = agent.fails(model("two", "sklearn", "two")).await;
    assert_eq!(code, Code::InvalidArgument as u32, "{text}");
    assert!(text.contains("would be served by MLServer as a further model"), "{text}");
    infer(&server, Kind::Xgboost, "right").await.expect("it is itself");

    let (code, text) = agent.fails(model("absent", "sklearn", "absent.joblib")).await;
    assert_eq!(code, Code::NotFound as u32, "{text}");

    assert_eq!(ready(&server).await, [id("right")]);
    infer(&server, Kind::Xgboost, "right").await.expect("others are not held up");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_that_times_out_is_not_cancelled_and_is_unloaded_when_the_server_has_answered() {
    let pod = Pod::new();
    let gate = pod.path("gate");
    add_gated(&pod, "slow", &gate);
    let server = MlServer::start(&pod.model_dir());
    let patient = Settings { loadtime_timeout: Duration::from_millis(1500), ..settings() };
    let agent = Driven::start(pod.config(&server, patient)).await.expect("the agent starts");
    let mut watcher = agent.watch().await;

    let (code, text) = agent.fails(model("slow", "any", "slow")).await;
    assert_eq!((code, text.as_str()), (Code::DeadlineExceeded as u32, "the model server did not load it within 1.5 s"));
    let dir = pod.model_dir().join("_mlserver_models").join(id("slow"));
    assert!(exists(&dir), "it is still being loaded");
    std::fs::write(&gate, "").expect("a file can be written");
    let unloaded = async {
        while exists(&dir) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(LONG, unloaded).await.expect("it is unloaded in time");
    assert_eq!(ready(&server).await, Vec::<String>::new());
    watcher.ping().await;
    assert_eq!(watcher.copies[&id("slow")].state(), State::Failed);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_comes_back_purges_after_three_seconds_what_the_one_before_it_had_loaded() {
    let pod = Pod::new();
    let gate = pod.path("gate");
    add_gated(&pod, "slow", &gate);
    let server = MlServer::start(&pod.model_dir());
    let agent = pod.drive(&server).await;
    agent.load(real("old", Kind::Lightgbm)).await;
    // MLServer neither ends nor forgets a load whose caller goes away, and is never ready again by itself.
    let slow = model("slow", "any", "slow");
    let loading = async {
        let mut watcher = agent.watch().await;
        watcher.copy("slow", State::Loading).await;
        let dir = pod.model_dir().join("_mlserver_models").join(id("slow"));
        while !exists(&dir.join("model-settings.json")) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        ended = agent.ensure(slow) => panic!("{ended:?}"),
        () = loading => {}
    }
    while says_ready(&server).await {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    agent.running.shutdown(Duration::ZERO).await;
    infer(&server, Kind::Lightgbm, "old").await.expect("MLServer goes on");

    let began = std::time::Instant::now();
    let agent = pod.drive(&server).await;
    tokio::time::sleep(Duration::from_millis(2500).saturating_sub(began.elapsed())).await;
    if began.elapsed() < Duration::from_millis(2900) {
        infer(&server, Kind::Lightgbm, "old").await.expect("proxies may still believe in it");
    }
    let watcher = agent.watch().await;
    assert!(began.elapsed() >= Duration::from_secs(3));
    assert!(watcher.copies.is_empty(), "{:?}", watcher.copies);
    assert_eq!(ready(&server).await, Vec::<String>::new());
    let left = std::fs::read_dir(pod.model_dir().join("_mlserver_models")).expect("it is there").count();
    assert_eq!(left, 0, "its folder is empty");
    assert!(says_ready(&server).await, "what was on its way is forgotten");
    let status = infer(&server, Kind::Lightgbm, "old").await.expect_err("it is gone");
    assert_eq!(status.code(), Code::NotFound);
    agent.load(real("old", Kind::Lightgbm)).await;
    infer(&server, Kind::Lightgbm, "old").await.expect("it is loaded anew");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_mlserver_comes_back_empty_and_no_copy_is_believed_in() {
    let pod = Pod::new();
    let mut server = MlServer::start(&pod.model_dir());
    let agent = pod.drive(&server).await;
    let mut watcher = agent.watch().await;
    for kind in [Kind::Xgboost, Kind::Lightgbm] {
        agent.load(real(kind.format(), kind)).await;
        watcher.copy(kind.format(), State::Ready).await;
    }
    server.kill();
    watcher.ping().await;
    for kind in [Kind::Xgboost, Kind::Lightgbm] {
        assert_eq!(watcher.copies[&id(kind.format())].state(), State::Gone, "said before the pong");
    }
    server.start_again();
    server.wait_until_ready();
    let status = infer(&server, Kind::Xgboost, "xgboost").await.expect_err("the new process is empty");
    assert_eq!(status.code(), Code::NotFound);
    agent.load(real("xgboost", Kind::Xgboost)).await;
    watcher.copy("xgboost", State::Ready).await;
    infer(&server, Kind::Xgboost, "xgboost").await.expect("it is loaded anew");
    assert_eq!(ready(&server).await, [id("xgboost")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_mlserver_says_of_a_model_that_is_not_there() {
    let pod = Pod::new();
    let server = MlServer::start(&pod.model_dir());
    let agent = pod.drive(&server).await;
    agent.load(real("there", Kind::Xgboost)).await;
    let said = |status: Status| (status.code(), status.message().to_owned());
    let absent = infer(&server, Kind::Xgboost, "absent").await.expect_err("it is not there");
    assert_eq!(said(absent), (Code::NotFound, format!("Model {} with version  not found", id("absent"))));
    let mut request = Kind::Xgboost.request(&id("there"));
    request.model_version = "7".to_owned();
    let version = grpc(server.grpc).await.model_infer(request).await.expect_err("there is no such version");
    assert_eq!(said(version), (Code::NotFound, format!("Model {} with version 7 not found", id("there"))));
    let request = ModelMetadataRequest { name: id("absent"), ..Default::default() };
    let metadata = grpc(server.grpc).await.model_metadata(request).await.expect_err("it is not there");
    assert_eq!(said(metadata), (Code::NotFound, format!("Model {} with version  not found", id("absent"))));
}

#[tokio::test]
async fn settings_that_make_no_sense_end_the_start_with_their_name() {
    let pod = Pod::new();
    std::fs::create_dir_all(pod.model_dir()).expect("a folder can be made");
    let mut config = pod.agent_config("127.0.0.1:1".parse().expect("an address"), settings());
    config.server =
        modelring_agent::ServerKind::MlServer(Settings { container_mem_req_bytes: Some(1 << 20), ..settings() });
    match Driven::start(config).await {
        Err(error @ Error::Setting { .. }) => {
            let text = error.to_string();
            assert!(text.starts_with("MEM_BUFFER_BYTES: 268435456 of the 1048576 bytes"), "{text}");
        }
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it started"),
    }
}

#[test]
fn the_variables_of_modelmeshs_adapters_are_read_and_bad_ones_end_the_start_with_their_name() {
    let pod = Pod::new();
    let said = |variables: &[(&str, &str)]| {
        let output = std::process::Command::new(binary())
            .args(["agent", "--listen=127.0.0.1:0", "--server=mlserver"])
            .arg(format!("--model-dir={}", pod.model_dir().display()))
            .env("CONTAINER_MEM_REQ_BYTES", "1073741824")
            .envs(variables.iter().copied())
            .output()
            .expect("the binary starts");
        assert!(!output.status.success(), "{variables:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    for name in [
        "CONTAINER_MEM_REQ_BYTES",
        "MEM_BUFFER_BYTES",
        "LOADING_CONCURRENCY",
        "LOADTIME_TIMEOUT",
        "DEFAULT_MODELSIZE",
        "MODELSIZE_MULTIPLIER",
        "LIMIT_PER_MODEL_CONCURRENCY",
        "RUNTIME_PORT",
    ] {
        let error = said(&[(name, "many")]);
        assert!(error.contains("invalid value 'many'") && error.contains(name), "{error}");
    }
    for (name, value) in
        [("CONTAINER_MEM_REQ_BYTES", "-1"), ("MODELSIZE_MULTIPLIER", "0"), ("LOADING_CONCURRENCY", "0")]
    {
        let error = said(&[(name, value)]);
        assert!(
            error.contains(&format!("{name}: must be")) && error.contains(&format!("found value {value}")),
            "{error}"
        );
    }
    let error = said(&[("MEM_BUFFER_BYTES", "2147483648")]);
    assert!(error.contains("MEM_BUFFER_BYTES: 2147483648 of the 1073741824 bytes"), "{error}");
}
