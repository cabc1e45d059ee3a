//! The gRPC service `modelring.v1.Agent`.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{Stream, StreamExt};
use modelring_placement::pod::WaiterId;
use modelring_proto::v1::{
    AgentEvent, Failed, LoadEvent, LoadRequest, WatcherMessage, agent_server::Agent, load_event,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tonic::{Request, Response, Status, Streaming};

use crate::{
    access::{self, Access},
    core::{Message, UNREAD, Watch},
    storage::store::check_id,
    watch, wire,
};

/// Most open `EnsureLoaded` calls.
const MOST_WAITERS: usize = 65_536;
/// How long the first message of a watch stream may take.
const FIRST_MESSAGE: Duration = Duration::from_secs(5);

/// A stream of answers.
type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The service.
pub(crate) struct AgentService {
    core: mpsc::Sender<Message>,
    access: Access,
    ids: AtomicU64,
    waiters: Arc<Semaphore>,
}

/// Answers of an `EnsureLoaded`. Dropped with the call.
struct Waiting {
    events: mpsc::Receiver<LoadEvent>,
    waiter: WaiterId,
    core: mpsc::Sender<Message>,
    _permit: OwnedSemaphorePermit,
}

// === impl AgentService ===

impl AgentService {
    pub(crate) fn new(core: mpsc::Sender<Message>, access: Access) -> Self {
        Self { core, access, ids: AtomicU64::new(0), waiters: Arc::new(Semaphore::new(MOST_WAITERS)) }
    }

    fn next_id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed)
    }

    async fn tell(&self, message: Message) -> Result<(), Status> {
        self.core.send(message).await.map_err(|_| Status::unavailable("the agent has stopped"))
    }
}

#[tonic::async_trait]
impl Agent for AgentService {
    type WatchStream = Answers<AgentEvent>;
    type EnsureLoadedStream = Answers<LoadEvent>;

    async fn watch(&self, request: Request<Streaming<WatcherMessage>>) -> Result<Response<Self::WatchStream>, Status> {
        let peer = access::peer(&request)?;
        let mut messages = request.into_inner();
        let first = tokio::time::timeout(FIRST_MESSAGE, messages.message()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("no WatcherHello came"))??;
        let hello = watch::hello(first)?;
        self.access.may_watch(&peer, hello.role)?;
        let stream = self.next_id();
        let (opened, opening) = oneshot::channel();
        self.tell(Message::Watch(Watch { stream, watcher: hello.watcher.clone(), role: hello.role, opened })).await?;
        let answers = watch::Watching::start(stream, hello, messages, opening, self.core.clone());
        Ok(Response::new(answers.boxed()))
    }

    async fn ensure_loaded(&self, request: Request<LoadRequest>) -> Result<Response<Self::EnsureLoadedStream>, Status> {
        self.access.may_ask(&access::peer(&request)?, !request.get_ref().replaces.is_empty())?;
        let request = request.into_inner();
        let model = wire::model(request.model.ok_or_else(|| Status::invalid_argument("LoadRequest has no model"))?);
        let why = wire::why(request.why)?;
        let replaces = (!request.replaces.is_empty()).then(|| request.replaces.into());
        if let Err(error) = check_id(&model.id) {
            let failed =
                LoadEvent { event: Some(load_event::Event::Failed(Failed { code: error.code, text: error.text })) };
            return Ok(Response::new(tokio_stream::once(Ok(failed)).boxed()));
        }
        let too_many = |_| Status::resource_exhausted(format!("the agent has {MOST_WAITERS} waiters already"));
        let permit = self.waiters.clone().try_acquire_owned().map_err(too_many)?;
        let waiter = self.next_id();
        let (sender, events) = mpsc::channel(UNREAD);
        self.tell(Message::Ask { waiter, model, why, replaces, events: sender }).await?;
        let answers = Waiting { events, waiter, core: self.core.clone(), _permit: permit };
        Ok(Response::new(answers.boxed()))
    }
}

// === impl Waiting ===

impl Stream for Waiting {
    type Item = Result<LoadEvent, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.events.poll_recv(context).map(|event| event.map(Ok))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        watch::tell_at_drop(&self.core, Message::WaiterGone(self.waiter));
    }
}
