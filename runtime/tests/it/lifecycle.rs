//! Loads, calls and unloads that meet each other. The loader of these tests runs the real ONNX loader, notes what is
//! called, and can be held at each step.

use std::{
    path::PathBuf,
    sync::{Arc, mpsc},
    time::Duration,
};

use modelring_proto::mmesh::{LoadModelRequest, RuntimeStatusRequest, runtime_status_response::Status as RuntimeState};
use modelring_runtime::{Config, Loader, ModelFiles, OnnxLoader, Result, Servable, Signature, Tensor};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};
use tonic::Code;

use crate::common::{Server, With, config, path, request};

/// What happened, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Event {
    LoadBegan(String),
    LoadDone(String),
    InferBegan(String),
    InferDone(String),
    Unloading(String),
    Dropped(String),
}

#[derive(Clone)]
struct Watched {
    events: Arc<watch::Sender<Vec<Event>>>,
    /// A load, or a call, takes a permit of its gate before it goes on.
    loads: Gate,
    calls: Gate,
}

struct WatchedModel {
    id: String,
    inner: Box<dyn Servable>,
    watched: Watched,
}

/// Open, or letting one pass at a time.
#[derive(Clone)]
struct Gate(Option<Shut>);

#[derive(Clone)]
struct Shut {
    key: mpsc::Sender<()>,
    lock: Arc<Mutex<mpsc::Receiver<()>>>,
}

impl Gate {
    fn open() -> Self {
        Self(None)
    }

    fn shut() -> Self {
        let (key, lock) = mpsc::channel();
        Self(Some(Shut { key, lock: Arc::new(Mutex::new(lock)) }))
    }

    fn let_pass(&self) {
        self.0.as_ref().unwrap().key.send(()).unwrap();
    }

    fn pass(&self) {
        if let Some(shut) = &self.0 {
            shut.lock.lock().recv().unwrap();
        }
    }
}

impl Watched {
    fn new(loads: Gate, calls: Gate) -> Self {
        Self { events: Arc::new(watch::Sender::new(vec![])), loads, calls }
    }

    fn note(&self, event: Event) {
        self.events.send_modify(|events| events.push(event));
    }

    fn events(&self) -> Vec<Event> {
        self.events.borrow().clone()
    }

    /// Waits until the event has happened `times` times.
    async fn happened(&self, event: &Event, times: usize) {
        let mut events = self.events.subscribe();
        let enough = |events: &Vec<Event>| events.iter().filter(|one| *one == event).count() >= times;
        tokio::time::timeout(Duration::from_secs(30), events.wait_for(enough)).await.unwrap().unwrap();
    }
}

impl Loader for Watched {
    fn load(&self, files: &ModelFiles) -> Result<Box<dyn Servable>> {
        self.note(Event::LoadBegan(files.id.clone()));
        self.loads.pass();
        assert!(files.id != "bad", "this loader cannot");
        let inner = OnnxLoader.load(files)?;
        self.note(Event::LoadDone(files.id.clone()));
        Ok(Box::new(WatchedModel { id: files.id.clone(), inner, watched: self.clone() }))
    }

    fn predict(&self, files: &ModelFiles) -> Result<u64> {
        OnnxLoader.predict(files)
    }

    fn unloading(&self, id: &str) {
        self.note(Event::Unloading(id.to_owned()));
    }
}

impl Servable for WatchedModel {
    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn size(&self) -> u64 {
        self.inner.size() + 1000
    }

    fn max_concurrency(&self) -> u32 {
        3
    }

    fn infer(&self, inputs: Vec<Tensor>) -> Result<Vec<Tensor>> {
        self.watched.note(Event::InferBegan(self.id.clone()));
        self.watched.calls.pass();
        let first = inputs[0].data[..4].try_into().unwrap();
        assert!(f32::from_le_bytes(first) >= 0.0, "a negative number");
        let outputs = self.inner.infer(inputs);
        self.watched.note(Event::InferDone(self.id.clone()));
        outputs
    }
}

impl Drop for WatchedModel {
    fn drop(&mut self) {
        self.watched.note(Event::Dropped(self.id.clone()));
    }
}

async fn server(watched: &Watched, config: Config) -> Arc<Server> {
    Arc::new(Server::start_with(config, Arc::new(watched.clone())).await)
}

/// A call of the affine model, whose first answer is `value` + 0.5.
fn call(id: &str, value: f32) -> modelring_proto::inference::ModelInferRequest {
    request(id).fp32("x", &[1, 3], &[value, 0.0, 0.0])
}

fn affine() -> PathBuf {
    path("affine.onnx")
}

#[tokio::test]
async fn an_unload_answers_when_the_calls_before_it_are_done_and_admits_none_after_it() {
    let watched = Watched::new(Gate::open(), Gate::shut());
    let server = server(&watched, config()).await;
    let loaded = server.try_load("m", affine()).await.unwrap();
    assert_eq!(loaded.max_concurrency, 3, "as the loader says");
    let running = tokio::spawn({
        let server = Arc::clone(&server);
        async move { server.infer(call("m", 1.0)).await }
    });
    watched.happened(&Event::InferBegan("m".to_owned()), 1).await;
    let unloading = Event::Unloading("m".to_owned());
    let mut unload = Box::pin(server.unload("m"));
    tokio::select! {
        _ = &mut unload => panic!("unloaded under a running call"),
        () = watched.happened(&unloading, 1) => {}
    }
    assert_eq!(server.infer(call("m", 1.0)).await.unwrap_err().code(), Code::NotFound);
    watched.calls.let_pass();
    assert_eq!(running.await.unwrap().unwrap().outputs.len(), 1);
    unload.await.unwrap();
    let id = || "m".to_owned();
    assert_eq!(
        watched.events(),
        [
            Event::LoadBegan(id()),
            Event::LoadDone(id()),
            Event::InferBegan(id()),
            Event::Unloading(id()),
            Event::InferDone(id()),
            Event::Dropped(id())
        ]
    );
}

#[tokio::test]
async fn a_load_whose_caller_went_away_is_finished_and_the_unload_after_it_takes_it_away() {
    let watched = Watched::new(Gate::shut(), Gate::open());
    let server = server(&watched, config()).await;
    let load = tokio::spawn({
        let server = Arc::clone(&server);
        async move { server.try_load("m", affine()).await }
    });
    watched.happened(&Event::LoadBegan("m".to_owned()), 1).await;
    load.abort();
    let unload = tokio::spawn({
        let server = Arc::clone(&server);
        async move { server.unload("m").await }
    });
    watched.happened(&Event::Unloading("m".to_owned()), 1).await;
    watched.loads.let_pass();
    unload.await.unwrap().unwrap();
    assert_eq!(watched.events().last(), Some(&Event::Dropped("m".to_owned())));
    assert_eq!(server.infer(call("m", 1.0)).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn one_id_is_loaded_once_for_all_who_ask_and_others_wait_for_a_slot() {
    let watched = Watched::new(Gate::shut(), Gate::open());
    let server = server(&watched, Config { loading_concurrency: 2, ..config() }).await;
    let mut loads = tokio::task::JoinSet::new();
    for id in ["a", "a", "a", "b", "c"] {
        let server = Arc::clone(&server);
        loads.spawn(async move { server.try_load(id, affine()).await });
    }
    let began =
        |watched: &Watched| watched.events().iter().filter(|event| matches!(event, Event::LoadBegan(_))).count();
    for done in 0..3 {
        let mut events = watched.events.subscribe();
        let expected = (done + 2).min(3);
        events.wait_for(|_| began(&watched) >= expected).await.unwrap();
        assert_eq!(began(&watched), expected, "two at once");
        watched.loads.let_pass();
        let dones = |events: &Vec<Event>| events.iter().filter(|event| matches!(event, Event::LoadDone(_))).count();
        events.wait_for(|events| dones(events) > done).await.unwrap();
    }
    while let Some(load) = loads.join_next().await {
        load.unwrap().unwrap();
    }
    assert_eq!(began(&watched), 3, "one load for each id");
}

#[tokio::test]
async fn while_a_model_is_still_being_loaded_the_server_is_not_ready_and_the_purge_takes_it() {
    let watched = Watched::new(Gate::shut(), Gate::open());
    let server = server(&watched, Config { loading_concurrency: 1, ..config() }).await;
    let load = |id: &'static str| {
        let server = Arc::clone(&server);
        tokio::spawn(async move { server.try_load(id, affine()).await })
    };
    let first = load("first");
    watched.happened(&Event::LoadBegan("first".to_owned()), 1).await;
    let waits = load("waits");
    let status =
        || async { server.management.clone().runtime_status(RuntimeStatusRequest {}).await.unwrap().into_inner() };
    // The load was sent while the first of these calls was under way, so it has arrived before the second.
    for _ in 0..2 {
        assert_eq!(server.infer(request("first")).await.unwrap_err().code(), Code::NotFound);
    }
    assert_eq!(status().await.status(), RuntimeState::Starting);
    watched.loads.let_pass();
    first.await.unwrap().unwrap();
    // What waited for its slot is refused, not loaded after the purge.
    assert_eq!(waits.await.unwrap().unwrap_err().code(), Code::Aborted);
    assert_eq!(status().await.status(), RuntimeState::Ready);
    assert!(watched.events().contains(&Event::Dropped("first".to_owned())));
    assert!(!watched.events().contains(&Event::LoadBegan("waits".to_owned())));
}

#[tokio::test]
async fn a_panic_fails_its_call_or_load_and_nothing_else() {
    let watched = Watched::new(Gate::open(), Gate::open());
    let server = server(&watched, Config { threads: 1, loading_concurrency: 1, ..config() }).await;
    let error = server.try_load("bad", affine()).await.unwrap_err();
    assert_eq!((error.code(), error.message()), (Code::Internal, "panic: this loader cannot"));
    server.try_load("m", affine()).await.unwrap();
    for _ in 0..3 {
        let error = server.infer(call("m", -1.0)).await.unwrap_err();
        assert_eq!((error.code(), error.message()), (Code::Internal, "panic: a negative number"));
        assert!(server.infer(call("m", 1.0)).await.is_ok());
    }
    server.unload("m").await.unwrap();
}

#[tokio::test]
async fn calls_beyond_threads_and_queue_are_refused_and_the_others_answered() {
    let watched = Watched::new(Gate::open(), Gate::shut());
    let server = server(&watched, Config { threads: 1, ..config() }).await;
    server.try_load("m", affine()).await.unwrap();
    // More than one connection, as the streams of each are bounded too.
    let more = modelring_proto::inference::grpc_inference_service_client::GrpcInferenceServiceClient::connect(format!(
        "http://{}",
        server.running.addr
    ));
    let clients = [server.inference.clone(), more.await.unwrap()];
    let refused = Arc::new(Semaphore::new(0));
    let mut calls = tokio::task::JoinSet::new();
    for n in 0..1100 {
        let (mut client, refused) = (clients[n % 2].clone(), Arc::clone(&refused));
        calls.spawn(async move {
            let outcome = client.model_infer(call("m", 1.0)).await.map(|_| ()).map_err(|error| error.code());
            if outcome.is_err() {
                refused.add_permits(1);
            }
            outcome
        });
    }
    let extra = 1100 - 1 - 1024;
    let _all = tokio::time::timeout(Duration::from_secs(30), refused.acquire_many(extra)).await.unwrap().unwrap();
    for _ in 0..1025 {
        watched.calls.let_pass();
    }
    let outcomes = calls.join_all().await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1025);
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Ok(()) | Err(Code::ResourceExhausted))));
}

#[tokio::test]
async fn a_server_that_is_told_to_stop_finishes_what_runs() {
    let watched = Watched::new(Gate::open(), Gate::shut());
    let mut server = Server::start_with(config(), Arc::new(watched.clone())).await;
    server.try_load("m", affine()).await.unwrap();
    let mut client = server.inference.clone();
    let running = tokio::spawn(async move { client.model_infer(call("m", 1.0)).await });
    watched.happened(&Event::InferBegan("m".to_owned()), 1).await;
    tokio::select! {
        biased;
        _ = server.running.ended() => panic!("nobody told it to stop"),
        () = std::future::ready(()) => {}
    }
    let addr = server.running.addr;
    let stopping = tokio::spawn(server.running.shutdown());
    while tokio::net::TcpStream::connect(addr).await.is_ok() {
        tokio::task::yield_now().await;
    }
    watched.calls.let_pass();
    assert!(running.await.unwrap().is_ok());
    drop((server.inference, server.management));
    stopping.await.unwrap();
}

#[tokio::test]
async fn a_load_request_of_an_older_agent_is_understood() {
    let watched = Watched::new(Gate::open(), Gate::open());
    let server = server(&watched, config()).await;
    let path = affine().display().to_string();
    let bare = LoadModelRequest { model_id: "m".to_owned(), model_path: path, ..LoadModelRequest::default() };
    assert!(server.management.clone().load_model(bare).await.unwrap().into_inner().size_in_bytes > 1000);
}
