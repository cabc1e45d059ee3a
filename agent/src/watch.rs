//! One watch stream: what its watcher says goes to the core, what the core says goes to the watcher.

use std::{
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, ready},
};

use futures_util::Stream;
use modelring_placement::{id::WatcherId, pod::Event};
use modelring_proto::{
    PROTOCOL,
    v1::{AgentEvent, Role, WatcherMessage, watcher_message},
};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard, WaitForCancellationFutureOwned};
use tonic::{Status, Streaming};

use crate::{
    clock,
    core::{Message, Opened, StreamId},
    wire,
};

/// Longest id of a watcher.
const LONGEST_ID: usize = 256;

/// Who watches.
pub(crate) struct WatcherHello {
    pub(crate) watcher: WatcherId,
    pub(crate) role: Role,
}

/// The events of a stream. Silent until the core opens it.
pub(crate) struct Watching {
    stream: StreamId,
    state: State,
    core: mpsc::Sender<Message>,
    /// Set when what the watcher says ended the stream.
    fault: Arc<OnceLock<Status>>,
    /// Resolves at the end of what the watcher says.
    read: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Ends the reader with the stream.
    _reader: DropGuard,
}

enum State {
    Silent(oneshot::Receiver<Result<Opened, Status>>),
    Open(Opened),
    Ended,
}

/// Reads the first message of a stream.
pub(crate) fn hello(first: Option<WatcherMessage>) -> Result<WatcherHello, Status> {
    let Some(watcher_message::Message::Hello(hello)) = first.and_then(|first| first.message) else {
        return Err(Status::invalid_argument("the first message of a watch is a WatcherHello"));
    };
    if hello.protocol != PROTOCOL {
        let text = format!("protocol {} of the watcher is not protocol {PROTOCOL} of this agent", hello.protocol);
        return Err(Status::failed_precondition(text));
    }
    if hello.id.is_empty() || hello.id.len() > LONGEST_ID {
        return Err(Status::invalid_argument(format!("the id of a watcher has 1 to {LONGEST_ID} bytes")));
    }
    match hello.role() {
        Role::Unspecified => Err(Status::invalid_argument(format!("role {} is no role of a watcher", hello.role))),
        role => Ok(WatcherHello { watcher: hello.id.into(), role }),
    }
}

// === impl Watching ===

impl Watching {
    /// Begins to read what the watcher says.
    pub(crate) fn start(
        stream: StreamId,
        hello: WatcherHello,
        mut messages: Streaming<WatcherMessage>,
        opening: oneshot::Receiver<Result<Opened, Status>>,
        core: mpsc::Sender<Message>,
    ) -> Self {
        let fault = Arc::new(OnceLock::new());
        let (read, stop) = (CancellationToken::new(), CancellationToken::new());
        let reader = {
            let (core, fault, read, stop) = (core.clone(), fault.clone(), read.clone().drop_guard(), stop.clone());
            async move {
                let _read = read;
                let reading = async {
                    // The end of the stream ends the watch; so does a fault.
                    while let Some(message) = messages.message().await? {
                        if let Some(message) = heard(stream, &hello, message)? {
                            core.send(message).await.map_err(|_| Status::unavailable("the agent has stopped"))?;
                        }
                    }
                    Ok(())
                };
                let ended: Result<(), Status> = tokio::select! {
                    ended = reading => ended,
                    () = stop.cancelled() => Ok(()),
                };
                if let Err(status) = ended {
                    let _ = fault.set(status);
                }
            }
        };
        tokio::spawn(reader);
        Self {
            stream,
            state: State::Silent(opening),
            core,
            fault,
            read: Box::pin(read.cancelled_owned()),
            _reader: stop.drop_guard(),
        }
    }

    fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<AgentEvent, Status>>> {
        loop {
            match &mut self.state {
                State::Silent(opening) => match ready!(Pin::new(opening).poll(context)) {
                    Ok(Ok(opened)) => self.state = State::Open(opened),
                    Ok(Err(status)) => return self.end(Some(status)),
                    Err(_) => return self.end(Some(Status::unavailable("the agent has stopped"))),
                },
                State::Open(opened) => match ready!(opened.events.poll_recv(context)) {
                    Some(event) => return Poll::Ready(Some(Ok(event))),
                    None => {
                        let status = opened.end.get().cloned();
                        return self.end(status);
                    }
                },
                State::Ended => return Poll::Ready(None),
            }
        }
    }

    fn end(&mut self, status: Option<Status>) -> Poll<Option<Result<AgentEvent, Status>>> {
        self.state = State::Ended;
        Poll::Ready(status.map(Err))
    }
}

impl Stream for Watching {
    type Item = Result<AgentEvent, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Poll::Ready(event) = self.poll_event(context) {
            return Poll::Ready(event);
        }
        ready!(self.read.as_mut().poll(context));
        let fault = self.fault.get().cloned();
        self.end(fault)
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        tell_at_drop(&self.core, Message::Unwatch(self.stream));
    }
}

/// Tells the core from where nothing can wait.
pub(crate) fn tell_at_drop(core: &mpsc::Sender<Message>, message: Message) {
    if let Err(mpsc::error::TrySendError::Full(message)) = core.try_send(message)
        && let Ok(runtime) = tokio::runtime::Handle::try_current()
    {
        let core = core.clone();
        runtime.spawn(async move { core.send(message).await });
    }
}

/// What a message is to the core; nothing where its kind is not known.
fn heard(stream: StreamId, hello: &WatcherHello, message: WatcherMessage) -> Result<Option<Message>, Status> {
    use watcher_message::Message as Said;
    let only = |role: Role, what: &str| {
        if hello.role == role {
            Ok(())
        } else {
            Err(Status::permission_denied(format!("{what} comes from {} only", role.as_str_name())))
        }
    };
    let watcher = || hello.watcher.clone();
    Ok(match message.message {
        None => None,
        Some(Said::Hello(_)) => return Err(Status::invalid_argument("a second WatcherHello on one stream")),
        Some(Said::Ping(ping)) => Some(Message::Ping(stream, ping.n)),
        Some(Said::Touches(touches)) => {
            only(Role::Proxy, "Touches")?;
            Some(Message::Heard(Event::Touches { watcher: watcher(), touches: wire::touches(touches, clock::now()) }))
        }
        Some(Said::Missing(missing)) => {
            only(Role::Proxy, "Missing")?;
            Some(Message::Missing {
                model: missing.model.into(),
                boot: missing.boot_id,
                seq: missing.seq,
                asked: false,
            })
        }
        Some(Said::DrainAck(ack)) => {
            only(Role::Proxy, "DrainAck")?;
            let (model, boot, seq) = (ack.model.into(), ack.boot_id, ack.seq);
            Some(Message::Heard(Event::DrainAck { watcher: watcher(), model, boot, seq }))
        }
        Some(Said::Hints(hints)) => {
            only(Role::Control, "Hints")?;
            Some(Message::Heard(Event::Hints(wire::hints(hints))))
        }
    })
}
