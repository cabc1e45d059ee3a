//! A model server: it holds what it was told to load, answers slowly, and forgets everything when it dies.

use std::collections::BTreeMap;

use modelring_placement::{
    id::ModelId,
    pod::{Attempt, LoadError, LoadedModel, ServerLife},
};
use rand::Rng;

use crate::{
    millis,
    network::{ConnId, Message},
    process::Node,
    world::{Timer, World},
};

/// The model server of a pod.
#[derive(Debug, Default)]
pub struct Server {
    /// Counts its starts.
    pub life: ServerLife,
    /// What it holds.
    pub models: BTreeMap<ModelId, Held>,
    /// Bytes that each model takes, and that were predicted.
    pub bytes: BTreeMap<ModelId, (u64, u64)>,
    /// Loads that begin now never end.
    pub hangs: bool,
    /// Some load has begun that never ends.
    pub hung: bool,
}

/// A model at the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// Being loaded, for this start of an agent and its attempt.
    Loading(u64, Attempt),
    /// May be called.
    Loaded,
}

/// What the agent or its own work tells a server.
#[derive(Clone, Debug)]
pub enum Command {
    /// Load.
    Load {
        /// The model.
        model: ModelId,
        /// Its path.
        path: String,
        /// Who asks: a start of the agent, and its attempt.
        by: (u64, Attempt),
        /// The life that it was sent to.
        life: ServerLife,
    },
    /// Unload.
    Unload {
        /// The model.
        model: ModelId,
        /// Who asks.
        by: (u64, Attempt),
        /// The life that it was sent to.
        life: ServerLife,
    },
    /// A load has come to its end.
    LoadEnds(ModelId, String, (u64, Attempt), ServerLife),
    /// A call has run.
    Ran(ConnId, Box<Message>),
}

/// What a server tells its agent.
#[derive(Clone, Debug)]
pub enum Reply {
    /// A load has ended.
    Loaded(ModelId, Attempt, ServerLife, Result<LoadedModel, LoadError>),
    /// An unload is done.
    Unloaded(ModelId, Attempt, ServerLife),
    /// The connection to that process is over.
    Gone(ServerLife),
}

// === impl World ===

impl World {
    pub(crate) fn server_starts(&mut self, n: usize) {
        self.pods[n].server = Server { life: self.pods[n].server.life + 1, ..Server::default() };
    }

    pub(crate) fn server_dies(&mut self, n: usize) {
        let life = self.pods[n].server.life;
        self.pods[n].server.models.clear();
        self.checks.server_died(n, life, self.now);
        let late = if self.random.random_bool(0.2) { millis(3000) } else { millis(20) };
        let after = self.shape.notice.unwrap_or(self.random.random_range(millis(1)..late));
        if self.process(Node::Agent(n)).up {
            self.timer(Node::Agent(n), after, Timer::Reply(Reply::Gone(life)));
        }
    }

    pub(crate) fn server_command(&mut self, n: usize, command: Command) {
        let life = self.pods[n].server.life;
        match command {
            Command::Load { model, path, by, life: of } if of == life => {
                let before = self.pods[n].server.models.insert(model.clone(), Held::Loading(by.0, by.1));
                let profile = self.desires.profile(&path).clone();
                self.pods[n].server.bytes.insert(model.clone(), (profile.bytes, profile.predicted));
                self.check_a_load(n, &model, before);
                let slow = self.random.random_range(0.7..1.3);
                let time = (profile.load_millis as f64 * 1e6 * slow) as u64;
                if self.pods[n].server.hangs {
                    self.pods[n].server.hung = true;
                } else {
                    self.timer(Node::Server(n), time, Timer::Command(Command::LoadEnds(model, path, by, life)));
                }
            }
            Command::Unload { model, by, life: of } if of == life => {
                // A load that still runs is not ended by it; the server says yes all the same.
                if self.pods[n].server.models.get(&model) == Some(&Held::Loaded) {
                    self.pods[n].server.models.remove(&model);
                    self.checks.server_unloaded(n, &model, self.now);
                }
                let after = self.random.random_range(millis(1)..millis(300));
                self.reply(n, by.0, after, Reply::Unloaded(model, by.1, life));
            }
            Command::LoadEnds(model, path, by, of) if of == life => {
                if self.pods[n].server.models.get(&model) != Some(&Held::Loading(by.0, by.1)) {
                    return;
                }
                let profile = self.desires.profile(&path).clone();
                let result = if profile.bad {
                    self.pods[n].server.models.remove(&model);
                    Err(LoadError { code: 13, text: format!("{path} is no model"), passing: false })
                } else {
                    self.pods[n].server.models.insert(model.clone(), Held::Loaded);
                    Ok(LoadedModel { bytes: Some(profile.bytes), concurrency_limit: profile.limit })
                };
                self.reply(n, by.0, millis(1), Reply::Loaded(model, by.1, life, result));
            }
            Command::Ran(conn, answer) => self.send(conn, 1, *answer),
            Command::Load { .. } | Command::Unload { .. } | Command::LoadEnds(..) => {}
        }
    }

    /// A call comes in.
    pub(crate) fn server_hears(&mut self, n: usize, conn: ConnId, message: Message) {
        let Message::Call { call, attempt, model, written, life } = message else { return };
        let id = ModelId::from(model.as_str());
        let holds = self.pods[n].server.models.get(&id) == Some(&Held::Loaded);
        self.checks.call_arrives(n, &id, holds, written, life == self.pods[n].server.life, self.now);
        let answer = Message::Answer { call, attempt, model: holds.then_some(model) };
        let service = if self.random.random_bool(0.05) { millis(4000) } else { millis(80) };
        let after = if holds { self.random.random_range(millis(1)..service) } else { millis(1) };
        self.timer(Node::Server(n), after, Timer::Command(Command::Ran(conn, Box::new(answer))));
    }

    fn reply(&mut self, n: usize, agent: u64, after: u64, reply: Reply) {
        let process = self.process(Node::Agent(n));
        if process.up && process.start == agent {
            self.timer(Node::Agent(n), after, Timer::Reply(reply));
        }
    }
}
