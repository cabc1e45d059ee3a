//! `mmesh.ModelRuntime` as an agent meets it.

use std::{fs, path::Path};

use modelring_proto::{
    inference::RepositoryIndexRequest,
    mmesh::{
        ModelSizeRequest, PredictModelSizeRequest, RuntimeStatusRequest, RuntimeStatusResponse,
        runtime_status_response::Status as RuntimeState,
    },
};
use tonic::{Code, Status};

use crate::common::{Server, With, config, path, request};

async fn predict(server: &Server, path: &Path, key: &str) -> Result<u64, Status> {
    let asked = PredictModelSizeRequest {
        model_id: "m".to_owned(),
        model_path: path.display().to_string(),
        model_key: key.to_owned(),
        ..PredictModelSizeRequest::default()
    };
    Ok(server.management.clone().predict_model_size(asked).await?.into_inner().size_in_bytes)
}

async fn status(server: &Server) -> RuntimeStatusResponse {
    server.management.clone().runtime_status(RuntimeStatusRequest {}).await.unwrap().into_inner()
}

#[tokio::test]
async fn models_come_and_go_and_an_unload_of_none_is_fine() {
    let server = Server::start().await;
    let call = || request("affine").fp32("x", &[1, 3], &[1.0, 0.0, 0.0]);
    server.unload("affine").await.unwrap();
    for _ in 0..3 {
        let loaded = server.load("affine").await;
        assert!(loaded.size_in_bytes > 0);
        assert_eq!(loaded.max_concurrency, 0, "no limit");
        assert_eq!(server.infer(call()).await.unwrap().outputs[0].shape, [1, 2]);
        server.unload("affine").await.unwrap();
        assert_eq!(server.infer(call()).await.unwrap_err().code(), Code::NotFound);
        server.unload("affine").await.unwrap();
    }
}

#[tokio::test]
async fn many_models_are_held_at_once() {
    let server = Server::start().await;
    for n in 0..40 {
        server.try_load(&format!("mnist-{n}"), path("mnist.onnx")).await.unwrap();
    }
    for n in (0..40).rev() {
        let call = request(&format!("mnist-{n}")).fp32("Input3", &[1, 1, 28, 28], &[0.0; 784]);
        assert_eq!(server.infer(call).await.unwrap().outputs[0].shape, [1, 10]);
    }
}

#[tokio::test]
async fn a_loaded_model_is_answered_as_it_is_unless_the_path_is_another() {
    let server = Server::start().await;
    let first = server.load("affine").await;
    assert_eq!(server.load("affine").await, first);
    let error = server.try_load("affine", path("mnist.onnx")).await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition);
    assert!(error.message().starts_with("model 'affine' is already loaded from "), "{error}");
}

#[tokio::test]
async fn a_path_may_be_a_folder_with_one_model() {
    let server = Server::start().await;
    let folder = tempfile::tempdir().unwrap();
    let version = folder.path().join("1");
    fs::create_dir(&version).unwrap();
    fs::write(version.join("notes.txt"), "not a model").unwrap();
    let empty = server.try_load("none", folder.path().to_owned()).await.unwrap_err();
    assert_eq!(empty.code(), Code::FailedPrecondition);
    assert!(empty.message().ends_with("the folder has no .onnx file"), "{empty}");
    fs::copy(path("affine.onnx"), version.join("model.onnx")).unwrap();
    server.try_load("one", folder.path().to_owned()).await.unwrap();
    fs::copy(path("affine.onnx"), folder.path().join("model.onnx")).unwrap();
    let two = server.try_load("two", folder.path().to_owned()).await.unwrap_err();
    assert!(two.message().ends_with("the folder has 2 .onnx files, one is needed"), "{two}");
}

#[tokio::test]
async fn a_file_that_cannot_be_served_says_why() {
    let server = Server::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        path
    };
    for (path, code, text) in [
        (folder.path().join("gone.onnx"), Code::FailedPrecondition, "No such file"),
        (file("text.onnx", b"this is no model"), Code::InvalidArgument, "'text.onnx' is no ONNX model"),
        (file("empty.onnx", b""), Code::InvalidArgument, "'empty.onnx' is no ONNX model: it has no graph"),
        (path("truncated.onnx"), Code::InvalidArgument, "'truncated.onnx' is no ONNX model"),
        (
            path("unsupported.onnx"),
            Code::InvalidArgument,
            "the model needs operators that this server cannot run: Det, Unique",
        ),
        // An operator that is known, used in a way that is not.
        (path("reshape.onnx"), Code::InvalidArgument, "Reshape"),
    ] {
        let error = server.try_load("m", path).await.unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert!(error.message().contains(text), "{error}");
        assert_eq!(server.infer(request("m")).await.unwrap_err().code(), Code::NotFound, "nothing was loaded");
    }
    server.try_load("m", path("affine.onnx")).await.unwrap();
}

#[tokio::test]
async fn sizes_are_told_before_and_after_a_load() {
    let server = Server::start().await;
    let loaded = server.load("mnist").await.size_in_bytes;
    // 5,998 weights of 4 bytes, and what else it takes.
    assert!((24_000..1_000_000).contains(&loaded), "{loaded}");
    let asked = |id: &str| ModelSizeRequest { model_id: id.to_owned() };
    let told = server.management.clone().model_size(asked("mnist")).await.unwrap().into_inner().size_in_bytes;
    assert_eq!(told, loaded);
    assert_eq!(server.management.clone().model_size(asked("nope")).await.unwrap_err().code(), Code::NotFound);
    let predicted = predict(&server, &path("mnist.onnx"), "{}").await.unwrap();
    assert!((loaded / 2..loaded * 4).contains(&predicted), "{predicted} for {loaded}");
    // Before the files are there, the key says how large they will be.
    let absent = Path::new("/nonexistent/m");
    assert_eq!(predict(&server, absent, r#"{"disk_size_bytes": 26454}"#).await.unwrap(), predicted);
    for key in ["", "{}", r#"{"disk_size_bytes": 0}"#, r#"{"disk_size_bytes": "many"}"#] {
        assert_eq!(predict(&server, absent, key).await.unwrap_err().code(), Code::FailedPrecondition, "{key}");
    }
}

#[tokio::test]
async fn weights_count_wherever_an_operator_keeps_them() {
    let server = Server::start().await;
    let weights = 256 * 256 * 4;
    let loaded = server.load("heavy").await.size_in_bytes;
    assert!((weights..weights + 100_000).contains(&loaded), "{loaded}");
}

#[tokio::test]
async fn weights_may_be_in_a_file_beside_the_model() {
    let server = Server::start().await;
    let folder = path("external");
    let loaded = server.try_load("affine", folder.clone()).await.unwrap();
    assert_eq!(loaded, server.try_load("whole", path("affine.onnx")).await.unwrap());
    let answer = server.infer(request("affine").fp32("x", &[1, 3], &[1.0; 3])).await.unwrap();
    assert_eq!(answer.outputs[0].contents.as_ref().unwrap().fp32_contents, [9.5, 11.5]);
    // Without that file it says which one it misses.
    let alone = tempfile::tempdir().unwrap();
    fs::copy(folder.join("model.onnx"), alone.path().join("model.onnx")).unwrap();
    let error = server.try_load("alone", alone.path().to_owned()).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert!(error.message().contains("weights.bin"), "{error}");
}

#[tokio::test]
async fn the_status_tells_the_limits_and_the_methods() {
    let server = Server::start().await;
    let told = status(&server).await;
    let config = config();
    assert_eq!(told.status(), RuntimeState::Ready);
    assert_eq!(told.capacity_in_bytes, config.capacity);
    assert!(told.runtime_version.starts_with("modelring"), "agents know the form of our stream by this");
    assert_eq!(told.max_loading_concurrency as usize, config.loading_concurrency);
    assert_eq!(u128::from(told.model_loading_timeout_ms), config.load_timeout.as_millis());
    assert_eq!(told.default_model_size_in_bytes, 1_000_000);
    assert!(!told.allow_any_method && !told.limit_model_concurrency);
    let mut methods: Vec<_> =
        told.method_infos.iter().map(|(name, of)| (name.as_str(), of.id_injection_path.clone())).collect();
    methods.sort();
    assert_eq!(
        methods,
        [
            ("inference.GRPCInferenceService/ModelInfer", vec![1]),
            ("inference.GRPCInferenceService/ModelMetadata", vec![1]),
            ("inference.GRPCInferenceService/ModelReady", vec![1]),
            ("inference.GRPCInferenceService/ModelStreamInfer", vec![1]),
        ]
    );
}

#[tokio::test]
async fn ready_is_said_of_an_empty_server_only() {
    let server = Server::start().await;
    server.load("affine").await;
    server.load("mnist").await;
    assert_eq!(status(&server).await.status(), RuntimeState::Ready);
    let index =
        server.inference.clone().repository_index(RepositoryIndexRequest::default()).await.unwrap().into_inner();
    assert_eq!(index.models, []);
    server.load("affine").await;
}

#[tokio::test]
async fn an_empty_id_is_refused() {
    let server = Server::start().await;
    let error = server.try_load("", path("affine.onnx")).await.unwrap_err();
    assert_eq!((error.code(), error.message()), (Code::InvalidArgument, "modelId is empty"));
}
