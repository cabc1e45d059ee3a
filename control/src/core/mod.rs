//! The one task that owns all state of control. Whatever happens comes in as an [`Event`]; after it, [`Core::evaluate`]
//! derives what follows: transitions of vmodels, wanted copies, the table, loads to ask for, hints.
//!
//! The order inside is part of the contract: a record of a vmodel is written before the table that shows it changes.

mod asks;
mod catalog;
mod dial;
mod evaluate;
mod fleet;
mod hints;
mod keep;
mod proxies;
mod publish;
mod services;
mod table;
mod wire;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use modelring_placement::{copies::Demand, id::ModelId, time::Time, view::AgentView};
use modelring_proto::v1::Hints;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};
use tokio_util::sync::CancellationToken;

use self::{
    asks::{Asks, Place},
    catalog::Catalog,
    dial::{Answer, Heard},
    fleet::{Agent, Fleet},
    proxies::Proxies,
    publish::Published,
    services::Services,
};
pub(crate) use self::{
    proxies::{Delta, Joined, ProxyMessage},
    table::Table,
};
use crate::{
    Error,
    config::Config,
    crd::RuntimeSpec,
    source::{ActiveMemory, Desired, Notice},
};

/// Events on their way to the core.
const QUEUE: usize = 1024;
/// Events are taken together for this long before what follows is derived.
const TOGETHER: Duration = Duration::from_millis(20);
/// While something waits for time to pass it is looked at this often.
const TICK: Duration = Duration::from_millis(250);
/// Agents that have not said what they hold are waited for so long before the first table.
const FIRST_TABLE: Duration = Duration::from_secs(5);
/// Loads may take this many load timeouts in all.
const LOAD_BUDGET: u32 = 5;

/// Something that happened.
#[derive(Debug)]
pub(crate) enum Event {
    /// The source has read a state.
    Desired(Desired),
    /// Something happened on the watch of an agent.
    Agent { address: String, heard: Heard },
    /// A load that was asked for has ended.
    Asked { place: Place, makes_room_for: Option<String>, answer: Answer },
    /// Something came from a proxy.
    Proxy(ProxyMessage),
}

/// All state of control.
pub(crate) struct Core {
    namespace: String,
    config: Config,
    memory: Arc<dyn ActiveMemory>,
    built_in: BTreeMap<String, RuntimeSpec>,
    epoch: u64,
    /// Id under which agents know this process.
    watcher: String,
    clock: Instant,
    events: mpsc::Sender<Event>,
    catalog: Option<Catalog>,
    services: Services,
    fleet: Fleet,
    asks: Asks,
    demand: HashMap<ModelId, Demand>,
    /// Models that were ready once, or failed for good: they want no copy by themselves any more.
    settled: HashSet<ModelId>,
    proxies: Proxies,
    published: Published,
    /// Something waits for time to pass.
    waits: bool,
    dirty: bool,
}

// === impl Core ===

impl Core {
    /// A core, and where its events go in.
    pub(crate) fn new(
        config: Config,
        memory: Arc<dyn ActiveMemory>,
    ) -> Result<(Self, mpsc::Sender<Event>, mpsc::Receiver<Event>), Error> {
        let built_in = catalog::built_in(&config.built_in_runtimes)?;
        let epoch = memory.next_epoch(0)?;
        let services = Services::new(memory.read()?);
        let (events, inbox) = mpsc::channel(QUEUE);
        let core = Self {
            namespace: config.namespace.clone(),
            config,
            memory,
            built_in,
            epoch,
            watcher: format!("control-{:016x}", rand::random::<u64>()),
            clock: Instant::now(),
            events: events.clone(),
            catalog: None,
            services,
            fleet: Fleet::default(),
            asks: Asks::default(),
            demand: HashMap::new(),
            settled: HashSet::new(),
            proxies: Proxies::default(),
            published: Published::default(),
            waits: false,
            dirty: false,
        };
        Ok((core, events, inbox))
    }

    /// Works until it is cancelled or another control has taken over.
    pub(crate) async fn run(
        mut self,
        mut inbox: mpsc::Receiver<Event>,
        cancel: CancellationToken,
    ) -> Result<(), Error> {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut look = Instant::now();
        loop {
            tokio::select! {
                () = cancel.cancelled() => return Ok(()),
                event = inbox.recv() => {
                    let Some(event) = event else { return Ok(()) };
                    if !self.dirty {
                        look = Instant::now() + TOGETHER;
                    }
                    self.handle(event)?;
                }
                () = sleep_until(look), if self.dirty => {
                    self.evaluate();
                }
                _ = ticks.tick() => {
                    if self.waits {
                        self.evaluate();
                    }
                }
            }
        }
    }

    fn now(&self) -> Time {
        Time::from_nanos(u64::try_from(self.clock.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    fn handle(&mut self, event: Event) -> Result<(), Error> {
        let now = self.now();
        match event {
            Event::Desired(desired) => self.desired(&desired),
            Event::Agent { address, heard } => {
                // Pings and pongs alone change nothing that is derived, unless a lease begins by it.
                let Some(agent) = self.fleet.agents.get_mut(&address) else { return Ok(()) };
                let quiet = heard.is_quiet() && agent.is_live(now);
                agent.hear(now, heard, &self.namespace);
                self.dirty |= !quiet;
            }
            Event::Asked { place, makes_room_for, answer } => {
                self.asked(now, place, makes_room_for, &answer);
                self.dirty = true;
            }
            Event::Proxy(message) => self.proxy(now, message)?,
        }
        Ok(())
    }

    fn desired(&mut self, desired: &Desired) {
        let last = self.catalog.take().unwrap_or_default();
        let catalog = last.next(desired, &self.built_in, &self.config.instances, &self.services.records);
        if catalog.storage_changes != last.storage_changes {
            self.services.services.values_mut().for_each(|service| service.vmodel.forget_tries());
        }
        self.dial(&catalog);
        self.catalog = Some(catalog);
        self.dirty = true;
    }

    /// Watches the agents that are listed, and no others.
    fn dial(&mut self, catalog: &Catalog) {
        let now = self.now();
        self.fleet.agents.retain(|address, agent| {
            let stays = catalog.instances.contains_key(address);
            if !stays {
                agent.task.abort();
            }
            stays
        });
        for (address, spec) in &catalog.instances {
            if let Some(agent) = self.fleet.agents.get_mut(address) {
                agent.spec = spec.clone();
                continue;
            }
            let channel = match dial::channel(address) {
                Ok(channel) => channel,
                Err(error) => {
                    tracing::warn!(address, error, "an instance has an address that cannot be dialled");
                    continue;
                }
            };
            let (hints, heard) = watch::channel(Hints::default());
            let watching =
                dial::watch_agent(address.clone(), channel.clone(), self.watcher.clone(), heard, self.events.clone());
            let agent = Agent {
                spec: spec.clone(),
                channel,
                hints,
                view: AgentView::new(now),
                ledger: Default::default(),
                hello: None,
                dialling: true,
                trouble: None,
                task: tokio::spawn(watching).abort_handle(),
            };
            self.fleet.agents.insert(address.clone(), agent);
        }
    }

    fn asked(&mut self, now: Time, place: Place, makes_room_for: Option<String>, answer: &Answer) {
        if let Answer::Loaded { boot, seq } = answer
            && let Some(agent) = self.fleet.agent_mut(&place.1)
        {
            agent.view.loaded(now, *boot, *seq, &place.0);
        }
        if let Some(service) = makes_room_for {
            self.services.room_answer(&service, answer);
        }
        tracing::debug!(model = %place.0, instance = %place.1, ?answer, "a load that was asked for has ended");
        self.asks.end(now, place, answer);
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        for agent in self.fleet.agents.values() {
            agent.task.abort();
        }
    }
}

/// A notice about an InferenceService.
fn about_service(name: &str, text: String) -> Notice {
    Notice { subject: format!("InferenceService/{name}"), text }
}
