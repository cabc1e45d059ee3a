//! Connections between processes: each direction delivers in order; a connection that is lost loses all that is under way.
//!
//! A blocked direction keeps what is sent until it is open again (as TCP does), or until the dialler's keepalive ends the
//! connection. A reset is noticed by each end at its own time, and by one of them perhaps only by its keepalive.

use std::collections::BTreeMap;

use modelring_proto::v1;
use rand::Rng;

use crate::{
    millis,
    process::Node,
    queue::Nanos,
    world::{CallId, Event, World},
};

/// How long a connection may take to be made.
const CONNECT: Nanos = millis(2000);
/// After so much silence the dialler gives a connection up.
const KEEPALIVE: Nanos = millis(4000);

/// Number of a connection.
pub type ConnId = u64;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `Agent.Watch`.
    Watch,
    /// `Agent.EnsureLoaded`, on the transport of a watch.
    Ensure,
    /// `Routes.Watch`.
    Routes,
    /// The data hop.
    Data,
}

/// A connection; end 0 dialled.
#[derive(Debug)]
pub struct Conn {
    /// What it is for.
    pub kind: Kind,
    /// Who is at its ends.
    pub ends: [Node; 2],
    starts: [u64; 2],
    open: [bool; 2],
    /// Whether the dialler knows that it stands.
    stands: bool,
    /// When the last message to each end arrives.
    last: [Nanos; 2],
}

/// One direction between two processes.
#[derive(Clone, Copy, Debug, Default)]
struct Link {
    blocked: Nanos,
    slow: Nanos,
    delay: Nanos,
}

/// All connections.
#[derive(Debug, Default)]
pub struct Network {
    conns: BTreeMap<ConnId, Conn>,
    links: BTreeMap<(Node, Node), Link>,
    dialled: ConnId,
}

/// A message.
#[derive(Clone, Debug)]
pub enum Message {
    /// From a watcher to an agent.
    Watcher(v1::WatcherMessage),
    /// From an agent to a watcher.
    Agent(v1::AgentEvent),
    /// Asks for a load.
    Load(v1::LoadRequest),
    /// What becomes of it.
    LoadEvent(v1::LoadEvent),
    /// From a proxy to control.
    Proxy(v1::ProxyMessage),
    /// From control to a proxy.
    Update(Box<v1::RoutesUpdate>),
    /// A call, with the model's concrete id and when it was written.
    Call {
        /// The call.
        call: CallId,
        /// Its attempt.
        attempt: u32,
        /// Concrete id of the model.
        model: String,
        /// When its bytes were written.
        written: Nanos,
        /// The life of the server that the connection was made to.
        life: u64,
    },
    /// What the model server answers: the model that ran, or none.
    Answer {
        /// The call.
        call: CallId,
        /// Its attempt.
        attempt: u32,
        /// Who answered; `None` = NOT_FOUND.
        model: Option<String>,
    },
    /// The other end has closed.
    Closed,
}

/// Something that happens to a connection.
#[derive(Debug)]
pub enum Wire {
    /// A dial reaches its target.
    Arrives(ConnId),
    /// The dialler knows how that ended.
    Dialled(ConnId, Dialled),
    /// A message arrives at an end.
    Delivered(ConnId, usize, Box<Message>),
    /// An end notices that the connection is lost.
    Lost(ConnId, usize, Node, u64),
    /// The keepalive of the dialler.
    Keepalive(ConnId),
}

/// How a dial ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialled {
    /// There is a connection.
    Connected,
    /// Nobody listens.
    Refused,
    /// No answer in time.
    TimedOut,
}

// === impl Network ===

impl Network {
    /// A connection, while it is there.
    #[must_use]
    pub fn get(&self, conn: ConnId) -> Option<&Conn> {
        self.conns.get(&conn)
    }

    /// Whether an end may still write.
    #[must_use]
    pub fn is_open(&self, conn: ConnId, end: usize) -> bool {
        self.conns.get(&conn).is_some_and(|conn| conn.open[end])
    }

    fn link(&self, from: Node, to: Node) -> Link {
        self.links.get(&(from, to)).copied().unwrap_or_default()
    }

    fn between(&self, a: Node, b: Node) -> Vec<ConnId> {
        let joins = |conn: &Conn| conn.stands && (conn.ends == [a, b] || conn.ends == [b, a]);
        self.conns.iter().filter(|(_, conn)| joins(conn)).map(|(id, _)| *id).collect()
    }
}

// === impl World ===

impl World {
    /// Dials. Ends with a [`Wire::Dialled`] at the dialler.
    pub fn dial(&mut self, from: Node, to: Node, kind: Kind) -> ConnId {
        let conn = self.new_conn(from, to, kind);
        let there = self.arrival(from, to, 0);
        let back = self.arrival(to, from, there);
        if back > self.now + CONNECT {
            self.network.conns.remove(&conn);
            let start = self.process(from).start;
            self.queue.push(self.now + CONNECT, Event::TimedOut(conn, from, start));
        } else {
            self.queue.push(there, Event::Wire(Wire::Arrives(conn)));
        }
        conn
    }

    /// A stream on a transport that stands: it is there at once.
    pub fn open(&mut self, from: Node, to: Node, kind: Kind) -> ConnId {
        let conn = self.new_conn(from, to, kind);
        if let Some(of) = self.network.conns.get_mut(&conn) {
            of.stands = true;
        }
        conn
    }

    /// Writes a message at an end; nothing where that end is closed.
    pub fn send(&mut self, conn: ConnId, end: usize, message: Message) {
        if self.network.is_open(conn, end) {
            self.transmit(conn, end, message);
        }
    }

    /// Closes an end; the other one learns of it in order.
    pub fn close(&mut self, conn: ConnId, end: usize) {
        if let Some(of) = self.network.conns.get_mut(&conn).filter(|of| of.open[end]) {
            of.open[end] = false;
            self.transmit(conn, end, Message::Closed);
        }
    }

    /// All connections of a process that is gone are closed.
    pub(crate) fn close_all(&mut self, node: Node) {
        let of: Vec<_> = self.network.conns.iter().filter(|(_, conn)| conn.ends.contains(&node)).collect();
        let of: Vec<_> = of.into_iter().map(|(id, conn)| (*id, usize::from(conn.ends[1] == node))).collect();
        for (conn, end) in of {
            self.close(conn, end);
        }
    }

    /// Keeps what is sent one way between two processes for so long.
    pub fn block(&mut self, from: Node, to: Node, time: Nanos) {
        let until = self.now + time;
        let link = self.network.links.entry((from, to)).or_default();
        link.blocked = link.blocked.max(until);
        if time > KEEPALIVE {
            for conn in self.network.between(from, to) {
                let jitter = self.random.random_range(0..millis(500));
                self.queue.push(self.now + KEEPALIVE + jitter, Event::Wire(Wire::Keepalive(conn)));
            }
        }
    }

    /// A process that stands still answers no keepalive.
    pub(crate) fn falls_silent(&mut self, node: Node) {
        let to = self.network.conns.iter().filter(|(_, conn)| conn.stands && conn.ends[1] == node);
        for conn in to.map(|(conn, _)| *conn).collect::<Vec<_>>() {
            let jitter = self.random.random_range(0..millis(500));
            self.queue.push(self.now + KEEPALIVE + jitter, Event::Wire(Wire::Keepalive(conn)));
        }
    }

    /// What is sent one way between two processes is so much later, for so long.
    pub fn slow(&mut self, from: Node, to: Node, delay: Nanos, time: Nanos) {
        let until = self.now + time;
        let link = self.network.links.entry((from, to)).or_default();
        (link.slow, link.delay) = (until, delay);
    }

    /// All connections between two processes are lost.
    pub fn reset(&mut self, a: Node, b: Node) {
        for conn in self.network.between(a, b) {
            let Some(lost) = self.network.conns.remove(&conn) else { continue };
            let late = self.random.random_range(0..2_usize);
            for end in 0..2 {
                let delay = if end == late && self.random.random_bool(0.5) { KEEPALIVE } else { millis(5) };
                let at = self.now + self.random.random_range(0..delay);
                if lost.open[end] {
                    self.queue.push(at, Event::Wire(Wire::Lost(conn, end, lost.ends[end], lost.starts[end])));
                }
            }
        }
    }

    /// All connections between two processes are lost; each end notices after this time.
    pub fn cut(&mut self, a: (Node, Nanos), b: (Node, Nanos)) {
        for conn in self.network.between(a.0, b.0) {
            let Some(lost) = self.network.conns.remove(&conn) else { continue };
            for end in (0..2).filter(|end| lost.open[*end]) {
                let after = if lost.ends[end] == a.0 { a.1 } else { b.1 };
                let event = Event::Wire(Wire::Lost(conn, end, lost.ends[end], lost.starts[end]));
                self.queue.push(self.now + after, event);
            }
        }
    }

    /// The network is well again.
    pub fn heal_links(&mut self) {
        self.network.links.clear();
    }

    pub(crate) fn wire(&mut self, wire: Wire) {
        match wire {
            Wire::Arrives(conn) => self.arrives(conn),
            Wire::Dialled(conn, how) => self.dialled(conn, how),
            Wire::Delivered(conn, end, message) => self.delivered(conn, end, *message),
            Wire::Lost(conn, end, node, start) => {
                if self.process(node).start == start && self.process(node).up {
                    self.closed(node, conn, end);
                }
            }
            Wire::Keepalive(conn) => {
                let Some(of) = self.network.get(conn) else { return };
                let [a, b] = of.ends;
                let blocked = self.network.link(a, b).blocked.max(self.network.link(b, a).blocked) > self.now;
                let silent = of.kind != Kind::Data && self.process(b).frozen.is_some();
                if (blocked || silent) && of.open[0] {
                    self.close(conn, 0);
                    self.closed(a, conn, 0);
                }
            }
        }
    }

    /// The process that an event of the network is for.
    pub(crate) fn wire_target(&self, wire: &Wire) -> Option<(Node, u64)> {
        match wire {
            Wire::Arrives(_) => None,
            Wire::Dialled(conn, _) | Wire::Keepalive(conn) => {
                self.network.get(*conn).map(|conn| (conn.ends[0], conn.starts[0]))
            }
            Wire::Delivered(conn, end, _) => self.network.get(*conn).map(|conn| (conn.ends[*end], conn.starts[*end])),
            Wire::Lost(_, _, node, start) => Some((*node, *start)),
        }
    }

    /// Whether a delivery has to wait for its link.
    pub(crate) fn is_held_back(&mut self, wire: &Wire) -> Option<Nanos> {
        let Wire::Delivered(conn, end, _) = wire else { return None };
        let of = self.network.conns.get(conn)?;
        let blocked = self.network.link(of.ends[1 - end], of.ends[*end]).blocked;
        if blocked <= self.now {
            return None;
        }
        let of = self.network.conns.get_mut(conn)?;
        of.last[*end] = of.last[*end].max(blocked);
        Some(blocked)
    }

    fn new_conn(&mut self, from: Node, to: Node, kind: Kind) -> ConnId {
        self.network.dialled += 1;
        let conn = self.network.dialled;
        let starts = [self.process(from).start, self.process(to).start];
        let last = [self.now; 2];
        self.network.conns.insert(conn, Conn { kind, ends: [from, to], starts, open: [true; 2], stands: false, last });
        conn
    }

    fn arrives(&mut self, conn: ConnId) {
        let Some(of) = self.network.conns.get_mut(&conn) else { return };
        let [from, to] = of.ends;
        let process = &self.processes[&to];
        of.starts[1] = process.start;
        let how = if process.up { Dialled::Connected } else { Dialled::Refused };
        if how == Dialled::Refused {
            of.open[1] = false;
        }
        let at = self.arrival(to, from, 0);
        self.queue.push(at, Event::Wire(Wire::Dialled(conn, how)));
    }

    fn dialled(&mut self, conn: ConnId, how: Dialled) {
        let Some(of) = self.network.conns.get_mut(&conn) else { return };
        of.stands = true;
        let ([from, to], kind) = (of.ends, of.kind);
        if how != Dialled::Connected {
            self.network.conns.remove(&conn);
        } else if self.process(to).frozen.is_some() {
            self.queue.push(self.now + KEEPALIVE, Event::Wire(Wire::Keepalive(conn)));
        }
        self.dial_ended(from, conn, kind, how);
    }

    fn delivered(&mut self, conn: ConnId, end: usize, message: Message) {
        let Some(of) = self.network.conns.get_mut(&conn) else { return };
        let node = of.ends[end];
        if !of.open[end] {
            if matches!(message, Message::Closed) {
                self.network.conns.remove(&conn);
            }
            return;
        }
        match message {
            Message::Closed => {
                let (stood, kind) = (of.stands, of.kind);
                self.network.conns.remove(&conn);
                if stood {
                    self.closed(node, conn, end);
                } else {
                    self.dial_ended(node, conn, kind, Dialled::TimedOut);
                }
            }
            message => self.received(node, conn, message),
        }
    }

    fn transmit(&mut self, conn: ConnId, end: usize, message: Message) {
        let Some(of) = self.network.conns.get(&conn) else { return };
        let (from, to, last) = (of.ends[end], of.ends[1 - end], of.last[1 - end]);
        let at = self.arrival(from, to, last);
        if let Some(of) = self.network.conns.get_mut(&conn) {
            of.last[1 - end] = at;
        }
        self.queue.push(at, Event::Wire(Wire::Delivered(conn, 1 - end, Box::new(message))));
    }

    /// When something sent now arrives, not before `after`.
    fn arrival(&mut self, from: Node, to: Node, after: Nanos) -> Nanos {
        let link = self.network.link(from, to);
        let usual = if self.random.random_bool(0.02) { millis(60) } else { millis(2) };
        let slow = if link.slow > self.now { link.delay } else { 0 };
        let delay = self.random.random_range(50_000..usual) + slow;
        (self.now.max(link.blocked) + delay).max(after)
    }
}
