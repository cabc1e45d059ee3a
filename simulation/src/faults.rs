//! What goes wrong, and what users change.

use crate::{
    desired::Profile,
    process::Node,
    queue::Nanos,
    world::{Event, World},
};

/// A fault, or a change of what is asked for.
#[derive(Clone, Debug)]
pub enum Fault {
    /// A process is killed, and starts again after a while.
    Kill(Node, Nanos),
    /// A process stands still.
    Freeze(Node, Nanos),
    /// One way between two processes is blocked.
    Block(Node, Node, Nanos),
    /// One way between two processes is slow by so much, for so long.
    Slow(Node, Node, Nanos, Nanos),
    /// The connections of two processes are lost.
    Reset(Node, Node),
    /// An agent gets SIGTERM; it comes back as a new one.
    Leave(usize),
    /// A pod is replaced: agent, server and volume.
    Wipe(usize, Nanos),
    /// Storage fails in this share of asks from now on.
    Storage(f64),
    /// The storage Secret changes.
    Secret,
    /// Loads that a server begins hang (or no longer do).
    Hang(usize, bool),
    /// A service is asked for, or asks for another model.
    Set(String, String, Profile, u32, u32),
    /// A service is no longer asked for.
    Remove(String),
    /// What was kept of the epoch is lost.
    LoseEpoch,
    /// All is well again, as far as nobody has to start.
    Heal,
}

// === impl World ===

impl World {
    /// It happens.
    pub fn fault(&mut self, fault: Fault) {
        self.checks.last_fault = self.checks.last_fault.max(self.now);
        match fault {
            Fault::Kill(node, back) => {
                self.kill(node);
                self.queue.push(self.now + back, Event::Start(node));
            }
            Fault::Freeze(node, time) => self.freeze(node, time),
            Fault::Block(from, to, time) => self.block(from, to, time),
            Fault::Slow(from, to, delay, time) => self.slow(from, to, delay, time),
            Fault::Reset(a, b) => self.reset(a, b),
            Fault::Leave(pod) => self.leave(pod),
            Fault::Wipe(pod, back) => {
                self.kill(Node::Agent(pod));
                self.kill(Node::Server(pod));
                self.pods[pod].files.clear();
                self.pods[pod].marked = false;
                self.queue.push(self.now + back, Event::Start(Node::Server(pod)));
                self.queue.push(self.now + back, Event::Start(Node::Agent(pod)));
            }
            Fault::Storage(share) => self.shape.storage_fails = share,
            Fault::Secret => {
                self.desires.change_secret();
                for n in 0..self.pods.len() {
                    if self.is_well(Node::Agent(n)) {
                        self.decide(n, modelring_placement::pod::Event::SecretChanged);
                    }
                }
                self.tell_desires();
            }
            Fault::Hang(pod, hangs) => self.pods[pod].server.hangs = hangs,
            Fault::Set(name, path, profile, min, max) => {
                self.desires.set(&name, &path, profile, min, max);
                self.tell_desires();
            }
            Fault::Remove(name) => {
                self.desires.remove(&name);
                self.tell_desires();
            }
            Fault::LoseEpoch => self.store.lose_epoch(),
            Fault::Heal => self.heal(),
        }
    }

    /// No fault is on any more; whoever is down starts.
    pub fn heal(&mut self) {
        self.heal_links();
        self.shape.storage_fails = 0.0;
        let nodes: Vec<_> = self.processes.keys().copied().collect();
        let control_runs = self.controls.iter().any(|control| control.running.is_some());
        for node in nodes {
            let first_control = node == Node::Control(0) && !control_runs;
            if first_control || !matches!(node, Node::Control(_)) {
                self.queue.push(self.now, Event::Start(node));
            }
        }
        for n in 0..self.pods.len() {
            self.pods[n].server.hangs = false;
            if self.pods[n].server.hung {
                // What hangs at that process hangs until somebody ends it.
                self.kill(Node::Server(n));
                self.queue.push(self.now, Event::Start(Node::Server(n)));
            }
        }
    }
}
