//! A strict scripted double of a model server behind `mmesh.ModelRuntime`. It is no model server: it does what the script
//! says, keeps the book on what it holds, and notes every call that breaks the contract.
//!
//! It runs on threads of its own, so that killing it ends its connections at once, as the end of a process does.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::Duration,
};

use modelring_proto::mmesh::{
    LoadModelRequest, LoadModelResponse, ModelSizeRequest, ModelSizeResponse, PredictModelSizeRequest,
    PredictModelSizeResponse, RuntimeStatusRequest, RuntimeStatusResponse, UnloadModelRequest, UnloadModelResponse,
    model_runtime_server::ModelRuntime, model_runtime_server::ModelRuntimeServer, runtime_status_response,
};
use parking_lot::Mutex;
use tokio::{
    net::{TcpListener, UnixListener},
    runtime::Runtime,
    sync::Notify,
};
use tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};
use tonic::{Request, Response, Status, transport::Server};

pub(crate) const MIB: u64 = 1 << 20;

/// What the double does.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    pub(crate) status: RuntimeStatusResponse,
    /// Looks at it that find it STARTING.
    pub(crate) starting: u32,
    /// Bytes that a load answers; 0 = ask modelSize.
    pub(crate) load_bytes: u64,
    pub(crate) max_concurrency: u32,
    pub(crate) model_size: Result<u64, Status>,
    pub(crate) predict: Result<u64, Status>,
    /// Loads that fail.
    pub(crate) load_errors: BTreeMap<String, Status>,
    /// Unloads that fail before one works.
    pub(crate) unload_errors: u32,
    /// Loads wait until they are let go.
    pub(crate) hold_loads: bool,
    /// Whether files must be there at a load.
    pub(crate) reads_files: bool,
}

/// What the double has seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Book {
    pub(crate) loaded: BTreeSet<String>,
    loading: BTreeSet<String>,
    pub(crate) loads: Vec<LoadModelRequest>,
    pub(crate) unloads: Vec<String>,
    pub(crate) predictions: Vec<PredictModelSizeRequest>,
    pub(crate) looks: u32,
    /// Calls that break the contract.
    pub(crate) wrong: Vec<String>,
}

#[derive(Clone)]
struct Double {
    script: Arc<Mutex<Script>>,
    book: Arc<Mutex<Book>>,
    go: Arc<Notify>,
}

/// A running double.
pub(crate) struct Scripted {
    pub(crate) addr: SocketAddr,
    double: Double,
    runtime: Option<Runtime>,
}

impl Default for Script {
    fn default() -> Self {
        let status = RuntimeStatusResponse {
            status: runtime_status_response::Status::Ready.into(),
            capacity_in_bytes: 100 * MIB,
            max_loading_concurrency: 2,
            model_loading_timeout_ms: 5_000,
            default_model_size_in_bytes: 10 * MIB,
            runtime_version: "scripted".to_owned(),
            ..Default::default()
        };
        Self {
            status,
            starting: 0,
            load_bytes: 10 * MIB,
            max_concurrency: 0,
            model_size: Err(Status::unimplemented("no modelSize")),
            predict: Ok(10 * MIB),
            load_errors: BTreeMap::new(),
            unload_errors: 0,
            hold_loads: false,
            reads_files: true,
        }
    }
}

// === impl Scripted ===

impl Scripted {
    pub(crate) fn start(script: Script) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), script, false)
    }

    /// A double whose service has the name of the oldest servers.
    pub(crate) fn start_older(script: Script) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), script, true)
    }

    pub(crate) fn start_at(addr: SocketAddr, script: Script, older: bool) -> Self {
        let double = Double { script: Arc::new(Mutex::new(script)), book: Arc::default(), go: Arc::default() };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (sender, bound) = std::sync::mpsc::channel();
        let served = double.clone();
        runtime.spawn(async move {
            let listener = TcpListener::bind(addr).await.unwrap();
            sender.send(listener.local_addr().unwrap()).unwrap();
            let incoming = TcpListenerStream::new(listener);
            let server = Server::builder();
            let service = ModelRuntimeServer::new(served);
            if older {
                server
                    .layer(tower::layer::layer_fn(Older))
                    .add_service(service)
                    .serve_with_incoming(incoming)
                    .await
                    .unwrap();
            } else {
                Server::builder().add_service(service).serve_with_incoming(incoming).await.unwrap();
            }
        });
        Self { addr: bound.recv().unwrap(), double, runtime: Some(runtime) }
    }

    /// A double that listens on a unix socket only.
    pub(crate) fn start_unix(path: &Path, script: Script) -> Self {
        let double = Double { script: Arc::new(Mutex::new(script)), book: Arc::default(), go: Arc::default() };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let service = ModelRuntimeServer::new(double.clone());
        let incoming = {
            let _inside = runtime.enter();
            UnixListenerStream::new(UnixListener::bind(path).unwrap())
        };
        runtime.spawn(Server::builder().add_service(service).serve_with_incoming(incoming));
        Self { addr: "127.0.0.1:0".parse().unwrap(), double, runtime: Some(runtime) }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.addr)
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Script)) {
        change(&mut self.double.script.lock());
    }

    pub(crate) fn book(&self) -> Book {
        self.double.book.lock().clone()
    }

    /// Lets all loads go that wait, and those to come.
    pub(crate) fn let_loads_go(&self) {
        self.double.script.lock().hold_loads = false;
        self.double.go.notify_waiters();
    }

    /// Ends it as the end of its process would, with all that it holds. Its sockets are closed when this returns.
    pub(crate) fn kill(&mut self) -> Book {
        if let Some(runtime) = self.runtime.take() {
            let ending = std::thread::spawn(move || runtime.shutdown_timeout(Duration::from_secs(5)));
            ending.join().unwrap();
        }
        self.book()
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        let book = self.kill();
        if !std::thread::panicking() {
            assert_eq!(book.wrong, Vec::<String>::new());
        }
    }
}

// === impl Double ===

impl Double {
    fn wrong(&self, what: String) -> Status {
        self.book.lock().wrong.push(what.clone());
        Status::failed_precondition(what)
    }
}

#[tonic::async_trait]
impl ModelRuntime for Double {
    async fn load_model(&self, request: Request<LoadModelRequest>) -> Result<Response<LoadModelResponse>, Status> {
        let request = request.into_inner();
        let id = request.model_id.clone();
        {
            let mut book = self.book.lock();
            let twice = book.loaded.contains(&id) || !book.loading.insert(id.clone());
            book.loads.push(request.clone());
            drop(book);
            if twice {
                return Err(self.wrong(format!("load of {id} while it is loaded or loading")));
            }
        }
        // Notified is made before the look, so that no letting go is missed.
        loop {
            let go = self.go.notified();
            if !self.script.lock().hold_loads {
                break;
            }
            go.await;
        }
        let script = self.script.lock().clone();
        self.book.lock().loading.remove(&id);
        if let Some(error) = script.load_errors.get(&id) {
            return Err(error.clone());
        }
        if script.reads_files && std::fs::metadata(&request.model_path).is_err() {
            return Err(self.wrong(format!("load of {id} whose files are not at {}", request.model_path)));
        }
        self.book.lock().loaded.insert(id);
        Ok(Response::new(LoadModelResponse {
            size_in_bytes: script.load_bytes,
            max_concurrency: script.max_concurrency,
        }))
    }

    async fn unload_model(
        &self,
        request: Request<UnloadModelRequest>,
    ) -> Result<Response<UnloadModelResponse>, Status> {
        let id = request.into_inner().model_id;
        if self.book.lock().loading.contains(&id) {
            return Err(self.wrong(format!("unload of {id} while it is loading")));
        }
        self.book.lock().unloads.push(id.clone());
        {
            let mut script = self.script.lock();
            if script.unload_errors > 0 {
                script.unload_errors -= 1;
                return Err(Status::internal("not now"));
            }
        }
        if self.book.lock().loaded.remove(&id) {
            Ok(Response::new(UnloadModelResponse {}))
        } else {
            Err(Status::not_found("not loaded"))
        }
    }

    async fn predict_model_size(
        &self,
        request: Request<PredictModelSizeRequest>,
    ) -> Result<Response<PredictModelSizeResponse>, Status> {
        self.book.lock().predictions.push(request.into_inner());
        let predicted = self.script.lock().predict.clone();
        predicted.map(|size_in_bytes| Response::new(PredictModelSizeResponse { size_in_bytes }))
    }

    async fn model_size(&self, request: Request<ModelSizeRequest>) -> Result<Response<ModelSizeResponse>, Status> {
        let id = request.into_inner().model_id;
        if !self.book.lock().loaded.contains(&id) {
            return Err(self.wrong(format!("modelSize of {id}, which is not loaded")));
        }
        let size = self.script.lock().model_size.clone();
        size.map(|size_in_bytes| Response::new(ModelSizeResponse { size_in_bytes }))
    }

    async fn runtime_status(
        &self,
        _request: Request<RuntimeStatusRequest>,
    ) -> Result<Response<RuntimeStatusResponse>, Status> {
        self.book.lock().looks += 1;
        let mut script = self.script.lock();
        if script.starting > 0 {
            script.starting -= 1;
            return Ok(Response::new(RuntimeStatusResponse::default()));
        }
        Ok(Response::new(script.status.clone()))
    }
}

/// Knows the service by its older name only.
#[derive(Clone)]
struct Older<S>(S);

impl<S, B> tower::Service<http::Request<B>> for Older<S>
where
    S: tower::Service<http::Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<B>) -> Self::Future {
        let path = request.uri().path().to_owned();
        let path = match path.strip_prefix("/com.ibm.watson.tas.internal.proto.ModelServer/") {
            Some(method) => format!("/mmesh.ModelRuntime/{method}"),
            None => "/no.Such/method".to_owned(),
        };
        *request.uri_mut() = path.parse().unwrap();
        self.0.call(request)
    }
}

/// Waits until something holds; fails after 10 s.
pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(10), waiting).await.is_ok(), "{what}");
}
