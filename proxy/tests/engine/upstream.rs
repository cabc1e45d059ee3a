//! A real KServe v2 server whose behaviour the caller asks for in field `id`.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use modelring_proto::inference::{
    ModelInferRequest, ModelInferResponse, ModelMetadataRequest, ModelMetadataResponse, ModelReadyRequest,
    ModelReadyResponse, ModelStreamInferResponse, RepositoryIndexRequest, RepositoryIndexResponse,
    RepositoryModelLoadRequest, RepositoryModelLoadResponse, RepositoryModelUnloadRequest,
    RepositoryModelUnloadResponse, ServerLiveRequest, ServerLiveResponse, ServerMetadataRequest,
    ServerMetadataResponse, ServerReadyRequest, ServerReadyResponse,
    grpc_inference_service_server::{GrpcInferenceService, GrpcInferenceServiceServer},
};
use parking_lot::Mutex;
use tokio::{net::TcpListener, sync::mpsc, task::JoinHandle};
use tokio_stream::{Stream, StreamExt, wrappers::ReceiverStream};
use tonic::{Code, Request, Response, Status, Streaming, codegen::http::HeaderMap, metadata::MetadataMap};

/// What the server saw.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Unary and stream calls begun.
    pub(crate) calls: AtomicUsize,
    /// Calls that were cancelled while they ran.
    pub(crate) cancelled: AtomicUsize,
    /// Calls that run at this moment.
    pub(crate) running: AtomicUsize,
    /// The model name of every message, in order.
    pub(crate) names: Mutex<Vec<String>>,
    /// The last headers.
    pub(crate) headers: Mutex<HeaderMap>,
}

/// A running server.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    pub(crate) seen: Arc<Seen>,
    task: JoinHandle<()>,
}

#[derive(Clone)]
struct Service(Arc<Seen>);

/// Notes a call that is dropped before it is done.
struct Running(Arc<Seen>, bool);

impl Upstream {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = listener.local_addr().expect("is bound");
        let seen = Arc::new(Seen::default());
        let service = GrpcInferenceServiceServer::new(Service(seen.clone()))
            .max_decoding_message_size(64 << 20)
            .max_encoding_message_size(64 << 20);
        let server = tonic::transport::Server::builder()
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(4 << 20)
            .add_service(service);
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        let task = tokio::spawn(async move { server.serve_with_incoming(incoming).await.expect("serves") });
        Self { address, seen, task }
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.seen.names.lock().clone()
    }

    /// Connections that are established, as the kernel counts them.
    pub(crate) fn connections(&self) -> usize {
        let table = std::fs::read_to_string("/proc/net/tcp").expect("the kernel tells");
        let port = format!(":{:04X}", self.address.port());
        let of_server = |line: &&str| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            fields.get(1).is_some_and(|local| local.ends_with(&port)) && fields.get(3) == Some(&"01")
        };
        table.lines().filter(of_server).count()
    }

    pub(crate) fn calls(&self) -> usize {
        self.seen.calls.load(Ordering::SeqCst)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Service {
    fn note(&self, metadata: &MetadataMap) -> Running {
        *self.0.headers.lock() = metadata.clone().into_headers();
        self.0.calls.fetch_add(1, Ordering::SeqCst);
        self.0.running.fetch_add(1, Ordering::SeqCst);
        Running(self.0.clone(), false)
    }
}

impl Running {
    fn finished(&mut self) {
        self.1 = true;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
        if !self.1 {
            self.0.cancelled.fetch_add(1, Ordering::SeqCst);
        }
    }
}

fn echo(request: ModelInferRequest) -> ModelInferResponse {
    ModelInferResponse {
        model_name: request.model_name,
        id: request.id,
        raw_output_contents: request.raw_input_contents,
        ..ModelInferResponse::default()
    }
}

#[tonic::async_trait]
impl GrpcInferenceService for Service {
    type ModelStreamInferStream = Pin<Box<dyn Stream<Item = Result<ModelStreamInferResponse, Status>> + Send>>;

    async fn server_live(&self, _: Request<ServerLiveRequest>) -> Result<Response<ServerLiveResponse>, Status> {
        Ok(Response::new(ServerLiveResponse { live: true }))
    }

    async fn server_ready(&self, _: Request<ServerReadyRequest>) -> Result<Response<ServerReadyResponse>, Status> {
        Ok(Response::new(ServerReadyResponse { ready: true }))
    }

    async fn model_ready(&self, _: Request<ModelReadyRequest>) -> Result<Response<ModelReadyResponse>, Status> {
        Ok(Response::new(ModelReadyResponse { ready: true }))
    }

    async fn server_metadata(
        &self,
        _: Request<ServerMetadataRequest>,
    ) -> Result<Response<ServerMetadataResponse>, Status> {
        Ok(Response::new(ServerMetadataResponse::default()))
    }

    async fn model_metadata(
        &self,
        request: Request<ModelMetadataRequest>,
    ) -> Result<Response<ModelMetadataResponse>, Status> {
        let name = request.into_inner().name;
        Ok(Response::new(ModelMetadataResponse { name, ..ModelMetadataResponse::default() }))
    }

    async fn model_infer(&self, request: Request<ModelInferRequest>) -> Result<Response<ModelInferResponse>, Status> {
        let mut running = self.note(request.metadata());
        let call = self.0.calls.load(Ordering::SeqCst);
        let request = request.into_inner();
        self.0.names.lock().push(request.model_name.clone());
        match request.id.as_str() {
            "wait" => std::future::pending().await,
            "unavailable" | "unavailable first" if request.id == "unavailable" || call == 1 => {
                running.finished();
                return Err(Status::unavailable("not now"));
            }
            "refused" => {
                running.finished();
                let mut status = Status::new(Code::InvalidArgument, "größer als 100 %\n");
                status.metadata_mut().insert("x-detail", "kept".parse().expect("ascii"));
                return Err(status);
            }
            _ => {}
        }
        running.finished();
        let large = request.id == "large";
        let mut response = Response::new(echo(request));
        if large {
            response.get_mut().raw_output_contents = vec![vec![7; 17 << 20].into()];
        }
        response.metadata_mut().insert("x-server", "was here".parse().expect("ascii"));
        Ok(response)
    }

    async fn model_stream_infer(
        &self,
        request: Request<Streaming<ModelInferRequest>>,
    ) -> Result<Response<Self::ModelStreamInferStream>, Status> {
        let mut running = self.note(request.metadata());
        let mut requests = request.into_inner();
        let (answers, stream) = mpsc::channel(1);
        let seen = self.0.clone();
        tokio::spawn(async move {
            while let Some(request) = requests.next().await {
                let Ok(request) = request else { return };
                seen.names.lock().push(request.model_name.clone());
                let copies = request.id.strip_prefix("copies ").map_or(1, |n| n.parse::<usize>().expect("a number"));
                for _ in 0..copies {
                    let infer_response = Some(echo(request.clone()));
                    let answer = ModelStreamInferResponse { error_message: String::new(), infer_response };
                    if answers.send(Ok(answer)).await.is_err() {
                        return;
                    }
                }
            }
            running.finished();
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn repository_index(
        &self,
        _: Request<RepositoryIndexRequest>,
    ) -> Result<Response<RepositoryIndexResponse>, Status> {
        Err(Status::unimplemented("no repository"))
    }

    async fn repository_model_load(
        &self,
        _: Request<RepositoryModelLoadRequest>,
    ) -> Result<Response<RepositoryModelLoadResponse>, Status> {
        Err(Status::unimplemented("no repository"))
    }

    async fn repository_model_unload(
        &self,
        _: Request<RepositoryModelUnloadRequest>,
    ) -> Result<Response<RepositoryModelUnloadResponse>, Status> {
        Err(Status::unimplemented("no repository"))
    }
}

/// The service itself, to be served in the process.
pub(crate) fn service() -> impl GrpcInferenceService {
    Service(Arc::default())
}

/// A byte copy to `address` that ends, with all its connections, when its task is aborted.
pub(crate) async fn cutting(address: SocketAddr) -> (JoinHandle<()>, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let here = listener.local_addr().expect("is bound");
    let task = tokio::spawn(async move {
        let mut copies = tokio::task::JoinSet::new();
        loop {
            let (mut near, _) = listener.accept().await.expect("accepts");
            copies.spawn(async move {
                let mut far = tokio::net::TcpStream::connect(address).await.expect("connects");
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            });
        }
    });
    (task, here)
}
