//! What all processes have in common: they run, stand still, die and come back, and have a clock of their own.

use modelring_placement::time::Time;

use crate::{queue::Nanos, world::Event};

/// A process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Node {
    /// A proxy.
    Proxy(usize),
    /// The agent of a pod.
    Agent(usize),
    /// The model server of a pod.
    Server(usize),
    /// A control process.
    Control(usize),
}

/// The life of a process.
#[derive(Debug)]
pub struct Process {
    /// Whether it is there.
    pub up: bool,
    /// Counts its starts.
    pub start: u64,
    /// Until when it is stopped (SIGSTOP): time goes on, nothing is handled.
    pub frozen: Option<Nanos>,
    /// What came while it was stopped, in order.
    pub backlog: Vec<Event>,
    /// What its clock showed when the world began.
    origin: u64,
}

// === impl Process ===

impl Process {
    /// A process that is not there yet.
    #[must_use]
    pub fn new(origin: u64) -> Self {
        Self { up: false, start: 0, frozen: None, backlog: Vec::new(), origin }
    }

    /// What its own clock shows.
    #[must_use]
    pub fn clock(&self, now: Nanos) -> Time {
        Time::from_nanos(self.origin + now)
    }

    /// When a time of its clock comes.
    #[must_use]
    pub fn world_time(&self, time: Time) -> Nanos {
        time.as_nanos().saturating_sub(self.origin)
    }
}
