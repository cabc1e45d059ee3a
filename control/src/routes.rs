//! The `Routes` service: a table and its changes to each proxy, acknowledgements and usage back. Each connection has one
//! task; what it cannot send in time ends it, nobody waits for it.

use std::{
    pin::Pin,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use futures_util::Stream;
use modelring_process::tls::{Name, Peer};
use modelring_proto::{
    PROTOCOL,
    v1::{
        Observed, ProxyMessage as Message, Role, RoutesHello, RoutesUpdate, proxy_message, routes_server::Routes,
        routes_update::Kind,
    },
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::timeout,
};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming};

use crate::Error;
use crate::core::{Delta, Event, Joined, ProxyMessage};

/// Until a caller has said hello.
const HELLO: Duration = Duration::from_secs(5);
/// Until an update is taken.
const SEND: Duration = Duration::from_secs(10);
/// Updates on their way to one caller.
const AHEAD: usize = 4;

/// The service.
#[derive(Debug)]
pub(crate) struct RoutesService {
    namespace: String,
    access: Access,
    events: mpsc::Sender<Event>,
    connections: AtomicU64,
}

/// Who may watch: proxies of the namespace; control's own certificate may observe.
#[derive(Clone, Debug)]
pub(crate) struct Access {
    proxy: Name,
    control: Name,
}

type Updates = mpsc::Sender<Result<RoutesUpdate, Status>>;

// === impl RoutesService ===

impl RoutesService {
    pub(crate) fn new(namespace: String, access: Access, events: mpsc::Sender<Event>) -> Self {
        Self { namespace, access, events, connections: AtomicU64::new(1) }
    }

    fn check(&self, peer: &Peer, hello: &RoutesHello) -> Result<(), Status> {
        if hello.protocol != PROTOCOL {
            return Err(Status::failed_precondition(format!(
                "the caller speaks protocol {}, control speaks {PROTOCOL}",
                hello.protocol
            )));
        }
        if !matches!(hello.role(), Role::Proxy | Role::Observer) {
            return Err(Status::invalid_argument("role must be ROLE_PROXY or ROLE_OBSERVER"));
        }
        if hello.namespace != self.namespace && !hello.namespace.is_empty() {
            let text = format!("this control serves namespace `{}`, not `{}`", self.namespace, hello.namespace);
            return Err(Status::permission_denied(text));
        }
        self.access.check(peer, hello.role())
    }
}

// === impl Access ===

impl Access {
    /// To the table of this namespace.
    pub(crate) fn of(namespace: &str) -> Result<Self, Error> {
        Ok(Self { proxy: Name::proxy(namespace)?, control: Name::control() })
    }

    fn check(&self, peer: &Peer, role: Role) -> Result<(), Status> {
        let may_observe = role == Role::Observer && peer.is(&self.control);
        if may_observe || peer.is(&self.proxy) {
            return Ok(());
        }
        Err(Status::permission_denied(format!("this table is for who has a certificate of {}", self.proxy)))
    }
}

#[tonic::async_trait]
impl Routes for RoutesService {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<RoutesUpdate, Status>> + Send>>;

    async fn watch(&self, request: Request<Streaming<Message>>) -> Result<Response<Self::WatchStream>, Status> {
        let peer = request.extensions().get::<Peer>().cloned();
        let peer = peer.ok_or_else(|| Status::internal("the connection does not say who calls"))?;
        let mut messages = request.into_inner();
        let first = timeout(HELLO, messages.next()).await;
        let hello = match first {
            Ok(Some(Ok(Message { message: Some(proxy_message::Message::Hello(hello)) }))) => hello,
            Ok(Some(Ok(_))) => return Err(Status::invalid_argument("the first message must be a RoutesHello")),
            Ok(Some(Err(status))) => return Err(status),
            Ok(None) => return Err(Status::invalid_argument("the stream ended before a RoutesHello")),
            Err(_) => return Err(Status::deadline_exceeded("no RoutesHello in time")),
        };
        self.check(&peer, &hello)?;
        let connection = self.connections.fetch_add(1, Ordering::Relaxed);
        let (updates, stream) = mpsc::channel(AHEAD);
        tokio::spawn(serve(connection, hello, messages, updates, self.events.clone()));
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
}

/// Serves one connection to its end.
async fn serve(
    connection: u64,
    hello: RoutesHello,
    messages: Streaming<Message>,
    updates: Updates,
    events: mpsc::Sender<Event>,
) {
    let observer = hello.role() == Role::Observer;
    let (reply, joined) = oneshot::channel();
    let joins = Event::Proxy(ProxyMessage::Joins { connection, hello, reply });
    if events.send(joins).await.is_err() {
        return;
    }
    let end = tokio::select! {
        end = tell(joined, observer, &updates) => end,
        end = listen(connection, messages, &events) => end,
        () = updates.closed() => None,
        () = events.closed() => Some(Status::unavailable("control stops")),
    };
    // Control may have stopped meanwhile, and the caller may be gone: then nobody is to be told.
    let _ = events.send(Event::Proxy(ProxyMessage::Leaves { connection })).await;
    if let Some(status) = end {
        let _ = timeout(SEND, updates.send(Err(status))).await;
    }
}

/// Sends the table and then each change. Returns why it ends.
async fn tell(joined: oneshot::Receiver<Joined>, observer: bool, updates: &Updates) -> Option<Status> {
    let too_slow = || Some(Status::resource_exhausted("updates were not taken in time: dial again for a whole table"));
    let Ok(Joined { version, table, mut deltas, mut observed }) = joined.await else {
        return Some(Status::unavailable("control stops"));
    };
    for update in table.snapshot(version, observer) {
        if timeout(SEND, updates.send(Ok(update))).await.is_err() {
            return too_slow();
        }
    }
    drop(table);
    // The first telling is worth one too.
    observed.iter_mut().for_each(watch::Receiver::mark_changed);
    loop {
        let update = tokio::select! {
            delta = deltas.recv() => {
                let Some(delta) = delta else { break };
                let Delta { version, change } = &*delta;
                let mut change = change.clone();
                if !observer {
                    change.notices = None;
                }
                let kind = Kind::Delta.into();
                RoutesUpdate { version: Some(*version), kind, change: Some(change), observed: None }
            }
            now = changed(&mut observed) => {
                RoutesUpdate { kind: Kind::Observed.into(), observed: Some(now), ..RoutesUpdate::default() }
            }
        };
        if timeout(SEND, updates.send(Ok(update))).await.is_err() {
            return too_slow();
        }
    }
    // The core has dropped this connection.
    Some(Status::aborted("dial again for a whole table"))
}

/// The next telling of how it stands; never where there is none.
async fn changed(observed: &mut Option<watch::Receiver<Observed>>) -> Observed {
    if let Some(observed) = observed
        && observed.changed().await.is_ok()
    {
        return observed.borrow_and_update().clone();
    }
    // The core has ended, and its deltas with it.
    std::future::pending().await
}

/// Hands what the caller says to the core. Returns why it ends.
async fn listen(connection: u64, mut messages: Streaming<Message>, events: &mpsc::Sender<Event>) -> Option<Status> {
    use proxy_message::Message as Said;

    loop {
        let message = match messages.next().await {
            Some(Ok(message)) => message.message,
            Some(Err(_)) | None => return None,
        };
        let said = match message {
            Some(Said::Ack(ack)) => ProxyMessage::Ack { connection, version: ack.version.unwrap_or_default() },
            Some(Said::Nack(nack)) => {
                ProxyMessage::Nack { connection, version: nack.version.unwrap_or_default(), reason: nack.reason }
            }
            Some(Said::Usage(usage)) => ProxyMessage::Usage { usage },
            Some(Said::Hello(_)) => return Some(Status::invalid_argument("a second RoutesHello")),
            None => continue,
        };
        if events.send(Event::Proxy(said)).await.is_err() {
            return Some(Status::unavailable("control stops"));
        }
    }
}
