//! A model server with a gRPC service of its own, which nobody but it knows, behind the whole mesh: its agent drives it by
//! `mmesh.ModelRuntime`, callers reach it by the dataplane configuration, by headers, and by what it says of its methods.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use harness::Folder;
use modelring_agent::Agent;
use modelring_control::{Control, dataplane, source::InstanceSpec};
use modelring_placement::pod::EvictionPolicy;
use modelring_proto::mmesh::{
    LoadModelRequest, LoadModelResponse, ModelSizeRequest, ModelSizeResponse, PredictModelSizeRequest,
    PredictModelSizeResponse, RuntimeStatusRequest, RuntimeStatusResponse, UnloadModelRequest, UnloadModelResponse,
    model_runtime_server::{ModelRuntime, ModelRuntimeServer},
    runtime_status_response::{MethodInfo, Status as Is},
};
use modelring_proxy::{config::AccessLog, start::Proxy};
use tokio::{net::TcpListener, task::JoinHandle};
use tonic::{
    Code, Request, Response, Status,
    codegen::{Body, BoxFuture, Context, Poll, Service, StdError, http},
    metadata::MetadataMap,
    server::NamedService,
    transport::{Channel, server::TcpIncoming},
};
use tonic_prost::ProstCodec;

const FREE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// The service: `acme.Text/Repeat` says the text as often as the model has been told to.
#[derive(Clone, PartialEq, prost::Message)]
struct ModelSpec {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    signature: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Text {
    #[prost(message, optional, tag = "1")]
    model: Option<ModelSpec>,
    #[prost(string, tag = "2")]
    text: String,
}

/// A model server that holds a number for each model.
#[derive(Clone, Default)]
struct Acme(Arc<Mutex<Held>>);

#[derive(Default)]
struct Held {
    models: BTreeMap<String, usize>,
    loads: usize,
    /// The request of the last call, and its headers.
    last: (Text, MetadataMap),
}

// === impl Acme ===

impl Acme {
    fn held(&self) -> std::sync::MutexGuard<'_, Held> {
        self.0.lock().expect("no test has panicked in it")
    }

    fn answer(&self, method: &str, request: Request<Text>) -> Result<Response<Text>, Status> {
        let (headers, _, text) = request.into_parts();
        let mut held = self.held();
        held.last = (text.clone(), headers.clone());
        let by_header = headers.get("mm-model-id").and_then(|id| id.to_str().ok()).unwrap_or_default();
        let id = match method {
            "/acme.Text/Repeat" => text.model.as_ref().map_or("", |model| model.name.as_str()),
            "/acme.Text/ByHeader" => by_header,
            other => return Err(Status::unimplemented(format!("no method {other}"))),
        };
        let times = *held.models.get(id).ok_or_else(|| Status::not_found(format!("no model {id}")))?;
        Ok(Response::new(Text { text: text.text.repeat(times), ..text }))
    }
}

impl NamedService for Acme {
    const NAME: &'static str = "acme.Text";
}

struct Method(Acme, String);

impl tonic::server::UnaryService<Text> for Method {
    type Response = Text;
    type Future = BoxFuture<Response<Text>, Status>;

    fn call(&mut self, request: Request<Text>) -> Self::Future {
        let answer = self.0.answer(&self.1, request);
        Box::pin(async { answer })
    }
}

impl<B> Service<http::Request<B>> for Acme
where
    B: Body + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let method = Method(self.clone(), request.uri().path().to_owned());
        Box::pin(async move { Ok(tonic::server::Grpc::new(ProstCodec::default()).unary(method, request).await) })
    }
}

#[tonic::async_trait]
impl ModelRuntime for Acme {
    async fn load_model(&self, request: Request<LoadModelRequest>) -> Result<Response<LoadModelResponse>, Status> {
        let LoadModelRequest { model_id, model_path, .. } = request.into_inner();
        let text = std::fs::read_to_string(&model_path).map_err(|error| Status::not_found(error.to_string()))?;
        let times = text.trim().parse().map_err(|_| Status::invalid_argument(format!("`{text}` is no number")))?;
        let mut held = self.held();
        held.loads += 1;
        held.models.insert(model_id, times);
        Ok(Response::new(LoadModelResponse { size_in_bytes: 1 << 20, max_concurrency: 0 }))
    }

    async fn unload_model(
        &self,
        request: Request<UnloadModelRequest>,
    ) -> Result<Response<UnloadModelResponse>, Status> {
        self.held().models.remove(&request.into_inner().model_id);
        Ok(Response::new(UnloadModelResponse {}))
    }

    async fn predict_model_size(
        &self,
        _: Request<PredictModelSizeRequest>,
    ) -> Result<Response<PredictModelSizeResponse>, Status> {
        Err(Status::unimplemented("it cannot tell"))
    }

    async fn model_size(&self, _: Request<ModelSizeRequest>) -> Result<Response<ModelSizeResponse>, Status> {
        Err(Status::unimplemented("a load says it"))
    }

    async fn runtime_status(
        &self,
        _: Request<RuntimeStatusRequest>,
    ) -> Result<Response<RuntimeStatusResponse>, Status> {
        self.held().models.clear();
        let info = |path: &[u32]| MethodInfo { id_injection_path: path.to_vec() };
        Ok(Response::new(RuntimeStatusResponse {
            status: Is::Ready.into(),
            capacity_in_bytes: 64 << 20,
            max_loading_concurrency: 2,
            model_loading_timeout_ms: 10_000,
            default_model_size_in_bytes: 1 << 20,
            method_infos: [
                ("acme.Text/Repeat".to_owned(), info(&[1, 1])),
                ("acme.Text/ByHeader".to_owned(), info(&[])),
            ]
            .into(),
            ..RuntimeStatusResponse::default()
        }))
    }
}

/// The whole mesh around it.
struct Mesh {
    acme: Acme,
    channel: Channel,
    server: JoinHandle<Result<(), tonic::transport::Error>>,
    agent: modelring_agent::Running,
    control: modelring_control::Running,
    proxy: modelring_proxy::start::Running,
    _folder: Folder,
}

const RUNTIME: &str = "
apiVersion: serving.kserve.io/v1alpha1
kind: ServingRuntime
metadata:
  name: acme
spec:
  multiModel: true
  supportedModelFormats:
    - name: repeater
      autoSelect: true
  containers: []
  grpcEndpoint: \"port:8085\"
  grpcDataEndpoint: \"port:8085\"
";

const DATAPLANE: &str = r#"{
  "rpcConfigs": {"acme.Text/Repeat": {"idExtractionPath": [1, 1], "vModelId": true}},
  "allowOtherRpcs": true
}"#;

impl Mesh {
    async fn start() -> Self {
        let folder = Folder::with_storage();
        folder.write("acme.yaml", RUNTIME);
        folder.write("models/thrice.txt", "3");
        folder.write("thrice.yaml", Folder::isvc("thrice", "thrice.txt").replace("onnx", "repeater"));

        let acme = Acme::default();
        let listener = TcpListener::bind(FREE).await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let serving = tonic::transport::Server::builder()
            .add_service(ModelRuntimeServer::new(acme.clone()))
            .add_service(acme.clone())
            .serve_with_incoming(TcpIncoming::from(listener));
        let server = tokio::spawn(serving);

        let state = folder.path().join(".modelring");
        let agent = Agent::start(modelring_agent::Config {
            listen: FREE,
            instance: None,
            pod_uid: None,
            namespace: "default".to_owned(),
            runtime: "acme".to_owned(),
            model_dir: state.join("models"),
            storage_config: Some(state.join("storage-config")),
            local_root: Some(folder.path().to_owned()),
            disk_limit: None,
            management: format!("http://{address}"),
            server: modelring_agent::ServerKind::Custom,
            tls: None,
            data: address.to_string(),
            data_direct: None,
            relay: None,
            min_churn_age: None,
            eviction: EvictionPolicy::Gdsf,
            drain_timeout: Duration::from_secs(30),
        })
        .await
        .expect("the agent starts");
        let own = InstanceSpec { runtime: "acme".to_owned(), ..InstanceSpec::default() };
        let control = Control::start(modelring_control::config::Config {
            dir: folder.path().to_owned(),
            listen: FREE,
            namespace: "default".to_owned(),
            instances: vec![(agent.addr.to_string(), own)],
            built_in_runtimes: Vec::new(),
            dataplane: dataplane::Source::Literal(DATAPLANE.to_owned()),
            tls: None,
        })
        .await
        .expect("control starts");
        let proxy = Proxy::start(modelring_proxy::config::Config {
            grpc: FREE,
            rest: FREE,
            control: format!("http://{}", control.addr()),
            namespace: "default".to_owned(),
            threads: 1,
            memory_budget: 64 << 20,
            drain_delay: Duration::ZERO,
            access_log: AccessLog::Off,
            metrics: Default::default(),
            state_dir: None,
            limits: Default::default(),
            tls: None,
        })
        .expect("the proxy starts");
        let mut ready = proxy.watch_ready();
        tokio::time::timeout(Duration::from_secs(30), ready.wait_for(|ready| *ready))
            .await
            .expect("the proxy is ready in time")
            .expect("the proxy runs");
        let endpoint = Channel::from_shared(format!("http://{}", proxy.grpc_addr)).expect("an address");
        let channel = endpoint.connect().await.expect("a connection");
        Self { acme, channel, server, agent, control, proxy, _folder: folder }
    }

    async fn call(&self, method: &str, headers: &[(&'static str, &str)], text: Text) -> Result<Response<Text>, Status> {
        let mut grpc = tonic::client::Grpc::new(self.channel.clone());
        grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let mut request = Request::new(text);
        request.set_timeout(Duration::from_secs(30));
        for (name, value) in headers {
            request.metadata_mut().insert(*name, value.parse().expect("ascii"));
        }
        let path = http::uri::PathAndQuery::try_from(format!("/{method}")).expect("a path");
        grpc.unary(request, path, ProstCodec::<Text, Text>::default()).await
    }

    async fn stop(self) {
        self.proxy.shutdown(Duration::from_secs(5)).await;
        self.control.shutdown().await;
        self.agent.shutdown(Duration::ZERO).await;
        self.server.abort();
    }
}

fn text(name: &str, text: &str) -> Text {
    let signature = "kept".to_owned();
    Text { model: Some(ModelSpec { name: name.to_owned(), signature }), text: text.to_owned() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_of_ones_own_is_routed_by_its_message_by_headers_and_only_where_it_is_listed() {
    let mesh = Mesh::start().await;

    // By the name in the message; the first call has the model loaded.
    let answer = mesh.call("acme.Text/Repeat", &[], text("thrice", "ho")).await.expect("it is loaded and answers");
    let id = answer.metadata().get("mm-model-id").expect("the id").to_str().expect("an id is text").to_owned();
    assert!(id.starts_with("thrice__isvc-"), "{id}");
    assert_eq!(answer.into_inner().text, "hohoho");
    let (read, _) = mesh.acme.held().last.clone();
    assert_eq!(read, text(&id, "ho"), "the server reads the id, and all else as it was sent");

    // By header: nothing is put into the message.
    let sent = Text { model: None, text: "ha".to_owned() };
    for header in [("mm-vmodel-id", "thrice"), ("mm-model-id", &*id)] {
        let answer = mesh.call("acme.Text/ByHeader", &[header], sent.clone()).await.expect("an answer");
        assert_eq!(answer.into_inner().text, "hahaha");
        let (read, headers) = mesh.acme.held().last.clone();
        assert_eq!((read, headers.get("mm-model-id").expect("the id").to_str().expect("text")), (sent.clone(), &*id));
    }
    let unnamed = mesh.call("acme.Text/ByHeader", &[], sent.clone()).await.expect_err("it names no model");
    assert_eq!((unnamed.code(), unnamed.message()), (Code::InvalidArgument, "must include mm-model-id header"));

    // What the server does not list, and what manages it, never gets there.
    for method in ["acme.Text/Other", "mmesh.ModelRuntime/unloadModel"] {
        let refused =
            mesh.call(method, &[("mm-vmodel-id", "thrice")], sent.clone()).await.expect_err("it is not offered");
        let expected = format!("Method not found or not permitted: {method}");
        assert_eq!((refused.code(), refused.message()), (Code::Unimplemented, &*expected));
    }
    assert_eq!(mesh.acme.held().loads, 1);
    mesh.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_has_lost_a_model_gets_it_again_and_the_caller_its_answer() {
    let mesh = Mesh::start().await;
    mesh.call("acme.Text/Repeat", &[], text("thrice", "ho")).await.expect("an answer");
    mesh.acme.held().models.clear();
    let answer = mesh.call("acme.Text/Repeat", &[], text("thrice", "hi")).await.expect("it is loaded again");
    assert_eq!(answer.into_inner().text, "hihihi");
    assert_eq!(mesh.acme.held().loads, 2);
    mesh.stop().await;
}
