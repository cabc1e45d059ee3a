//! The shell around an agent's [`modelring_placement::pod::Pod`]: streams, waiters, storage, the model server. It does
//! things in the order of the agent's own core: before a ping is answered the connection to the server is looked at;
//! streams are silent until the handshake is done.

use std::collections::{BTreeMap, BTreeSet};

use modelring_placement::{
    id::{ModelId, ModelRef, WatcherId},
    pod::{
        Action, Attempt, Event as PodEvent, EvictionPolicy, LedgerState, LoadError, Pod as State, ServerLife,
        ServerLimits, Settings, Told, WaiterId,
    },
};
use modelring_proto::{
    PROTOCOL,
    v1::{self, Role, agent_event, watcher_message},
};
use rand::Rng;

use crate::{
    millis,
    network::{ConnId, Message},
    process::Node,
    queue::Nanos,
    secs,
    server::{Command, Held, Reply, Server},
    wire::{change, hints, ledger, load_event, reference, touches, why},
    world::{Event, Timer, World},
};

/// Shortest time between two ticks, as in the agent.
const TICK: Nanos = millis(5);
/// Time between two tries to shake hands.
const HANDSHAKE: Nanos = millis(150);
/// Shortest time between two ledgers.
const LEDGER: Nanos = millis(500);
/// How long a leaving agent stays at most.
const GRACE: Nanos = secs(30);

/// A pod: an agent, a model server, a volume.
#[derive(Debug)]
pub struct Pod {
    /// Instance id.
    pub name: String,
    /// Where its agent is dialled.
    pub address: String,
    /// Its agent, while it runs.
    pub agent: Option<Agent>,
    /// Its model server.
    pub server: Server,
    /// Files on the volume.
    pub files: BTreeSet<ModelId>,
    /// The volume bears the mark of an earlier start.
    pub marked: bool,
}

/// A running agent.
#[derive(Debug)]
pub struct Agent {
    /// Its decisions.
    pub pod: State,
    /// The server process that the handshake was done with.
    pub session: Option<ServerLife>,
    /// Its own count of lives.
    lives: ServerLife,
    streams: BTreeMap<ConnId, Stream>,
    /// Who waits, by the connection.
    waiters: BTreeMap<WaiterId, ConnId>,
    waited: WaiterId,
    /// Sizes and pulls under way.
    jobs: BTreeMap<ModelId, Attempt>,
    /// Models that were ever asked for, by id.
    known: BTreeMap<ModelId, ModelRef>,
    tick: Option<Nanos>,
    ledger_due: bool,
    said: LedgerState,
    left: bool,
}

#[derive(Debug)]
struct Stream {
    watcher: WatcherId,
    role: Role,
    speaks: bool,
    ping: Option<u64>,
}

// === impl Pod ===

impl Pod {
    /// A pod that was never started.
    #[must_use]
    pub fn new(n: usize) -> Self {
        Self {
            name: format!("pod-{n}"),
            address: format!("127.0.0.1:{}", 9000 + n),
            agent: None,
            server: Server::default(),
            files: BTreeSet::new(),
            marked: false,
        }
    }
}

// === impl World ===

impl World {
    pub(crate) fn agent_starts(&mut self, n: usize) {
        let node = Node::Agent(n);
        let boot = self.random.random::<u64>() >> 1;
        let settings = Settings {
            min_churn_age: Some(self.shape.churn),
            eviction: EvictionPolicy::Gdsf,
            drain_timeout: self.shape.drain_timeout,
            started_before: self.pods[n].marked,
        };
        let pod = State::new(boot, settings, self.clock(node));
        let wait = self.process(node).world_time(pod.may_purge_at()).saturating_sub(self.now);
        self.pods[n].marked = true;
        self.pods[n].agent = Some(Agent {
            pod,
            session: None,
            lives: 0,
            streams: BTreeMap::new(),
            waiters: BTreeMap::new(),
            waited: 0,
            jobs: BTreeMap::new(),
            known: BTreeMap::new(),
            tick: None,
            ledger_due: false,
            said: LedgerState::default(),
            left: false,
        });
        self.timer(node, wait, Timer::Handshake);
    }

    pub(crate) fn agent_dies(&mut self, n: usize) {
        self.pods[n].agent = None;
        self.checks.agent_died(n, self.now);
    }

    /// The agent gets SIGTERM.
    pub fn leave(&mut self, n: usize) {
        if !self.is_well(Node::Agent(n)) {
            return;
        }
        let Some(agent) = &mut self.pods[n].agent else { return };
        if std::mem::replace(&mut agent.left, true) {
            return;
        }
        self.push(n, agent_event::Event::Leaving(v1::Leaving {}));
        self.decide(n, PodEvent::Leave);
        let until = self.now + GRACE;
        self.timer(Node::Agent(n), millis(200), Timer::Leaving(until));
    }

    /// A proxy says that the server has not a model which this READY showed.
    pub fn deny(&mut self, n: usize, model: &str, boot: u64, seq: u64) {
        self.decide(n, PodEvent::Missing { model: model.into(), boot, seq });
    }

    pub(crate) fn agent_timer(&mut self, n: usize, timer: Timer) {
        match timer {
            Timer::Tick => {
                if let Some(agent) = &mut self.pods[n].agent {
                    agent.tick = None;
                    self.decide(n, PodEvent::Tick);
                }
            }
            Timer::Handshake => self.handshake(n),
            Timer::Ledger => self.tell_ledger(n),
            Timer::Leaving(until) => {
                let now = self.clock(Node::Agent(n));
                let Some(agent) = &self.pods[n].agent else { return };
                if agent.pod.is_idle(now) || agent.streams.is_empty() || self.now >= until {
                    self.checks.pod_left(n, self.now);
                    self.kill(Node::Agent(n));
                    self.kill(Node::Server(n));
                    self.queue.push(self.now + secs(1), Event::Start(Node::Server(n)));
                    self.queue.push(self.now + secs(2), Event::Start(Node::Agent(n)));
                } else {
                    self.timer(Node::Agent(n), millis(200), Timer::Leaving(until));
                }
            }
            Timer::Sized(model, attempt) => self.sized(n, model, attempt),
            Timer::Pulled(model, attempt) => self.pulled(n, model, attempt),
            Timer::Reply(reply) => self.server_says(n, reply),
            _ => {}
        }
    }

    pub(crate) fn agent_hears(&mut self, n: usize, conn: ConnId, message: Message) {
        match message {
            Message::Watcher(message) => self.watcher_says(n, conn, message),
            Message::Load(request) => {
                let (Some(model), Some(why)) = (request.model.clone().map(reference), why(&request)) else { return };
                let Some(agent) = &mut self.pods[n].agent else { return };
                agent.waited += 1;
                let waiter = agent.waited;
                agent.waiters.insert(waiter, conn);
                agent.known.insert(model.id.clone(), model.clone());
                let replaces = (!request.replaces.is_empty()).then(|| request.replaces.into());
                self.decide(n, PodEvent::Ask { waiter, model, why, replaces });
            }
            _ => {}
        }
    }

    pub(crate) fn agent_loses(&mut self, n: usize, conn: ConnId) {
        let Some(agent) = &mut self.pods[n].agent else { return };
        agent.streams.remove(&conn);
        let waiter = agent.waiters.iter().find(|(_, of)| **of == conn).map(|(waiter, _)| *waiter);
        if let Some(waiter) = waiter {
            agent.waiters.remove(&waiter);
            self.decide(n, PodEvent::WaiterGone(waiter));
        }
    }

    /// Whether the agent's connection to the server that it knows still stands.
    fn server_is_alive(&self, n: usize, life: ServerLife) -> bool {
        self.process(Node::Server(n)).up && self.pods[n].server.life == life
    }

    fn watcher_says(&mut self, n: usize, conn: ConnId, message: v1::WatcherMessage) {
        use watcher_message::Message as Said;
        let now = self.clock(Node::Agent(n));
        let Some(said) = message.message else { return };
        if let Said::Hello(hello) = said {
            let stream = Stream { role: hello.role(), watcher: hello.id.into(), speaks: false, ping: None };
            if let Some(agent) = &mut self.pods[n].agent {
                agent.streams.insert(conn, stream);
            }
            return self.speak(n);
        }
        let Some(agent) = &mut self.pods[n].agent else { return };
        let Some(stream) = agent.streams.get_mut(&conn) else { return };
        let (watcher, role) = (stream.watcher.clone(), stream.role);
        match said {
            Said::Ping(ping) => {
                if let Some(life) = agent.session
                    && !self.server_is_alive(n, life)
                {
                    self.server_is_gone(n, life);
                }
                if role == Role::Proxy {
                    self.decide(n, PodEvent::Ping(watcher));
                }
                let Some(agent) = &mut self.pods[n].agent else { return };
                let Some(stream) = agent.streams.get_mut(&conn) else { return };
                if !stream.speaks {
                    stream.ping = Some(ping.n);
                    return;
                }
                let seq = agent.pod.last_seq();
                let pong = agent_event::Event::Pong(v1::Pong { n: ping.n });
                self.send(conn, 1, Message::Agent(v1::AgentEvent { seq, event: Some(pong) }));
            }
            Said::Touches(said) => {
                self.decide(n, PodEvent::Touches { watcher, touches: touches(said, now) });
            }
            Said::Missing(missing) => {
                // The server's index is asked before a NOT_FOUND is believed.
                let model = ModelId::from(missing.model);
                let (boot, seq) = (missing.boot_id, missing.seq);
                if self.pods[n].server.models.get(&model) != Some(&Held::Loaded) {
                    self.decide(n, PodEvent::Missing { model, boot, seq });
                }
            }
            Said::DrainAck(ack) => {
                let (boot, seq) = (ack.boot_id, ack.seq);
                self.decide(n, PodEvent::DrainAck { watcher, model: ack.model.into(), boot, seq });
            }
            Said::Hints(said) => self.decide(n, PodEvent::Hints(hints(said))),
            Said::Hello(_) => {}
        }
    }

    fn handshake(&mut self, n: usize) {
        let server = Node::Server(n);
        let Some(agent) = &self.pods[n].agent else { return };
        if agent.session.is_some() {
            return;
        }
        if self.is_well(server) && self.pods[n].server.models.is_empty() {
            let life = self.pods[n].server.life;
            let agent = self.pods[n].agent.as_mut().expect("it was there");
            agent.session = Some(life);
            agent.lives += 1;
            let lives = agent.lives;
            let limits = ServerLimits {
                capacity: self.shape.capacity,
                loading_concurrency: self.shape.concurrency,
                load_timeout: self.shape.load_timeout,
                default_size: 10,
            };
            self.decide(n, PodEvent::ServerReady(lives, limits));
            return self.speak(n);
        }
        if self.is_well(server) {
            // Everything that it holds is unloaded; what is being loaded is looked at again.
            let loaded: Vec<_> = self.pods[n].server.models.iter().filter(|(_, held)| **held == Held::Loaded).collect();
            let loaded: Vec<_> = loaded.into_iter().map(|(model, _)| model.clone()).collect();
            for model in loaded {
                self.pods[n].server.models.remove(&model);
                self.checks.server_unloaded(n, &model, self.now);
            }
        }
        self.timer(Node::Agent(n), HANDSHAKE, Timer::Handshake);
    }

    fn server_is_gone(&mut self, n: usize, life: ServerLife) {
        let Some(agent) = self.pods[n].agent.as_mut().filter(|agent| agent.session == Some(life)) else { return };
        agent.session = None;
        let lives = agent.lives;
        self.decide(n, PodEvent::ServerGone(lives));
        self.timer(Node::Agent(n), HANDSHAKE, Timer::Handshake);
    }

    fn server_says(&mut self, n: usize, reply: Reply) {
        let session = self.pods[n].agent.as_ref().and_then(|agent| agent.session);
        match reply {
            Reply::Loaded(model, attempt, life, result) if session == Some(life) => {
                self.decide(n, PodEvent::Loaded(model, attempt, result));
            }
            Reply::Unloaded(model, attempt, life) if session == Some(life) => {
                self.decide(n, PodEvent::Unloaded(model, attempt));
            }
            Reply::Gone(life) => self.server_is_gone(n, life),
            Reply::Loaded(..) | Reply::Unloaded(..) => {}
        }
    }

    fn sized(&mut self, n: usize, model: ModelId, attempt: Attempt) {
        if !self.job_ends(n, &model, attempt) {
            return;
        }
        let Some(path) = self.path(n, &model) else { return };
        let profile = self.desires.profile(&path);
        let (bytes, is_there) = (profile.predicted, profile.is_there);
        let result = if self.random.random_bool(self.shape.storage_fails) {
            Err(storage_is_away())
        } else if is_there {
            Ok(bytes)
        } else {
            Err(LoadError { code: 5, text: format!("{path} is not there"), passing: false })
        };
        self.decide(n, PodEvent::Sized(model, attempt, result));
    }

    fn pulled(&mut self, n: usize, model: ModelId, attempt: Attempt) {
        if !self.job_ends(n, &model, attempt) {
            return;
        }
        let result = if self.random.random_bool(self.shape.storage_fails) {
            Err(storage_is_away())
        } else {
            self.pods[n].files.insert(model.clone());
            Ok(())
        };
        self.decide(n, PodEvent::Pulled(model, attempt, result));
    }

    fn path(&self, n: usize, model: &ModelId) -> Option<String> {
        self.pods[n].agent.as_ref()?.known.get(model).map(|model| model.path.clone())
    }

    fn job_ends(&mut self, n: usize, model: &ModelId, attempt: Attempt) -> bool {
        let Some(agent) = &mut self.pods[n].agent else { return false };
        let is_current = agent.jobs.get(model) == Some(&attempt);
        if is_current {
            agent.jobs.remove(model);
        }
        is_current
    }

    /// Hands an event to the pod and carries out what it says.
    pub(crate) fn decide(&mut self, n: usize, event: PodEvent) {
        let node = Node::Agent(n);
        let now = self.clock(node);
        let Some(agent) = &mut self.pods[n].agent else { return };
        let quiet = matches!(event, PodEvent::Ping(_));
        let cause = format!("{event:?}");
        for action in agent.pod.handle(now, event) {
            self.carry_out(n, action, &cause);
        }
        let Some(agent) = &mut self.pods[n].agent else { return };
        if !quiet && !std::mem::replace(&mut agent.ledger_due, true) {
            self.timer(node, LEDGER, Timer::Ledger);
        }
        self.plan_tick(n);
    }

    fn plan_tick(&mut self, n: usize) {
        let node = Node::Agent(n);
        let Some(wake) = self.pods[n].agent.as_ref().and_then(|agent| agent.pod.next_wake()) else { return };
        let at = self.process(node).world_time(wake).max(self.now + TICK);
        let agent = self.pods[n].agent.as_mut().expect("it was there");
        if agent.tick.is_none_or(|tick| at < tick) {
            agent.tick = Some(at);
            self.timer(node, at - self.now, Timer::Tick);
        }
    }

    fn carry_out(&mut self, n: usize, action: Action, cause: &str) {
        let (node, server) = (Node::Agent(n), Node::Server(n));
        let start = self.process(node).start;
        self.say(|| format!("  {} {action:?}", self.pods[n].name));
        let life = self.pods[n].agent.as_ref().and_then(|agent| agent.session).unwrap_or_default();
        match action {
            Action::Size(model, attempt) => {
                let after = self.random.random_range(millis(1)..millis(40));
                self.begin_job(n, &model.id, attempt);
                self.timer(node, after, Timer::Sized(model.id, attempt));
            }
            Action::Pull(model, attempt) => {
                let is_here = self.pods[n].files.contains(&model.id);
                let most = if is_here { millis(20) } else { millis(1500) };
                let after = self.random.random_range(millis(5)..most);
                self.begin_job(n, &model.id, attempt);
                self.checks.pulls(n, &model.id);
                self.timer(node, after, Timer::Pulled(model.id, attempt));
            }
            Action::CancelPull(model, attempt) => {
                self.job_ends(n, &model, attempt);
            }
            Action::Load(model, attempt) => {
                let by = (start, attempt);
                let command = Command::Load { model: model.id.clone(), path: model.path, by, life };
                if self.server_is_alive(n, life) {
                    let after = self.random.random_range(100_000..millis(2));
                    self.timer(server, after, Timer::Command(command));
                }
            }
            Action::Unload(model, attempt) => {
                self.checks_before_unload(n, &model, cause);
                if self.server_is_alive(n, life) {
                    let after = self.random.random_range(100_000..millis(2));
                    self.timer(server, after, Timer::Command(Command::Unload { model, by: (start, attempt), life }));
                }
            }
            Action::Emit(news) => {
                let event = change(&news, self.clock(node));
                self.checks.count("changes of copies");
                self.checks.emitted(n, &news, self.now);
                self.push_event(n, &event);
            }
            Action::Tell(waiter, told) => {
                let Some(agent) = &mut self.pods[n].agent else { return };
                let ends = !matches!(told, Told::Accepted { .. });
                let conn = if ends { agent.waiters.remove(&waiter) } else { agent.waiters.get(&waiter).copied() };
                let boot = agent.pod.boot();
                if let Some(conn) = conn {
                    self.send(conn, 1, Message::LoadEvent(load_event(told, boot)));
                }
            }
        }
    }

    fn begin_job(&mut self, n: usize, model: &ModelId, attempt: Attempt) {
        if let Some(agent) = &mut self.pods[n].agent {
            agent.jobs.insert(model.clone(), attempt);
        }
    }

    fn push(&mut self, n: usize, event: agent_event::Event) {
        let Some(agent) = &self.pods[n].agent else { return };
        let event = v1::AgentEvent { seq: agent.pod.last_seq(), event: Some(event) };
        self.push_event(n, &event);
    }

    fn push_event(&mut self, n: usize, event: &v1::AgentEvent) {
        let Some(agent) = &self.pods[n].agent else { return };
        let open: Vec<_> = agent.streams.iter().filter(|(_, stream)| stream.speaks).map(|(conn, _)| *conn).collect();
        for conn in open {
            self.send(conn, 1, Message::Agent(event.clone()));
        }
    }

    /// Gives the silent streams their snapshot, once there is a server to speak of.
    fn speak(&mut self, n: usize) {
        let now = self.clock(Node::Agent(n));
        let instance_id = self.pods[n].name.clone();
        let Some(agent) = self.pods[n].agent.as_mut().filter(|agent| agent.session.is_some()) else { return };
        let seq = agent.pod.last_seq();
        let event = |event| v1::AgentEvent { seq, event: Some(event) };
        let hello = v1::Hello {
            protocol: PROTOCOL,
            instance_id,
            pod_uid: format!("uid-{n}"),
            boot_id: agent.pod.boot(),
            runtime: crate::desired::RUNTIME.to_owned(),
            load_timeout_millis: u64::try_from(self.shape.load_timeout.as_millis()).unwrap_or(u64::MAX),
            loading_concurrency: u32::try_from(self.shape.concurrency).unwrap_or(1),
            ..v1::Hello::default()
        };
        let mut snapshot = vec![event(agent_event::Event::Hello(hello))];
        snapshot.extend(agent.pod.copies().map(|copy| change(&copy, now)));
        snapshot.push(event(agent_event::Event::SnapshotEnd(v1::SnapshotEnd {})));
        snapshot.push(event(agent_event::Event::Ledger(ledger(&agent.pod.ledger(now)))));
        if agent.left {
            snapshot.push(event(agent_event::Event::Leaving(v1::Leaving {})));
        }
        let mut all = Vec::new();
        for (conn, stream) in agent.streams.iter_mut().filter(|(_, stream)| !stream.speaks) {
            stream.speaks = true;
            let pong = stream.ping.take().map(|n| event(agent_event::Event::Pong(v1::Pong { n })));
            all.extend(snapshot.iter().cloned().chain(pong).map(|event| (*conn, event)));
        }
        for (conn, event) in all {
            self.send(conn, 1, Message::Agent(event));
        }
    }

    fn tell_ledger(&mut self, n: usize) {
        let now = self.clock(Node::Agent(n));
        let Some(agent) = &mut self.pods[n].agent else { return };
        agent.ledger_due = false;
        let state = agent.pod.ledger(now);
        let aged = LedgerState { next_victim_age: agent.said.next_victim_age, ..state };
        if aged == agent.said {
            return;
        }
        agent.said = state;
        let seq = agent.pod.last_seq();
        let event = v1::AgentEvent { seq, event: Some(agent_event::Event::Ledger(ledger(&state))) };
        // Proxies do not look at it.
        let controls = agent.streams.iter().filter(|(_, stream)| stream.speaks && stream.role == Role::Control);
        let controls: Vec<_> = controls.map(|(conn, _)| *conn).collect();
        for conn in controls {
            self.send(conn, 1, Message::Agent(event.clone()));
        }
    }
}

fn storage_is_away() -> LoadError {
    LoadError { code: 14, text: "storage is away".to_owned(), passing: true }
}
