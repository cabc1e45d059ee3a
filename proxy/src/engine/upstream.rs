//! Connections to model servers: each thread has its own.
//!
//! Per target one HTTP/2 connection, another at 80 % of the peer's streams, at most [`MOST`]. One dial at a time; a new
//! connection is used only once the server has told its settings (a relay, or another program, accepts and then closes or
//! keeps silent) and the target has confirmed that the address is still its own. No PINGs: gRPC servers
//! answer too many of them with GOAWAY; dead peers are found by TCP.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    future::poll_fn,
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use h2::client::SendRequest;
use tokio::{
    net::TcpStream,
    sync::Notify,
    time::{Instant, timeout},
};

use tokio_util::sync::CancellationToken;

use super::target::Target;
use crate::net::tcp;

/// Connections to one target, most.
const MOST: usize = 4;
/// Streams on one connection, most, whatever the peer allows.
const STREAMS: usize = 1024;
/// Streams that a server allows which has not said so yet; none can say this number.
const UNTOLD: usize = usize::MAX - 1;
/// How long a dial, its confirmation, or the wait for a free stream may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a server may leave bytes unacknowledged.
const UNACKNOWLEDGED: Duration = Duration::from_secs(20);
/// An unused connection is closed after this.
const IDLE: Duration = Duration::from_secs(300);
/// Waits after failed dials: the first, and the longest.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));
/// Window of a response stream, bytes.
const STREAM_WINDOW: u32 = 1 << 20;
/// Window of a connection, bytes: so large that no stream can stall another.
const CONNECTION_WINDOW: u32 = 1 << 30;

/// Instance, pod, and endpoint: what is wrong with one endpoint says nothing of the other.
type Key = (Arc<str>, Arc<str>, SocketAddr);

/// The connections of one thread.
#[derive(Default)]
pub(super) struct Pool {
    slots: RefCell<HashMap<Key, Rc<Slot>>>,
}

/// A place for one stream on a connection; given back when dropped.
pub(super) struct Lane {
    connection: Rc<Connection>,
    slot: Rc<Slot>,
}

/// Why there is no place for a stream, for people.
#[derive(Debug)]
pub(super) enum NoLane {
    /// The server cannot be connected.
    Unreachable(String),
    /// It can, and takes no more streams.
    Full(String),
}

/// One target's connections.
#[derive(Default)]
struct Slot {
    connections: RefCell<Vec<Rc<Connection>>>,
    dialing: Cell<bool>,
    /// A connection came or went, or a stream ended, or a dial failed.
    changed: Notify,
    trouble: RefCell<Trouble>,
}

#[derive(Default)]
struct Trouble {
    /// Dials failed in a row.
    failures: u32,
    /// Dials failed ever.
    seen: u64,
    /// No dial before this.
    until: Option<Instant>,
    text: String,
}

struct Connection {
    gone: CancellationToken,
    sender: SendRequest<Bytes>,
    streams: Cell<usize>,
    used: Cell<Instant>,
}

// === impl Pool ===

impl Pool {
    /// A place for a stream to `target`.
    ///
    /// # Errors
    ///
    /// Why there is none. Nothing was sent.
    pub(super) async fn lane(&self, target: &Arc<Target>) -> Result<Lane, NoLane> {
        let key = (target.key.0.clone(), target.key.1.clone(), target.address);
        let slot = self.slots.borrow_mut().entry(key).or_default().clone();
        let waiting = timeout(PATIENCE * 2, slot.clone().lane(target));
        match waiting.await {
            Ok(lane) => lane.map_err(NoLane::Unreachable),
            Err(_) => Err(NoLane::Full(format!("no free stream to the model server at {}", target.address))),
        }
    }

    /// Closes what was not used for long; called now and then.
    pub(super) fn sweep(&self) {
        let now = Instant::now();
        self.slots.borrow_mut().retain(|_, slot| {
            let unused = |c: &Rc<Connection>| c.streams.get() == 0 && now.duration_since(c.used.get()) > IDLE;
            slot.connections.borrow_mut().retain(|connection| !unused(connection) && connection.takes_more());
            !slot.connections.borrow().is_empty() || slot.dialing.get() || Rc::strong_count(slot) > 1
        });
    }
}

// === impl Slot ===

impl Slot {
    async fn lane(self: Rc<Self>, target: &Arc<Target>) -> Result<Lane, String> {
        let seen = self.trouble.borrow().seen;
        loop {
            let changed = self.changed.notified();
            self.connections.borrow_mut().retain(|it| it.takes_more());
            let (best, count) = {
                let connections = self.connections.borrow();
                let free = connections.iter().filter(|it| it.streams.get() < it.capacity());
                (free.min_by_key(|it| it.streams.get()).cloned(), connections.len())
            };
            let crowded = best.as_ref().is_none_or(|it| it.streams.get() * 5 >= it.capacity() * 4);
            if target.gone.is_cancelled() {
                return Err(format!("the instance at {} has left", target.address));
            }
            if crowded && count < MOST && !self.dialing.get() {
                match self.rest() {
                    None => self.dial(target),
                    Some(_) if best.is_none() && count == 0 => return Err(self.trouble.borrow().text.clone()),
                    Some(_) => {}
                }
            }
            if let Some(connection) = best {
                connection.streams.set(connection.streams.get() + 1);
                return Ok(Lane { connection, slot: self.clone() });
            }
            changed.await;
            let trouble = self.trouble.borrow();
            if trouble.seen != seen && self.connections.borrow().is_empty() {
                return Err(trouble.text.clone());
            }
        }
    }

    /// How long no dial should be made yet.
    fn rest(&self) -> Option<Duration> {
        self.trouble
            .borrow()
            .until
            .and_then(|until| until.checked_duration_since(Instant::now()))
            .filter(|d| !d.is_zero())
    }

    /// Dials on a task of its own: whoever asked first may be gone before it is done.
    fn dial(self: &Rc<Self>, target: &Arc<Target>) {
        self.dialing.set(true);
        let (slot, target) = (self.clone(), target.clone());
        tokio::task::spawn_local(async move {
            let dialled = connect(&target, &slot).await;
            slot.dialing.set(false);
            let mut trouble = slot.trouble.borrow_mut();
            match dialled {
                Ok(connection) => {
                    *trouble = Trouble { seen: trouble.seen, ..Trouble::default() };
                    slot.connections.borrow_mut().push(Rc::new(connection));
                }
                Err(text) => {
                    tracing::debug!(instance = %target.key.0, address = %target.address, error = text, "dial failed");
                    let (first, longest) = BACK_OFF;
                    let wait = first.saturating_mul(1 << trouble.failures.min(10)).min(longest);
                    trouble.failures += 1;
                    trouble.seen += 1;
                    trouble.until = Some(Instant::now() + wait.mul_f64(rand::random_range(0.5..1.0)));
                    trouble.text = text;
                }
            }
            slot.changed.notify_waiters();
        });
    }
}

async fn connect(target: &Arc<Target>, slot: &Rc<Slot>) -> Result<Connection, String> {
    let address = target.address;
    let fail = |what: &dyn std::fmt::Display| format!("no connection to the model server at {address}: {what}");
    let dialled = timeout(PATIENCE, async {
        let socket = TcpStream::connect(address).await.map_err(|error| fail(&error))?;
        tcp::keep_alive(&socket, UNACKNOWLEDGED);
        let socket = target.connector.over(socket).await.map_err(|error| fail(&error))?;
        let handshake = h2::client::Builder::new()
            .enable_push(false)
            .initial_max_send_streams(UNTOLD)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(32 * 1024)
            .max_frame_size(64 * 1024)
            // Else a slow reader of many small messages costs all others their connection.
            .data_frame_budget(1 << 30)
            .handshake(socket)
            .await;
        let (sender, mut connection) = handshake.map_err(|error| fail(&error))?;
        poll_fn(|cx| match Pin::new(&mut connection).poll(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(fail(&error))),
            Poll::Ready(Ok(())) => Poll::Ready(Err(fail(&"it was closed before it spoke HTTP/2"))),
            Poll::Pending if sender.current_max_send_streams() == UNTOLD => Poll::Pending,
            Poll::Pending => Poll::Ready(Ok(())),
        })
        .await?;
        Ok::<_, String>((sender, connection))
    });
    let (sender, connection) = dialled.await.map_err(|_| fail(&"no answer in time"))??;
    tokio::task::spawn_local(keep(connection, target.clone(), slot.clone()));
    match timeout(PATIENCE, (target.confirm)()).await {
        Ok(true) => {
            Ok(Connection { gone: target.gone.clone(), sender, streams: Cell::new(0), used: Cell::new(Instant::now()) })
        }
        Ok(false) | Err(_) => Err(fail(&"its agent did not confirm that the address is still its own")),
    }
}

/// Drives a connection to its end. Once its instance has gone it takes no new stream, and ends after the last.
async fn keep(
    mut connection: h2::client::Connection<modelring_process::tls::Connection>,
    target: Arc<Target>,
    slot: Rc<Slot>,
) {
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = target.gone.cancelled() => {
            // The handle that opens streams is dropped, and waits for no other.
            slot.connections.borrow_mut().retain(|it| it.takes_more());
            slot.changed.notify_waiters();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(address = %target.address, %error, "connection to a model server ended");
    }
    slot.changed.notify_waiters();
}

// === impl Connection ===

impl Connection {
    /// Whether new streams may begin: instance not gone, connection not lost, no GOAWAY, ids left.
    fn takes_more(&self) -> bool {
        if self.gone.is_cancelled() {
            return false;
        }
        let ready = self.sender.clone().poll_ready(&mut Context::from_waker(Waker::noop()));
        !matches!(ready, Poll::Ready(Err(_)))
    }

    fn capacity(&self) -> usize {
        self.sender.current_max_send_streams().min(STREAMS)
    }
}

// === impl Lane ===

impl Lane {
    /// The handle that opens the stream.
    pub(super) fn sender(&self) -> SendRequest<Bytes> {
        self.connection.sender.clone()
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.connection.streams.set(self.connection.streams.get() - 1);
        self.connection.used.set(Instant::now());
        self.slot.changed.notify_waiters();
    }
}
