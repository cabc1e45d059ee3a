//! The I/O of the core behind one trait: gRPC in production, messages of a simulated network in the simulation. No
//! decision is made here.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use modelring_placement::time::Time;
use modelring_process::tls::Connector;
use modelring_proto::v1::{Hints, LoadRequest};
use tokio::{
    sync::{mpsc, watch},
    task::AbortHandle,
};
use tonic::transport::Channel;

use super::{Event, Place, dial};

/// What the core has done for it. What comes of a watch or an ask goes back to the core as an [`Event`].
pub trait Outside: Send {
    /// The time of this process's own clock.
    fn now(&self) -> Time;

    /// Watches an agent, again and again, until [`Outside::unwatch`]; tells it the newest hints, those of epoch 0 left out.
    ///
    /// # Errors
    ///
    /// The address is none.
    fn watch(&mut self, address: &str, hints: watch::Receiver<Hints>) -> Result<(), String>;

    /// Watches an agent no more.
    fn unwatch(&mut self, address: &str);

    /// Asks an agent that is watched for a load. Ends with one [`Event::Asked`].
    fn ask(&mut self, address: &str, ask: Ask);
}

/// A load that an agent is to be asked for.
#[derive(Clone, Debug)]
pub struct Ask {
    /// What and where.
    pub place: Place,
    /// The service whose new model it is, in place of the old one.
    pub makes_room_for: Option<String>,
    /// The request.
    pub request: LoadRequest,
    /// How long the load may take once it is accepted.
    pub load_budget: Duration,
}

/// Dials agents by gRPC.
pub(super) struct Grpc {
    clock: Instant,
    /// Id under which agents know this process.
    watcher: String,
    events: mpsc::Sender<Event>,
    connector: Connector,
    agents: BTreeMap<String, (Channel, AbortHandle)>,
}

// === impl Grpc ===

impl Grpc {
    /// What happens goes to `events`; agents are dialled by `connector`.
    pub(super) fn new(events: mpsc::Sender<Event>, connector: Connector) -> Self {
        let watcher = format!("control-{:016x}", rand::random::<u64>());
        Self { clock: Instant::now(), watcher, events, connector, agents: BTreeMap::new() }
    }
}

impl Outside for Grpc {
    fn now(&self) -> Time {
        Time::from_nanos(u64::try_from(self.clock.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    fn watch(&mut self, address: &str, hints: watch::Receiver<Hints>) -> Result<(), String> {
        let channel = dial::channel(address, self.connector.clone())?;
        let (watcher, events) = (self.watcher.clone(), self.events.clone());
        let watching = dial::watch_agent(address.to_owned(), channel.clone(), watcher, hints, events);
        self.agents.insert(address.to_owned(), (channel, tokio::spawn(watching).abort_handle()));
        Ok(())
    }

    fn unwatch(&mut self, address: &str) {
        if let Some((_, task)) = self.agents.remove(address) {
            task.abort();
        }
    }

    fn ask(&mut self, address: &str, ask: Ask) {
        let Some((channel, _)) = self.agents.get(address) else { return };
        let (channel, events) = (channel.clone(), self.events.clone());
        tokio::spawn(async move {
            let Ask { place, makes_room_for, request, load_budget } = ask;
            let answer = tokio::select! {
                answer = dial::ask(channel, request, load_budget) => answer,
                () = events.closed() => return,
            };
            // Nobody listens any more when control has stopped.
            let _ = events.send(Event::Asked { place, makes_room_for, answer }).await;
        });
    }
}

impl Drop for Grpc {
    fn drop(&mut self) {
        for (_, task) in self.agents.values() {
            task.abort();
        }
    }
}
