//! An agent.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    sync::Arc,
};

use modelring_proto::v1::{
    self,
    agent_event::Event,
    agent_server::{Agent, AgentServer},
    copy_state::{Drain, State},
    watcher_message::Message,
};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming, transport::Server};

use super::{Stop, copy, endpoint, serve, soon, until};

/// An agent.
#[derive(Clone)]
pub(crate) struct ScriptedAgent {
    pub(crate) id: &'static str,
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<AgentState>>,
    server: Arc<Stop>,
}

struct AgentState {
    hello: v1::Hello,
    seq: u64,
    copies: BTreeMap<String, (u64, v1::CopyState)>,
    watchers: Vec<mpsc::Sender<Result<v1::AgentEvent, Status>>>,
    answers_pings: bool,
    says_hello: bool,
    heard: Vec<Message>,
    loads: VecDeque<Load>,
    asked: usize,
}

/// An open `EnsureLoaded`.
pub(crate) struct Load {
    pub(crate) request: v1::LoadRequest,
    events: mpsc::Sender<Result<v1::LoadEvent, Status>>,
}

// === impl ScriptedAgent ===

impl ScriptedAgent {
    pub(crate) async fn start(id: &'static str) -> Self {
        let hello = v1::Hello {
            protocol: 1,
            instance_id: id.into(),
            boot_id: 7,
            runtime: "r".into(),
            endpoints: vec![endpoint("127.0.0.1:9")],
            load_timeout_millis: 60_000,
            ..Default::default()
        };
        let state = Arc::new(Mutex::new(AgentState {
            hello,
            seq: 0,
            copies: BTreeMap::new(),
            watchers: Vec::new(),
            answers_pings: true,
            says_hello: true,
            heard: Vec::new(),
            loads: VecDeque::new(),
            asked: 0,
        }));
        let service = AgentServer::new(AgentService(state.clone()));
        let (address, server) = serve(Server::builder().add_service(service)).await;
        Self { id, address, state, server }
    }

    /// Changes what it says of itself to whoever watches from now on.
    pub(crate) fn introduce(&self, change: impl FnOnce(&mut v1::Hello)) {
        change(&mut self.state.lock().hello);
    }

    /// As the table lists it.
    pub(crate) fn listed(&self) -> v1::Instance {
        v1::Instance {
            id: self.id.into(),
            address: self.address.to_string(),
            runtime: "r".into(),
            accepts_new: true,
            ..Default::default()
        }
    }

    /// Answers pings, or not.
    pub(crate) fn answer_pings(&self, answers: bool) {
        self.state.lock().answers_pings = answers;
    }

    /// Is silent to those who come.
    pub(crate) fn keep_silent(&self) {
        self.state.lock().says_hello = false;
    }

    pub(crate) fn ready(&self, model: &str) -> u64 {
        self.say(v1::CopyState { bytes: 1, ..copy(model, State::Ready) })
    }

    pub(crate) fn ready_with_limit(&self, model: &str, concurrency_limit: u32) -> u64 {
        self.say(v1::CopyState { concurrency_limit, ..copy(model, State::Ready) })
    }

    pub(crate) fn loading(&self, model: &str) -> u64 {
        self.say(copy(model, State::Loading))
    }

    pub(crate) fn draining(&self, model: &str) -> u64 {
        self.say(v1::CopyState { drain: Drain::Evict.into(), ..copy(model, State::Draining) })
    }

    pub(crate) fn gone(&self, model: &str) -> u64 {
        self.say(copy(model, State::Gone))
    }

    /// A change of a copy; returns its seq.
    pub(crate) fn say(&self, copy: v1::CopyState) -> u64 {
        let mut state = self.state.lock();
        state.seq += 1;
        let seq = state.seq;
        state.copies.insert(copy.model.clone(), (seq, copy.clone()));
        if copy.state() == State::Gone {
            state.copies.remove(&copy.model);
        }
        state.tell(seq, Event::Copy(copy));
        seq
    }

    /// Is no more: connections break, new ones are refused.
    pub(crate) fn stop(&self) {
        self.server.0.abort();
        self.cut();
    }

    /// Ends all streams; who comes again gets a new snapshot.
    pub(crate) fn cut(&self) {
        self.state.lock().watchers.clear();
    }

    /// The first thing heard, from now on backwards, that `pick` wants; it is taken out.
    pub(crate) async fn hears<T>(&self, what: &str, pick: impl Fn(&Message) -> Option<T>) -> T {
        until(what, || {
            let mut state = self.state.lock();
            let (at, seen) = state.heard.iter().enumerate().find_map(|(at, message)| Some((at, pick(message)?)))?;
            state.heard.remove(at);
            Some(seen)
        })
        .await
    }

    pub(crate) fn has_heard(&self, pick: impl Fn(&Message) -> bool) -> bool {
        self.state.lock().heard.iter().any(pick)
    }

    /// The next `EnsureLoaded`.
    pub(crate) async fn asked(&self) -> Load {
        until("an EnsureLoaded", || self.state.lock().loads.pop_front()).await
    }

    /// How many were opened in all.
    pub(crate) fn times_asked(&self) -> usize {
        self.state.lock().asked
    }

    /// The model is loaded: READY to the watchers, `loaded` to the caller.
    pub(crate) async fn finish(&self, load: &Load) {
        let model = load.request.model.clone().unwrap_or_default().id;
        let seq = self.ready(&model);
        load.loaded(self.state.lock().hello.boot_id, seq);
    }
}

impl AgentState {
    fn tell(&mut self, seq: u64, event: Event) {
        let event = v1::AgentEvent { seq, event: Some(event) };
        self.watchers.retain(|watcher| watcher.try_send(Ok(event.clone())).is_ok());
    }
}

// === impl Load ===

impl Load {
    pub(crate) fn accept(&self) {
        self.tell(v1::load_event::Event::Accepted(v1::Accepted { place: 0 }));
    }

    pub(crate) fn loaded(&self, boot_id: u64, seq: u64) {
        self.tell(v1::load_event::Event::Loaded(v1::Loaded { boot_id, seq }));
    }

    pub(crate) fn fail(&self, code: u32, text: &str) {
        self.tell(v1::load_event::Event::Failed(v1::Failed { code, text: text.into() }));
    }

    pub(crate) fn refuse(&self, reason: v1::refused::Reason, retry_after_millis: u64, text: &str) {
        let refused = v1::Refused { reason: reason.into(), retry_after_millis, text: text.into() };
        self.tell(v1::load_event::Event::Refused(refused));
    }

    /// Resolves when the caller has gone.
    pub(crate) async fn cancelled(&self) {
        soon("the end of an EnsureLoaded", self.events.closed()).await;
    }

    pub(crate) fn is_open(&self) -> bool {
        !self.events.is_closed()
    }

    fn tell(&self, event: v1::load_event::Event) {
        self.events.try_send(Ok(v1::LoadEvent { event: Some(event) })).expect("the call is open");
    }
}

struct AgentService(Arc<Mutex<AgentState>>);

#[tonic::async_trait]
impl Agent for AgentService {
    type WatchStream = ReceiverStream<Result<v1::AgentEvent, Status>>;
    type EnsureLoadedStream = ReceiverStream<Result<v1::LoadEvent, Status>>;

    async fn watch(
        &self,
        request: Request<Streaming<v1::WatcherMessage>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let mut messages = request.into_inner();
        let (out, events) = mpsc::channel(1024);
        let state = self.0.clone();
        tokio::spawn(async move {
            while let Some(Ok(message)) = messages.next().await {
                let mut state = state.lock();
                match message.message {
                    Some(Message::Hello(hello)) => {
                        state.heard.push(Message::Hello(hello));
                        if state.says_hello {
                            let send = |seq, event| {
                                let _ = out.try_send(Ok(v1::AgentEvent { seq, event: Some(event) }));
                            };
                            send(state.seq, Event::Hello(state.hello.clone()));
                            state.copies.values().for_each(|(seq, copy)| send(*seq, Event::Copy(copy.clone())));
                            send(state.seq, Event::SnapshotEnd(v1::SnapshotEnd {}));
                        }
                        state.watchers.push(out.clone());
                    }
                    Some(Message::Ping(ping)) if state.answers_pings => {
                        let event = Some(Event::Pong(v1::Pong { n: ping.n }));
                        let _ = out.try_send(Ok(v1::AgentEvent { seq: state.seq, event }));
                    }
                    Some(Message::Ping(_)) | None => {}
                    Some(message) => state.heard.push(message),
                }
                // A stream that was cut has no place among the watchers any more.
                if !state.watchers.iter().any(|watcher| watcher.same_channel(&out)) {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(events)))
    }

    async fn ensure_loaded(
        &self,
        request: Request<v1::LoadRequest>,
    ) -> Result<Response<Self::EnsureLoadedStream>, Status> {
        let (events, out) = mpsc::channel(16);
        let mut state = self.0.lock();
        state.asked += 1;
        state.loads.push_back(Load { request: request.into_inner(), events });
        Ok(Response::new(ReceiverStream::new(out)))
    }
}
