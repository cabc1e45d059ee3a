//! An agent whose answers the test writes: copies become what the test says.

use std::{collections::BTreeMap, net::SocketAddr, pin::Pin, sync::Arc};

use futures_util::Stream;
use modelring_proto::{
    PROTOCOL,
    v1::{
        self, AgentEvent, CopyState, Hello, Hints, LedgerState, LoadEvent, LoadRequest, Loaded, Pong, SnapshotEnd,
        WatcherMessage,
        agent_event::Event,
        agent_server::{Agent, AgentServer},
        copy_state::State,
        load_event::Event as Load,
        watcher_message::Message,
    },
};
use parking_lot::Mutex;
use tokio::{net::TcpListener, sync::broadcast, task::JoinHandle};
use tokio_stream::{StreamExt, wrappers::TcpListenerStream};
use tonic::{Request, Response, Status, Streaming, transport::Server};

/// What the agent does when it is asked for a load.
pub type Script = Arc<dyn Fn(&LoadRequest) -> Outcome + Send + Sync>;

/// What becomes of a load.
#[derive(Clone, Debug)]
pub enum Outcome {
    Loads,
    Fails(u32, &'static str),
    Refuses(v1::refused::Reason),
    Hangs,
}

pub struct FakeAgent {
    address: SocketAddr,
    state: Arc<Inner>,
    server: JoinHandle<()>,
}

struct Inner {
    id: String,
    seq: Mutex<u64>,
    copies: Mutex<BTreeMap<String, AgentEvent>>,
    events: broadcast::Sender<AgentEvent>,
    script: Mutex<Script>,
    asked: Mutex<Vec<LoadRequest>>,
    hints: Mutex<Hints>,
    /// It answers no watch.
    hidden: tokio::sync::watch::Sender<bool>,
}

#[derive(Clone)]
struct Service(Arc<Inner>);

impl FakeAgent {
    /// An agent that loads what it is asked for.
    pub async fn start(id: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Inner {
            id: id.to_owned(),
            seq: Mutex::new(0),
            copies: Mutex::default(),
            events: broadcast::channel(256).0,
            script: Mutex::new(Arc::new(|_| Outcome::Loads)),
            asked: Mutex::default(),
            hints: Mutex::default(),
            hidden: tokio::sync::watch::Sender::new(false),
        });
        let serving = Server::builder()
            .add_service(AgentServer::new(Service(state.clone())))
            .serve_with_incoming(TcpListenerStream::new(listener));
        let server = tokio::spawn(async move { serving.await.unwrap() });
        Self { address, state, server }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn script(&self, script: impl Fn(&LoadRequest) -> Outcome + Send + Sync + 'static) {
        *self.state.script.lock() = Arc::new(script);
    }

    /// Sets the state of a copy and tells all watchers.
    pub fn set(&self, model: &str, state: State) {
        self.state.set(model, state, 0, "");
    }

    /// Says that the whole instance is going away.
    pub fn leave(&self) {
        let seq = *self.state.seq.lock();
        let _ = self.state.events.send(AgentEvent { seq, event: Some(Event::Leaving(v1::Leaving {})) });
    }

    /// Ends all watches and answers none, as one that control does not reach; or answers again.
    pub fn hide(&self, hidden: bool) {
        self.state.hidden.send_replace(hidden);
    }

    pub fn asked(&self) -> Vec<LoadRequest> {
        self.state.asked.lock().clone()
    }

    pub fn hints(&self) -> Hints {
        self.state.hints.lock().clone()
    }

    pub fn is_ready(&self, model: &str) -> bool {
        let copies = self.state.copies.lock();
        copies
            .get(model)
            .is_some_and(|event| matches!(&event.event, Some(Event::Copy(copy)) if copy.state() == State::Ready))
    }
}

impl Drop for FakeAgent {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Inner {
    fn set(&self, model: &str, state: State, code: u32, text: &str) -> u64 {
        let mut seq = self.seq.lock();
        *seq += 1;
        let copy = CopyState {
            model: model.to_owned(),
            state: state.into(),
            bytes: 1000,
            code,
            text: text.to_owned(),
            retry_after_millis: 600_000,
            ..CopyState::default()
        };
        let event = AgentEvent { seq: *seq, event: Some(Event::Copy(copy)) };
        if state == State::Gone {
            self.copies.lock().remove(model);
        } else {
            self.copies.lock().insert(model.to_owned(), event.clone());
        }
        let _ = self.events.send(event);
        *seq
    }
}

#[tonic::async_trait]
impl Agent for Service {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<AgentEvent, Status>> + Send>>;
    type EnsureLoadedStream = Pin<Box<dyn Stream<Item = Result<LoadEvent, Status>> + Send>>;

    async fn watch(&self, request: Request<Streaming<WatcherMessage>>) -> Result<Response<Self::WatchStream>, Status> {
        let state = self.0.clone();
        let mut messages = request.into_inner();
        let mut hidden = state.hidden.subscribe();
        if *hidden.borrow_and_update() {
            return Err(Status::unavailable("it is not reached"));
        }
        let (tell, told) = tokio::sync::mpsc::channel(64);
        tokio::spawn(async move {
            let mut events = state.events.subscribe();
            let event = |event| AgentEvent { seq: *state.seq.lock(), event: Some(event) };
            let hello = Hello {
                protocol: PROTOCOL,
                instance_id: state.id.clone(),
                pod_uid: format!("{}-uid", state.id),
                boot_id: 7,
                namespace: "default".to_owned(),
                runtime: "small".to_owned(),
                load_timeout_millis: 1000,
                loading_concurrency: 1,
                ..Hello::default()
            };
            let ledger = LedgerState { capacity: 1000, ..LedgerState::default() };
            let mut first = vec![event(Event::Hello(hello)), event(Event::Ledger(ledger))];
            first.extend(state.copies.lock().values().cloned());
            first.push(event(Event::SnapshotEnd(SnapshotEnd {})));
            for event in first {
                let _ = tell.send(Ok(event)).await;
            }
            loop {
                let next = tokio::select! {
                    message = messages.next() => match message {
                        Some(Ok(WatcherMessage { message: Some(Message::Ping(ping)) })) => {
                            event(Event::Pong(Pong { n: ping.n }))
                        }
                        Some(Ok(WatcherMessage { message: Some(Message::Hints(hints)) })) => {
                            *state.hints.lock() = hints;
                            continue;
                        }
                        Some(Ok(_)) => continue,
                        _ => return,
                    },
                    Ok(event) = events.recv() => event,
                    _ = hidden.changed() => return,
                };
                if tell.send(Ok(next)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(tokio_stream::wrappers::ReceiverStream::new(told))))
    }

    async fn ensure_loaded(&self, request: Request<LoadRequest>) -> Result<Response<Self::EnsureLoadedStream>, Status> {
        let request = request.into_inner();
        let model = request.model.clone().unwrap().id;
        let outcome = (self.0.script.lock().clone())(&request);
        self.0.asked.lock().push(request.clone());
        let accepted = Load::Accepted(v1::Accepted { place: 0 });
        let last = match outcome {
            Outcome::Loads => {
                if !request.replaces.is_empty() {
                    self.0.set(&request.replaces, State::Gone, 0, "");
                }
                self.0.set(&model, State::Loading, 0, "");
                let seq = self.0.set(&model, State::Ready, 0, "");
                Load::Loaded(Loaded { boot_id: 7, seq })
            }
            Outcome::Fails(code, text) => {
                if !request.replaces.is_empty() {
                    self.0.set(&request.replaces, State::Gone, 0, "");
                }
                self.0.set(&model, State::Failed, code, text);
                Load::Failed(v1::Failed { code, text: text.to_owned() })
            }
            Outcome::Refuses(reason) => Load::Refused(v1::Refused {
                reason: reason.into(),
                retry_after_millis: 200,
                text: "1000 bytes are needed, 0 of 1000 may be freed".to_owned(),
            }),
            Outcome::Hangs => {
                let stream = tokio_stream::once(Ok(LoadEvent { event: Some(accepted) })).chain(tokio_stream::pending());
                return Ok(Response::new(Box::pin(stream)));
            }
        };
        let events = [accepted, last].map(|event| Ok(LoadEvent { event: Some(event) }));
        Ok(Response::new(Box::pin(tokio_stream::iter(events))))
    }
}
