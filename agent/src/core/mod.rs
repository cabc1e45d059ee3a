//! The one task that owns the [`Pod`]: whatever happens comes in as a [`Message`], in one order, and whatever the pod wants
//! done goes out from here. Nothing in here waits: what takes time is a job (`jobs.rs`), and whoever does not read what is
//! pushed to him is dropped.
//!
//! Before a ping is answered the connection to the model server is looked at. Has it ended, then GONE goes out for all
//! that the server held before the pong does.

mod jobs;
mod message;
mod news;
mod sizes;
mod waiters;
mod watchers;

use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use modelring_placement::{
    id::{ModelId, WatcherId},
    pod::{Action, Attempt, CopyState, Event, LoadedModel, Pod, ServerLife},
    time::Time,
};
use modelring_process::probes::{BEAT, Health};
use modelring_proto::v1::{AgentEvent, Role, agent_event};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::{
    clock,
    metrics::{Lives, Look, Metrics},
    server::Session,
    storage::store::{Files, Pin, Store},
    wire,
};
use jobs::Jobs;
pub(crate) use message::{Message, Sized};
use news::LedgerNews;
use sizes::Sizes;
pub(crate) use waiters::UNREAD;
use waiters::Waiters;
use watchers::Watchers;
pub(crate) use watchers::{Opened, StreamId, Watch};

/// Messages that may wait for the core; who sends more waits.
const MAILBOX: usize = 1024;
/// Shortest time between two ticks.
const TICK: Duration = Duration::from_millis(5);
/// Time between two looks whether a leaving agent may end.
const LEAVING: Duration = Duration::from_millis(200);

/// Models whose files are removed when they are unloaded.
#[derive(Debug, Default)]
struct Unkept {
    /// In no table, as control said last.
    gone: HashSet<ModelId>,
    /// The server would not have them: they are pulled anew before it is tried again.
    refused: HashSet<ModelId>,
}

/// The task.
pub(crate) struct Core {
    pod: Pod,
    jobs: Jobs,
    /// Who the agent is, for `Hello`; what depends on the server is filled in at each handshake.
    hello: modelring_proto::v1::Hello,
    server: Option<(ServerLife, Arc<dyn Session>)>,
    waiters: Waiters,
    watchers: Watchers,
    /// Jobs that may be given up.
    pulls: HashMap<ModelId, (Attempt, CancellationToken)>,
    /// What was brought for loads that are to come.
    files: HashMap<ModelId, (Attempt, Files, Pin)>,
    /// Files that the server has, or is about to get.
    pins: HashMap<ModelId, (Attempt, Pin)>,
    /// Models whose files are not worth keeping: in no table, or refused by the server.
    unkept: Unkept,
    sizes: Sizes,
    ledger: LedgerNews,
    ticked: Time,
    leaving: Option<oneshot::Sender<()>>,
    left: bool,
    health: Health,
    lives: Lives,
}

// === impl Core ===

impl Core {
    /// A core and the way to it. `sizes`: the file in which it keeps what it learns of sizes.
    pub(crate) fn new(
        pod: Pod,
        store: Arc<Store>,
        sizes: PathBuf,
        hello: modelring_proto::v1::Hello,
        stop: CancellationToken,
        health: Health,
        metrics: Arc<Metrics>,
    ) -> (Self, mpsc::Sender<Message>, mpsc::Receiver<Message>) {
        let (sender, receiver) = mpsc::channel(MAILBOX);
        let core = Self {
            pod,
            jobs: Jobs { store, core: sender.clone(), stop, metrics: metrics.clone() },
            lives: Lives::new(metrics),
            hello,
            server: None,
            waiters: Waiters::default(),
            watchers: Watchers::default(),
            pulls: HashMap::new(),
            files: HashMap::new(),
            pins: HashMap::new(),
            unkept: Unkept::default(),
            sizes: Sizes::read(sizes),
            ledger: LedgerNews::default(),
            ticked: Time::ZERO,
            leaving: None,
            left: false,
            health,
        };
        (core, sender, receiver)
    }

    /// Runs until the agent stops.
    pub(crate) async fn run(mut self, mut mailbox: mpsc::Receiver<Message>) {
        let stop = self.jobs.stop.clone();
        let heart = self.health.pulse.heart("core");
        loop {
            heart.beat();
            tokio::select! {
                () = stop.cancelled() => break,
                Some(message) = mailbox.recv() => self.receive(message),
                () = clock::sleep_until(self.next_wake()) => {}
                () = tokio::time::sleep(BEAT) => {}
            }
            self.catch_up();
        }
        heart.rest();
        self.sizes.settle().await;
        self.watchers.end(&Status::unavailable("the agent has stopped"));
    }

    fn next_wake(&self) -> Option<Time> {
        let tick = self.pod.next_wake().map(|at| at.max(self.ticked + TICK));
        let leaving = self.leaving.is_some().then(|| clock::now() + LEAVING);
        [tick, self.ledger.next_wake(), leaving].into_iter().flatten().min()
    }

    /// Does what is due, whatever woke the core.
    fn catch_up(&mut self) {
        let now = clock::now();
        self.sizes.keep();
        if self.pod.next_wake().is_some_and(|at| at <= now) && now >= self.ticked + TICK {
            self.ticked = now;
            self.decide(Event::Tick);
        }
        if let Some(ledger) = self.ledger.due(now, || self.pod.ledger(now)) {
            let event = self.event(agent_event::Event::Ledger(wire::ledger(&ledger)));
            self.watchers.push(&event);
        }
        if self.leaving.is_some()
            && (self.pod.is_idle(now) || self.watchers.is_empty())
            && let Some(done) = self.leaving.take()
        {
            let _ = done.send(());
        }
    }

    fn receive(&mut self, message: Message) {
        match message {
            Message::Ask { waiter, model, why, replaces, events } => {
                self.waiters.add(waiter, model.id.clone(), events);
                self.decide(Event::Ask { waiter, model, why, replaces });
            }
            Message::WaiterGone(waiter) => {
                if self.waiters.remove(waiter) {
                    self.decide(Event::WaiterGone(waiter));
                }
            }
            Message::Watch(watch) => {
                self.watchers.wait(watch);
                self.speak();
            }
            Message::Unwatch(stream) => self.watchers.remove(stream),
            Message::Ping(stream, n) => self.ping(stream, n),
            Message::Missing { model, boot, seq, asked: false } => {
                if let Some((_, session)) = &self.server {
                    self.jobs.missing(
                        session.clone(),
                        model.clone(),
                        Message::Missing { model, boot, seq, asked: true },
                    );
                }
            }
            Message::Missing { model, boot, seq, asked: true } => self.decide(Event::Missing { model, boot, seq }),
            Message::Heard(event) => {
                if let Event::Hints(hints) = &event {
                    self.unkept.gone = hints.gone.iter().cloned().collect();
                }
                self.decide(event);
            }
            Message::Up(life, session) => self.up(life, session),
            Message::Down(life) => self.down(life),
            Message::Sized(model, model_type, attempt, sized) => {
                self.job_is_done(&model, attempt);
                let bytes = sized.map(|sized| match (sized.known, self.sizes.expected(&model_type, sized.on_disk)) {
                    (Some(bytes), _) => bytes,
                    (None, 0) => sized.default,
                    (None, bytes) => bytes,
                });
                self.decide(Event::Sized(model, attempt, bytes));
            }
            Message::Progress(model, attempt, bytes, of_bytes) => {
                if self.pulls.get(&model).is_some_and(|(current, _)| *current == attempt) {
                    self.waiters.progress(&model, "pulling", bytes, of_bytes);
                }
            }
            Message::Pulled(model, attempt, pulled) => {
                // The files of a pull that was given up are let go of here.
                if self.job_is_done(&model, attempt).is_some() {
                    let pulled =
                        pulled.map(|(files, pin)| drop(self.files.insert(model.clone(), (attempt, files, pin))));
                    self.decide(Event::Pulled(model, attempt, pulled));
                }
            }
            Message::Loaded { model, model_type, on_disk, attempt, loaded } => {
                match &loaded {
                    Ok(LoadedModel { bytes: Some(bytes), .. }) => self.sizes.learn(&model_type, on_disk, *bytes),
                    Err(error) if !error.passing => drop(self.unkept.refused.insert(model.clone())),
                    _ => {}
                }
                self.decide(Event::Loaded(model, attempt, loaded));
            }
            Message::Unloaded(model, attempt) => {
                self.lives.unloaded(clock::now(), &model);
                if self.pins.get(&model).is_some_and(|(of, _)| *of == attempt) {
                    self.pins.remove(&model);
                }
                self.decide(Event::Unloaded(model, attempt));
            }
            Message::Look(answer) => drop(answer.send(self.look())),
            Message::Leave(done) => self.leave(done),
        }
    }

    /// Hands an event to the pod and carries out what it says.
    fn decide(&mut self, event: Event) {
        if !matches!(event, Event::Ping(_)) {
            self.ledger.touch();
        }
        for action in self.pod.handle(clock::now(), event) {
            self.carry_out(action);
        }
    }

    fn carry_out(&mut self, action: Action) {
        self.lives.see(clock::now(), &action, &self.pod);
        match action {
            Action::Size(model, attempt) => {
                let job = self.jobs.size(self.session(), model.clone(), attempt);
                self.pulls.insert(model.id, (attempt, job));
            }
            Action::Pull(model, attempt) => {
                self.waiters.progress(&model.id, "pulling", 0, 0);
                let job = self.jobs.pull(model.clone(), attempt);
                self.pulls.insert(model.id, (attempt, job));
            }
            Action::CancelPull(model, attempt) => {
                if let Some(job) = self.job_is_done(&model, attempt) {
                    job.cancel();
                }
                if self.files.get(&model).is_some_and(|(of, ..)| *of == attempt) {
                    self.files.remove(&model);
                }
            }
            Action::Load(model, attempt) => {
                self.waiters.progress(&model.id, "loading", 0, 0);
                let brought = self.files.remove(&model.id).filter(|(of, ..)| *of == attempt);
                let files = brought.map(|(_, files, pin)| {
                    self.pins.insert(model.id.clone(), (attempt, pin));
                    files
                });
                self.jobs.load(self.session(), model, files, attempt);
            }
            Action::Unload(model, attempt) => {
                // Without a server nothing is loaded, and the pod knows or is about to hear.
                let keep = !self.unkept.refused.remove(&model) && !self.unkept.gone.contains(&model);
                if let Some(session) = self.session() {
                    self.jobs.unload(session, model, attempt, keep);
                }
            }
            Action::Emit(change) => {
                if !matches!(change.state, CopyState::Loading { .. }) {
                    self.waiters.no_progress(&change.model);
                }
                tracing::info!(model = %change.model, state = ?change.state, seq = change.seq, "copy");
                let event = wire::change(&change, clock::now());
                self.watchers.push(&event);
            }
            Action::Tell(waiter, told) => {
                if !self.waiters.tell(waiter, told, self.pod.boot()) {
                    let core = self.jobs.core.clone();
                    // By the mailbox: the pod is in the middle of its actions.
                    tokio::spawn(async move { core.send(Message::Heard(Event::WaiterGone(waiter))).await });
                }
            }
        }
    }

    /// Forgets the job of this attempt.
    fn job_is_done(&mut self, model: &ModelId, attempt: Attempt) -> Option<CancellationToken> {
        let (current, _) = self.pulls.get(model)?;
        if *current != attempt {
            return None;
        }
        self.pulls.remove(model).map(|(_, job)| job)
    }

    fn session(&self) -> Option<Arc<dyn Session>> {
        self.server.as_ref().map(|(_, session)| session.clone())
    }

    /// An event that changes no copy.
    fn event(&self, event: agent_event::Event) -> AgentEvent {
        AgentEvent { seq: self.pod.last_seq(), event: Some(event) }
    }

    fn ping(&mut self, stream: StreamId, n: u64) {
        if let Some((life, session)) = &self.server
            && !session.alive()
        {
            self.down(*life);
        }
        let Some((watcher, role)) = self.watchers.who(stream) else { return };
        if role == Role::Proxy {
            let watcher: WatcherId = watcher.clone();
            self.decide(Event::Ping(watcher));
        }
        let seq = self.pod.last_seq();
        self.watchers.pong(stream, n, |n| wire::pong(seq, n));
    }

    fn up(&mut self, life: ServerLife, session: Arc<dyn Session>) {
        let info = session.info().clone();
        tracing::info!(life, capacity = info.limits.capacity, version = info.version, "model server is ready");
        let hello = wire::hello(self.hello.clone(), &info);
        if hello != self.hello {
            // Hello is the first of a stream and the only one; whoever has heard another one is to hear this.
            self.watchers.end(&Status::unavailable("the model server came back with other properties: watch anew"));
            self.hello = hello;
        }
        self.lives.metrics().server_is_up();
        self.server = Some((life, session));
        self.health.ready.set(Ok(()));
        self.decide(Event::ServerReady(life, info.limits));
        self.speak();
    }

    fn down(&mut self, life: ServerLife) {
        if self.server.as_ref().is_some_and(|(current, _)| *current == life) {
            tracing::warn!(life, "model server is gone");
            self.lives.server_is_gone();
            self.server = None;
            self.health.ready.set(Err("the model server is gone"));
            self.pins.clear();
            self.decide(Event::ServerGone(life));
        }
    }

    /// Gives the silent streams their snapshot, once there is a server to speak of.
    fn speak(&mut self) {
        if self.server.is_none() {
            return;
        }
        let now = clock::now();
        let mut snapshot = vec![self.event(agent_event::Event::Hello(self.hello.clone()))];
        snapshot.extend(self.pod.copies().map(|change| wire::change(&change, now)));
        snapshot.push(self.event(agent_event::Event::SnapshotEnd(modelring_proto::v1::SnapshotEnd {})));
        snapshot.push(self.event(agent_event::Event::Ledger(wire::ledger(&self.pod.ledger(now)))));
        if self.left {
            snapshot.push(self.event(agent_event::Event::Leaving(modelring_proto::v1::Leaving {})));
        }
        let seq = self.pod.last_seq();
        self.watchers.speak(&snapshot, |n| wire::pong(seq, n));
    }

    /// How things stand.
    fn look(&self) -> Look {
        let now = clock::now();
        Look {
            ledger: self.pod.ledger(now),
            census: self.pod.count(),
            least_recent_use: self.pod.least_recent_use().map(|used| now.since(used)),
            watchers: [Role::Proxy, Role::Control, Role::Observer].map(|role| self.watchers.count(role)),
            waiters: self.waiters.len(),
            server_ready: self.server.is_some(),
            leaving: self.left,
        }
    }

    fn leave(&mut self, done: oneshot::Sender<()>) {
        if !std::mem::replace(&mut self.left, true) {
            self.health.ready.end("leaving");
            let leaving = self.event(agent_event::Event::Leaving(modelring_proto::v1::Leaving {}));
            self.watchers.push(&leaving);
            self.decide(Event::Leave);
        }
        self.leaving = Some(done);
    }
}
