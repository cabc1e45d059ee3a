//! The open watch streams. What is pushed to all of them is in one order, the order of the pod's decisions.

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
};

use modelring_placement::id::WatcherId;
use modelring_proto::v1::{AgentEvent, Role};
use tokio::sync::{mpsc, oneshot};
use tonic::Status;

/// Number of a watch stream.
pub(crate) type StreamId = u64;

/// Events beyond its snapshot that a watcher may leave unread before it is dropped.
const UNREAD: usize = 1024;
/// Most watch streams.
const MOST_STREAMS: usize = 4096;

/// Where the events of a stream come out.
#[derive(Debug)]
pub(crate) struct Opened {
    /// The events.
    pub(crate) events: mpsc::Receiver<AgentEvent>,
    /// Why they ended.
    pub(crate) end: Arc<OnceLock<Status>>,
}

/// A stream that wants to be opened.
#[derive(Debug)]
pub(crate) struct Watch {
    /// Its number.
    pub(crate) stream: StreamId,
    /// Who watches.
    pub(crate) watcher: WatcherId,
    /// In which role.
    pub(crate) role: Role,
    /// Gets the stream once there is something to say.
    pub(crate) opened: oneshot::Sender<Result<Opened, Status>>,
}

/// All streams.
#[derive(Debug, Default)]
pub(super) struct Watchers {
    open: HashMap<StreamId, Watcher>,
    /// Streams that are silent until the handshake with the model server is done, with their last ping.
    silent: Vec<(Watch, Option<u64>)>,
}

#[derive(Debug)]
struct Watcher {
    id: WatcherId,
    role: Role,
    events: mpsc::Sender<AgentEvent>,
    end: Arc<OnceLock<Status>>,
}

// === impl Watchers ===

impl Watchers {
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty() && self.silent.is_empty()
    }

    /// Open streams of this role, those that are silent yet too.
    pub(super) fn count(&self, role: Role) -> usize {
        let silent = self.silent.iter().filter(|(watch, _)| watch.role == role).count();
        self.open.values().filter(|watcher| watcher.role == role).count() + silent
    }

    /// Who is behind a stream.
    pub(super) fn who(&self, stream: StreamId) -> Option<(&WatcherId, Role)> {
        let open = self.open.get(&stream).map(|watcher| (&watcher.id, watcher.role));
        open.or_else(|| {
            self.silent.iter().find(|(watch, _)| watch.stream == stream).map(|(watch, _)| (&watch.watcher, watch.role))
        })
    }

    /// Keeps a stream silent until [`Watchers::speak`].
    pub(super) fn wait(&mut self, watch: Watch) {
        if self.open.len() + self.silent.len() < MOST_STREAMS {
            self.silent.push((watch, None));
        } else {
            let _ = watch
                .opened
                .send(Err(Status::resource_exhausted(format!("the agent has {MOST_STREAMS} watchers already"))));
        }
    }

    /// Opens the silent streams with a snapshot, and answers the last ping of each.
    pub(super) fn speak(&mut self, snapshot: &[AgentEvent], pong: impl Fn(u64) -> AgentEvent) {
        for (watch, ping) in std::mem::take(&mut self.silent) {
            let (sender, events) = mpsc::channel(snapshot.len() + UNREAD);
            let end = Arc::new(OnceLock::new());
            for event in snapshot.iter().cloned().chain(ping.map(&pong)) {
                sender.try_send(event).expect("the channel has room for the snapshot");
            }
            if watch.opened.send(Ok(Opened { events, end: end.clone() })).is_ok() {
                self.open.insert(watch.stream, Watcher { id: watch.watcher, role: watch.role, events: sender, end });
            }
        }
    }

    /// Pushes an event to all streams that speak.
    pub(super) fn push(&mut self, event: &AgentEvent) {
        self.open.retain(|_, watcher| watcher.push(event.clone()));
    }

    /// Answers a ping, now or when the stream speaks.
    pub(super) fn pong(&mut self, stream: StreamId, n: u64, pong: impl Fn(u64) -> AgentEvent) {
        if let Some(watcher) = self.open.get_mut(&stream) {
            if !watcher.push(pong(n)) {
                self.open.remove(&stream);
            }
        } else if let Some((_, last)) = self.silent.iter_mut().find(|(watch, _)| watch.stream == stream) {
            *last = Some(n);
        }
    }

    /// A watcher has gone.
    pub(super) fn remove(&mut self, stream: StreamId) {
        self.open.remove(&stream);
        self.silent.retain(|(watch, _)| watch.stream != stream);
    }

    /// Ends the streams that speak.
    pub(super) fn end(&mut self, status: &Status) {
        for (_, watcher) in self.open.drain() {
            watcher.end(status.clone());
        }
    }
}

impl Watcher {
    /// False where the watcher does not read: it is dropped, and opens a new stream with a new snapshot.
    fn push(&mut self, event: AgentEvent) -> bool {
        let fits = self.events.try_send(event);
        if let Err(mpsc::error::TrySendError::Full(_)) = fits {
            tracing::warn!(watcher = %self.id, unread = UNREAD, "watcher is too slow and is dropped");
            self.end(Status::resource_exhausted(format!("the watcher has left more than {UNREAD} events unread")));
        }
        fits.is_ok()
    }

    fn end(&self, status: Status) {
        let _ = self.end.set(status);
    }
}
