//! Watches every agent of a fleet from outside, over its restarts, and writes down what it says with the time.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use modelring_proto::{
    PROTOCOL,
    v1::{self, agent_client::AgentClient, agent_event::Event, copy_state::State},
};
use tokio::{sync::mpsc, task::AbortHandle};
use tokio_stream::wrappers::ReceiverStream;

/// Between two tries to reach an agent.
const AGAIN: Duration = Duration::from_millis(50);

/// Something that an agent said.
#[derive(Clone, Debug)]
pub struct Said {
    /// When it arrived.
    pub at: Instant,
    /// Number of the instance.
    pub instance: usize,
    /// Boot of the agent.
    pub boot: u64,
    /// Its number.
    pub seq: u64,
    /// It was part of a snapshot: it says what is, not what happens.
    pub snapshot: bool,
    /// What it was.
    pub event: Event,
}

/// What all agents have said. Ends when dropped.
#[derive(Debug)]
pub struct Observer {
    said: Arc<Mutex<Vec<Said>>>,
    tasks: Vec<AbortHandle>,
}

// === impl Observer ===

impl Observer {
    /// Watches these agents, which need not be there.
    #[must_use]
    pub fn start(agents: Vec<SocketAddr>) -> Self {
        let said = Arc::new(Mutex::new(Vec::new()));
        let watch = |(instance, agent)| {
            let said = said.clone();
            tokio::spawn(async move {
                loop {
                    // Whatever ends a stream, the next one begins with all that is.
                    let _ = follow(instance, agent, &said).await;
                    tokio::time::sleep(AGAIN).await;
                }
            })
            .abort_handle()
        };
        let tasks = agents.into_iter().enumerate().map(watch).collect();
        Self { said, tasks }
    }

    /// Everything so far.
    #[must_use]
    pub fn said(&self) -> Vec<Said> {
        self.locked().clone()
    }

    /// Changes of copies to this state, of one model or of all whose id begins so.
    #[must_use]
    pub fn changes(&self, state: State, prefix: &str) -> usize {
        let said = self.locked();
        let changes: BTreeSet<(u64, u64)> = said
            .iter()
            .filter(|said| matches!(&said.event, Event::Copy(copy) if copy.state() == state && copy.model.starts_with(prefix)))
            .map(|said| (said.boot, said.seq))
            .collect();
        changes.len()
    }

    /// Instances whose last word on a model that begins so is READY.
    #[must_use]
    pub fn ready(&self, prefix: &str) -> Vec<usize> {
        let mut ready = BTreeSet::new();
        for said in self.locked().iter() {
            match &said.event {
                Event::Hello(_) => drop(ready.remove(&said.instance)),
                Event::Copy(copy) if copy.model.starts_with(prefix) => match copy.state() {
                    State::Ready => drop(ready.insert(said.instance)),
                    _ => drop(ready.remove(&said.instance)),
                },
                _ => {}
            }
        }
        ready.into_iter().collect()
    }

    /// What was said of one model between two moments, a line each, its time counted from the first one: for the text of a
    /// failed test.
    #[must_use]
    pub fn history(&self, model: &str, from: Instant, to: Instant) -> Vec<String> {
        let said = self.locked();
        let within = said.iter().filter(|said| said.at >= from && said.at <= to);
        let line = |said: &Said| match &said.event {
            Event::Copy(copy) if copy.model.starts_with(model) => {
                let kind = if said.snapshot { " (snapshot)" } else { "" };
                let text = format!("{:?} {}", copy.state(), copy.text);
                Some(format!("{:?} instance {}{kind}: {text}", said.at - from, said.instance))
            }
            _ => None,
        };
        within.filter_map(line).collect()
    }

    /// Boot of an agent, as it said last.
    #[must_use]
    pub fn boot(&self, instance: usize) -> Option<u64> {
        self.locked().iter().rev().find(|said| said.instance == instance).map(|said| said.boot)
    }

    /// Checks the rule `ledger` on all that was told.
    ///
    /// # Panics
    /// When it was broken, naming the state.
    pub fn assert_ledger(&self) {
        for said in self.locked().iter() {
            if let Event::Ledger(ledger) = &said.event {
                let held = ledger.loaded + ledger.reserved + ledger.unloading;
                assert!(held <= ledger.capacity + ledger.overrun, "instance {}: {ledger:?}", said.instance);
            }
        }
    }

    fn locked(&self) -> MutexGuard<'_, Vec<Said>> {
        self.said.lock().expect("nothing panics while it holds the list")
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

async fn follow(instance: usize, agent: SocketAddr, said: &Mutex<Vec<Said>>) -> anyhow::Result<()> {
    let mut client = AgentClient::connect(format!("http://{agent}")).await?;
    let (sender, receiver) = mpsc::channel(1);
    let hello =
        v1::WatcherHello { protocol: PROTOCOL, role: v1::Role::Observer.into(), id: "test-observer".to_owned() };
    sender.send(v1::WatcherMessage { message: Some(v1::watcher_message::Message::Hello(hello)) }).await?;
    let mut events = client.watch(ReceiverStream::new(receiver)).await?.into_inner();
    let (mut boot, mut snapshot) = (0, true);
    while let Some(v1::AgentEvent { seq, event }) = events.message().await? {
        let Some(event) = event else { continue };
        match &event {
            Event::Hello(hello) => boot = hello.boot_id,
            Event::SnapshotEnd(_) => snapshot = false,
            _ => {}
        }
        let word = Said { at: Instant::now(), instance, boot, seq, snapshot, event };
        said.lock().expect("nothing panics while it holds the list").push(word);
    }
    Ok(())
}
