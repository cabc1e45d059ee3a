//! Who is there, and the loop that hands each event to whom it concerns.

use std::{collections::BTreeMap, hash::Hasher, sync::Arc, time::Duration};

use modelring_placement::{
    id::{InstanceId, ModelId},
    pod::Attempt,
    time::Time,
};
use rand::{Rng, SeedableRng, rngs::SmallRng};

use crate::{
    agent::Pod,
    call::{Call, Timer as CallTimer},
    checks::Checks,
    control::Control,
    desired::{Desires, Store},
    faults::Fault,
    log::Log,
    millis,
    network::{ConnId, Dialled, Kind, Message, Network, Wire},
    process::{Node, Process},
    proxy::Proxy,
    queue::{Nanos, Queue},
    server::Command,
};

/// Number of a call.
pub type CallId = u64;

/// Something that happens.
#[derive(Debug)]
pub enum Event {
    /// On the network.
    Wire(Wire),
    /// A dial of this process found nobody in time.
    TimedOut(ConnId, Node, u64),
    /// A time that a process waits for.
    Timer(Node, u64, Timer),
    /// A stopped process goes on.
    Thaw(Node, u64),
    /// A process starts (again).
    Start(Node),
    /// A fault, or a change of what users ask for.
    Fault(Fault),
    /// A caller calls a service by one of the proxies.
    Caller(usize, String, Option<Duration>),
}

/// What a process waits for.
#[derive(Clone, Debug)]
pub enum Timer {
    /// The agent's pod asked to be woken.
    Tick,
    /// The agent tries to shake hands with its server.
    Handshake,
    /// The agent tells of its memory.
    Ledger,
    /// The agent looks whether it may end.
    Leaving(Nanos),
    /// A size is known.
    Sized(ModelId, Attempt),
    /// A pull has ended.
    Pulled(ModelId, Attempt),
    /// The server says something to its agent.
    Reply(crate::server::Reply),
    /// Its agent, or its own work, says something to the server.
    Command(Command),
    /// A proxy pings an instance on a connection.
    Ping(InstanceId, ConnId),
    /// A proxy dials an instance.
    DialAgent(InstanceId),
    /// A proxy dials control.
    DialControl,
    /// A proxy reports use.
    Report,
    /// A search of a proxy goes on.
    Search(ModelId),
    /// A call at a proxy.
    Call(CallId, CallTimer),
    /// Control derives what follows.
    Evaluate,
    /// Control looks at what waits.
    Look,
    /// Control looks whether another one has taken over.
    Epoch,
    /// Control pings an agent on a connection.
    ControlPing(String, ConnId),
    /// Control dials an agent.
    ControlDial(String),
    /// A load that control asked for has had its time.
    AskEnds(ConnId, u32),
}

/// All there is.
pub struct World {
    /// The time that no process sees.
    pub now: Nanos,
    /// What is to come.
    pub queue: Queue<Event>,
    /// All chance.
    pub random: SmallRng,
    /// Connections.
    pub network: Network,
    /// Lives.
    pub processes: BTreeMap<Node, Process>,
    /// Pods.
    pub pods: Vec<Pod>,
    /// Proxies.
    pub proxies: Vec<Proxy>,
    /// Controls; they share what is kept.
    pub controls: Vec<Control>,
    /// What is kept for controls.
    pub store: Arc<Store>,
    /// What users ask for.
    pub desires: Desires,
    /// Calls that are not answered, and those that were.
    pub calls: BTreeMap<CallId, Call>,
    /// What must hold.
    pub checks: Checks,
    /// Settings of this world.
    pub shape: Shape,
    /// Where each event is told.
    pub log: Log,
    pub(crate) called: CallId,
    runtime: Option<tokio::runtime::Runtime>,
    hash: std::collections::hash_map::DefaultHasher,
    /// Events so far.
    pub events: u64,
}

/// Settings of a world.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Pods.
    pub pods: usize,
    /// Proxies.
    pub proxies: usize,
    /// Controls that may run.
    pub controls: usize,
    /// Bytes of each pod.
    pub capacity: u64,
    /// Loads at once in a pod.
    pub concurrency: usize,
    /// Load timeout of the runtime.
    pub load_timeout: Duration,
    /// Churn guard of the agents.
    pub churn: Duration,
    /// Time that drains may take.
    pub drain_timeout: Duration,
    /// Place budget.
    pub place_timeout: Duration,
    /// How late an agent notices the end of its server by itself; chance where none.
    pub notice: Option<Nanos>,
    /// A storage that answers nothing but errors, in this share of asks.
    pub storage_fails: f64,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            pods: 2,
            proxies: 2,
            controls: 1,
            capacity: 100,
            concurrency: 2,
            load_timeout: Duration::from_secs(8),
            churn: Duration::from_secs(1),
            drain_timeout: Duration::from_secs(10),
            place_timeout: Duration::from_secs(30),
            notice: None,
            storage_fails: 0.0,
        }
    }
}

// === impl World ===

impl World {
    /// A world in which nothing runs yet.
    #[must_use]
    pub fn new(seed: u64, shape: Shape) -> Self {
        let mut random = SmallRng::seed_from_u64(seed);
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime that is never run");
        let mut processes = BTreeMap::new();
        let nodes = (0..shape.pods).flat_map(|n| [Node::Agent(n), Node::Server(n)]);
        let nodes = nodes.chain((0..shape.proxies).map(Node::Proxy)).chain((0..shape.controls).map(Node::Control));
        for node in nodes {
            processes.insert(node, Process::new(random.random_range(millis(1)..millis(1_000_000))));
        }
        Self {
            now: millis(1000),
            queue: Queue::default(),
            network: Network::default(),
            processes,
            pods: (0..shape.pods).map(Pod::new).collect(),
            proxies: (0..shape.proxies).map(|_| Proxy::default()).collect(),
            controls: (0..shape.controls).map(|_| Control::default()).collect(),
            store: Arc::default(),
            desires: Desires::new(&shape),
            calls: BTreeMap::new(),
            checks: Checks::default(),
            log: Log::Off,
            called: 0,
            runtime: Some(runtime),
            hash: std::collections::hash_map::DefaultHasher::new(),
            events: 0,
            random,
            shape,
        }
    }

    /// Everything starts, the servers first.
    pub fn start_all(&mut self) {
        let mut nodes: Vec<_> = self.processes.keys().copied().collect();
        nodes.sort_by_key(|node| (!matches!(node, Node::Server(_)), *node));
        nodes.retain(|node| !matches!(node, Node::Control(n) if *n > 0));
        for node in nodes {
            self.start(node);
        }
    }

    /// Goes on for so long.
    pub fn run(&mut self, time: Nanos) {
        let end = self.now + time;
        while let Some((at, event)) = self.queue.pop(end) {
            self.now = at;
            self.happen(event);
        }
        self.now = end;
    }

    /// Goes on until something is so, and says whether it came to that within `time`.
    pub fn run_until(&mut self, time: Nanos, is_so: impl Fn(&mut Self) -> bool) -> bool {
        let end = self.now + time;
        while !is_so(self) {
            let Some((at, event)) = self.queue.pop(end) else {
                self.now = end;
                return is_so(self);
            };
            self.now = at;
            self.happen(event);
        }
        true
    }

    /// A number that tells runs apart.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        self.hash.finish()
    }

    /// The time of a process.
    #[must_use]
    pub fn clock(&self, node: Node) -> Time {
        self.processes[&node].clock(self.now)
    }

    /// A process.
    #[must_use]
    pub fn process(&self, node: Node) -> &Process {
        &self.processes[&node]
    }

    /// Whether a process runs and is not stopped.
    #[must_use]
    pub fn is_well(&self, node: Node) -> bool {
        let process = self.process(node);
        process.up && process.frozen.is_none()
    }

    /// Plans a time for a process, as it is now.
    pub fn timer(&mut self, node: Node, after: Nanos, timer: Timer) {
        let start = self.process(node).start;
        self.queue.push(self.now + after, Event::Timer(node, start, timer));
    }

    /// A handle to a runtime on which nothing ever runs: what the proxy spawns there is done by the simulation.
    pub(crate) fn idle_runtime(&self) -> tokio::runtime::Handle {
        self.runtime.as_ref().expect("it is dropped with the world").handle().clone()
    }

    /// Says what happens, where somebody listens.
    pub fn say(&self, what: impl FnOnce() -> String) {
        self.log.write(self.now, what);
    }

    fn happen(&mut self, event: Event) {
        self.events += 1;
        if let Event::Wire(wire) = &event
            && let Some(until) = self.is_held_back(wire)
        {
            self.queue.push(until, event);
            return;
        }
        let target = match &event {
            Event::Wire(wire) => match self.wire_target(wire) {
                Some(target) => Some(target),
                None if matches!(wire, Wire::Arrives(_)) => None,
                None => return,
            },
            Event::TimedOut(_, node, start) | Event::Timer(node, start, _) => Some((*node, *start)),
            _ => None,
        };
        if let Some((node, start)) = target {
            let process = self.processes.get_mut(&node).expect("all nodes are processes");
            if !process.up || process.start != start {
                return;
            }
            if process.frozen.is_some() {
                process.backlog.push(event);
                return;
            }
        }
        self.hash.write_u64(self.now);
        self.hash.write_u8(event.tag());
        if !matches!(self.log, Log::Off) && !event.is_dull() {
            let text = format!("{event:?}");
            self.say(|| text.chars().take(300).collect());
        }
        let node = target.map(|(node, _)| node);
        match event {
            Event::Wire(wire) => self.wire(wire),
            Event::TimedOut(conn, node, _) => self.dial_timed_out(node, conn),
            Event::Timer(node, _, timer) => self.timer_comes(node, timer),
            Event::Thaw(node, start) => self.thaw(node, start),
            Event::Start(node) => self.start(node),
            Event::Fault(fault) => self.fault(fault),
            Event::Caller(proxy, service, deadline) => {
                self.call(proxy, &service, deadline);
            }
        }
        match node {
            Some(Node::Proxy(n)) => self.drive_proxy(n),
            Some(Node::Control(n)) => self.drive_control(n),
            _ => {}
        }
        self.check();
    }

    fn timer_comes(&mut self, node: Node, timer: Timer) {
        match node {
            Node::Agent(n) => self.agent_timer(n, timer),
            Node::Server(n) => {
                if let Timer::Command(command) = timer {
                    self.server_command(n, command);
                }
            }
            Node::Proxy(n) => self.proxy_timer(n, timer),
            Node::Control(n) => self.control_timer(n, timer),
        }
    }

    /// A message for a process.
    pub(crate) fn received(&mut self, node: Node, conn: ConnId, message: Message) {
        match node {
            Node::Agent(n) => self.agent_hears(n, conn, message),
            Node::Server(n) => self.server_hears(n, conn, message),
            Node::Proxy(n) => self.proxy_hears(n, conn, message),
            Node::Control(n) => self.control_hears(n, conn, message),
        }
    }

    /// A process notices that a connection is over.
    pub(crate) fn closed(&mut self, node: Node, conn: ConnId, _end: usize) {
        match node {
            Node::Agent(n) => self.agent_loses(n, conn),
            Node::Server(_) => {}
            Node::Proxy(n) => self.proxy_loses(n, conn),
            Node::Control(n) => self.control_loses(n, conn),
        }
    }

    pub(crate) fn dial_ended(&mut self, node: Node, conn: ConnId, kind: Kind, how: Dialled) {
        match node {
            Node::Proxy(n) => self.proxy_dialled(n, conn, kind, how),
            Node::Control(n) => self.control_dialled(n, conn, how),
            Node::Agent(_) | Node::Server(_) => {}
        }
    }

    fn dial_timed_out(&mut self, node: Node, conn: ConnId) {
        match node {
            Node::Proxy(n) => self.proxy_dialled(n, conn, Kind::Watch, Dialled::TimedOut),
            Node::Control(n) => self.control_dialled(n, conn, Dialled::TimedOut),
            Node::Agent(_) | Node::Server(_) => {}
        }
    }

    /// A process starts, if it is not there.
    pub fn start(&mut self, node: Node) {
        let process = self.processes.get_mut(&node).expect("all nodes are processes");
        if process.up {
            return;
        }
        (process.up, process.frozen) = (true, None);
        process.start += 1;
        process.backlog.clear();
        self.say(|| format!("{node:?} starts"));
        match node {
            Node::Agent(n) => self.agent_starts(n),
            Node::Server(n) => self.server_starts(n),
            Node::Proxy(n) => self.proxy_starts(n),
            Node::Control(n) => self.control_starts(n),
        }
    }

    /// A process is killed.
    pub fn kill(&mut self, node: Node) {
        let process = self.processes.get_mut(&node).expect("all nodes are processes");
        if !process.up {
            return;
        }
        (process.up, process.frozen) = (false, None);
        process.backlog.clear();
        self.say(|| format!("{node:?} is killed"));
        self.close_all(node);
        match node {
            Node::Agent(n) => self.agent_dies(n),
            Node::Server(n) => self.server_dies(n),
            Node::Proxy(n) => self.proxy_dies(n),
            Node::Control(n) => self.control_dies(n),
        }
    }

    /// A process is stopped for so long; then it handles what came meanwhile.
    pub fn freeze(&mut self, node: Node, time: Nanos) {
        let until = self.now + time;
        let process = self.processes.get_mut(&node).expect("all nodes are processes");
        if !process.up || process.frozen.is_some() {
            return;
        }
        process.frozen = Some(until);
        let start = process.start;
        self.say(|| format!("{node:?} stands still"));
        self.checks.froze(node, self.now, until);
        self.queue.push(until, Event::Thaw(node, start));
        self.falls_silent(node);
    }

    fn thaw(&mut self, node: Node, start: u64) {
        let process = self.processes.get_mut(&node).expect("all nodes are processes");
        if !process.up || process.start != start {
            return;
        }
        process.frozen = None;
        for event in std::mem::take(&mut process.backlog) {
            self.queue.push(self.now, event);
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.proxies.clear();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

// === impl Event ===

impl Event {
    fn tag(&self) -> u8 {
        match self {
            Self::Wire(Wire::Delivered(_, _, message)) => match &**message {
                Message::Watcher(_) => 1,
                Message::Agent(_) => 2,
                Message::Load(_) => 3,
                Message::LoadEvent(_) => 4,
                Message::Proxy(_) => 5,
                Message::Update(_) => 6,
                Message::Call { .. } => 7,
                Message::Answer { .. } => 8,
                Message::Closed => 9,
            },
            Self::Wire(_) => 10,
            Self::TimedOut(..) => 11,
            Self::Timer(..) => 12,
            Self::Thaw(..) => 13,
            Self::Start(_) => 14,
            Self::Fault(_) => 15,
            Self::Caller(..) => 16,
        }
    }

    /// Pings and looks fill pages.
    fn is_dull(&self) -> bool {
        use modelring_proto::v1::{agent_event::Event as Agent, watcher_message::Message as Watcher};
        match self {
            Self::Timer(
                _,
                _,
                Timer::Ping(..) | Timer::ControlPing(..) | Timer::Look | Timer::Report | Timer::Ledger,
            ) => true,
            Self::Wire(Wire::Delivered(_, _, message)) => match &**message {
                Message::Watcher(message) => matches!(message.message, Some(Watcher::Ping(_))),
                Message::Agent(event) => matches!(event.event, Some(Agent::Pong(_) | Agent::Ledger(_))),
                _ => false,
            },
            _ => false,
        }
    }
}
