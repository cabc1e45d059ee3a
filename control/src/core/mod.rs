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
mod look;
mod observed;
mod outside;
mod proxies;
mod publish;
mod services;
mod stale;
mod table;
mod wire;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use modelring_placement::{copies::Demand, id::ModelId, time::Time, view::AgentView};
use modelring_process::{
    probes::Health,
    tls::{Connector, Name},
};
use modelring_proto::v1::{AgentEvent, Hints, Observed, agent_event};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};
use tokio_util::sync::CancellationToken;

use self::{
    asks::Asks,
    catalog::Catalog,
    evaluate::Want,
    fleet::{Agent, Fleet},
    hints::Weighed,
    outside::Grpc,
    proxies::Proxies,
    publish::Published,
    services::Services,
    stale::Stale,
};
pub use self::{
    asks::Place,
    dial::{Answer, Heard},
    outside::{Ask, Outside},
    proxies::{Connection, Delta, Joined, ProxyMessage},
    table::Table,
};
use crate::{
    Error,
    config::Config,
    crd::RuntimeSpec,
    dataplane::Dataplane,
    metrics::Look,
    source::{ActiveMemory, Desired, Notice},
};

/// Events on their way to the core.
const QUEUE: usize = 1024;
/// Events are taken together for this long before what follows is derived.
pub const TOGETHER: Duration = Duration::from_millis(20);
/// While something waits for time to pass it is looked at this often.
pub const TICK: Duration = Duration::from_millis(250);
/// Agents that have not said what they hold are waited for so long before the first table.
const FIRST_TABLE: Duration = Duration::from_secs(5);
/// For so long after its start control calls no copy one too many.
const NO_DOWN_STEP: Duration = Duration::from_secs(5 * 60);
/// Between two looks whether another control has taken over.
pub const EPOCH: Duration = Duration::from_secs(2);
/// Loads may take this many load timeouts in all.
const LOAD_BUDGET: u32 = 5;

/// Something that happened.
#[derive(Debug)]
pub enum Event {
    /// The source has read a state.
    Desired(Desired),
    /// The file of the dataplane configuration has changed, or why what it holds now is not taken.
    Dataplane(Result<Dataplane, Notice>),
    /// Something happened on the watch of an agent.
    Agent {
        /// Where it was dialled.
        address: String,
        /// What happened.
        heard: Heard,
    },
    /// A load that was asked for has ended.
    Asked {
        /// What was asked for.
        place: Place,
        /// The service whose new model it is, in place of the old one.
        makes_room_for: Option<String>,
        /// What came of it.
        answer: Answer,
    },
    /// Something came from a proxy.
    Proxy(ProxyMessage),
    /// Somebody wants to know how it stands.
    Look(oneshot::Sender<Look>),
}

/// Demand for a model, and what of it was last derived from.
#[derive(Debug, Default)]
struct Used {
    demand: Demand,
    seen: u32,
}

/// All state of control.
pub struct Core {
    namespace: String,
    config: Config,
    memory: Arc<dyn ActiveMemory>,
    built_in: BTreeMap<String, RuntimeSpec>,
    dataplane: Dataplane,
    /// Why the configuration that should be in force is not.
    dataplane_trouble: Option<Notice>,
    epoch: u64,
    outside: Box<dyn Outside>,
    catalog: Option<Catalog>,
    /// When the source first said which agents there are.
    listed_at: Time,
    /// When the marks of the instances were last looked at.
    marked_at: Time,
    services: Services,
    fleet: Fleet,
    asks: Asks,
    demand: HashMap<ModelId, Used>,
    /// Models that were ready once, or failed for good: they want no copy by themselves any more.
    settled: HashSet<ModelId>,
    /// How many copies each model of the table should have.
    wants: BTreeMap<ModelId, Want>,
    weighed: Weighed,
    stale: Stale,
    proxies: Proxies,
    published: Published,
    /// Something waits for time to pass.
    waits: bool,
    dirty: bool,
    health: Health,
    heats: observed::Heats,
    /// What observers are told.
    observed: watch::Sender<Observed>,
}

// === impl Core ===

impl Core {
    /// A core that dials agents by gRPC, and where its events go in.
    pub(crate) fn new(
        config: Config,
        dataplane: Dataplane,
        memory: Arc<dyn ActiveMemory>,
    ) -> Result<(Self, mpsc::Sender<Event>, mpsc::Receiver<Event>), Error> {
        let (events, inbox) = mpsc::channel(QUEUE);
        let connector = Connector::new(config.tls.clone(), Name::agent(&config.namespace)?);
        let core = Self::over(config, memory, Box::new(Grpc::new(events.clone(), connector)))?;
        Ok((Self { dataplane, ..core }, events, inbox))
    }

    /// A core over any I/O. Whoever drives it hands it events by [`Core::handle`], and calls [`Core::evaluate`] within
    /// [`TOGETHER`] of one that left it [dirty](Core::is_dirty), and every [`TICK`] while it [waits](Core::waits).
    ///
    /// # Errors
    ///
    /// A built-in runtime that cannot be read, or a memory that cannot be.
    pub fn over(config: Config, memory: Arc<dyn ActiveMemory>, outside: Box<dyn Outside>) -> Result<Self, Error> {
        let built_in = catalog::built_in(&config.built_in_runtimes)?;
        let epoch = memory.next_epoch(0)?;
        let services = Services::new(memory.read()?);
        Ok(Self {
            namespace: config.namespace.clone(),
            config,
            memory,
            built_in,
            dataplane: Dataplane::default(),
            dataplane_trouble: None,
            epoch,
            outside,
            catalog: None,
            listed_at: Time::ZERO,
            marked_at: Time::ZERO,
            services,
            fleet: Fleet::default(),
            asks: Asks::default(),
            demand: HashMap::new(),
            settled: HashSet::new(),
            wants: BTreeMap::new(),
            weighed: Weighed::default(),
            stale: Stale::default(),
            proxies: Proxies::default(),
            published: Published::default(),
            waits: false,
            dirty: false,
            health: Health::not_yet("no table was published yet"),
            heats: observed::Heats::default(),
            observed: watch::Sender::default(),
        })
    }

    /// Whether something has changed since what follows was derived.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        self.dirty
    }

    /// Whether something waits for time to pass.
    #[must_use]
    pub fn waits(&self) -> bool {
        self.waits
    }

    /// What it tells its probes: ready once a table is published.
    #[must_use]
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// Its epoch.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The table in force.
    #[must_use]
    pub fn published(&self) -> &Table {
        self.published.table()
    }

    /// Works until it is cancelled or another control has taken over.
    pub(crate) async fn run(
        mut self,
        mut inbox: mpsc::Receiver<Event>,
        cancel: CancellationToken,
    ) -> Result<(), Error> {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut epochs = interval(EPOCH);
        epochs.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut look = Instant::now();
        let heart = self.health.pulse.heart("core");
        loop {
            heart.beat();
            tokio::select! {
                () = cancel.cancelled() => return Ok(()),
                event = inbox.recv() => {
                    let Some(event) = event else { return Ok(()) };
                    if !self.dirty {
                        look = Instant::now() + TOGETHER;
                    }
                    self.handle(event)?;
                }
                () = sleep_until(look), if self.dirty => self.evaluate()?,
                _ = ticks.tick() => {
                    self.tell_observers();
                    if self.waits {
                        self.evaluate()?;
                    }
                }
                _ = epochs.tick() => self.look_at_the_epoch()?,
            }
        }
    }

    /// Another control of the same source ends this one, also where no proxy tells of it. Looked at every [`EPOCH`].
    ///
    /// # Errors
    ///
    /// There is another control.
    pub fn look_at_the_epoch(&self) -> Result<(), Error> {
        match self.memory.epoch() {
            Ok(theirs) if theirs > self.epoch => Err(Error::Superseded { theirs, ours: self.epoch }),
            // What was taken is lost: it is taken again, before another control takes it anew.
            Ok(theirs) if theirs < self.epoch => match self.memory.next_epoch(self.epoch - 1) {
                Ok(theirs) if theirs > self.epoch => Err(Error::Superseded { theirs, ours: self.epoch }),
                _ => Ok(()),
            },
            // What cannot be read now is no other control.
            _ => Ok(()),
        }
    }

    fn now(&self) -> Time {
        self.outside.now()
    }

    /// Takes in what happened.
    ///
    /// # Errors
    ///
    /// Another control has taken over, or the epochs cannot be read: this one ends.
    pub fn handle(&mut self, event: Event) -> Result<(), Error> {
        let now = self.now();
        match event {
            Event::Desired(desired) => self.desired(&desired),
            Event::Dataplane(read) => self.dataplane(read),
            Event::Agent { address, heard } => {
                // Pings and pongs alone change nothing that is derived, unless a lease begins by it.
                let Some(agent) = self.fleet.agents.get_mut(&address) else { return Ok(()) };
                let quiet = heard.is_quiet() && agent.is_live(now);
                if let Heard::Said(AgentEvent { event: Some(agent_event::Event::Copy(copy)), .. }) = &heard {
                    self.fleet.moved.insert(ModelId::from(copy.model.as_str()));
                }
                agent.hear(now, heard, &self.namespace);
                self.dirty |= !quiet;
            }
            Event::Asked { place, makes_room_for, answer } => {
                self.asked(now, place, makes_room_for, &answer);
                self.dirty = true;
            }
            Event::Proxy(message) => self.proxy(now, message)?,
            Event::Look(answer) => drop(answer.send(self.look())),
        }
        Ok(())
    }

    fn dataplane(&mut self, read: Result<Dataplane, Notice>) {
        match read {
            Ok(dataplane) => {
                tracing::info!(methods = dataplane.rpc_configs.len(), "dataplane configuration taken up");
                (self.dataplane, self.dataplane_trouble) = (dataplane, None);
            }
            Err(Notice { subject, text }) => {
                tracing::error!(subject, text, "dataplane configuration refused");
                self.dataplane_trouble = Some(Notice { subject, text });
            }
        }
        self.dirty = true;
    }

    fn desired(&mut self, desired: &Desired) {
        let last = self.catalog.take().unwrap_or_else(|| {
            self.listed_at = self.now();
            Catalog::default()
        });
        let catalog = last.next(desired, &self.built_in, &self.config, &self.services.records);
        if catalog.storage_changes != last.storage_changes {
            self.services.services.values_mut().for_each(|service| service.vmodel.forget_tries());
            self.stale.all = true;
        }
        self.stale.names.extend(catalog::changed(&last, &catalog).cloned());
        self.dial(&catalog);
        self.catalog = Some(catalog);
        self.dirty = true;
    }

    /// Watches the agents that are listed, and no others.
    fn dial(&mut self, catalog: &Catalog) {
        let now = self.now();
        self.fleet.agents.retain(|address, _| {
            let stays = catalog.instances.contains_key(address);
            if !stays {
                self.outside.unwatch(address);
            }
            stays
        });
        for (address, spec) in &catalog.instances {
            if let Some(agent) = self.fleet.agents.get_mut(address) {
                agent.spec = spec.clone();
                continue;
            }
            let (hints, heard) = watch::channel(Hints::default());
            if let Err(error) = self.outside.watch(address, heard) {
                tracing::warn!(address, error, "an instance has an address that cannot be dialled");
                continue;
            }
            let agent = Agent {
                spec: spec.clone(),
                hints,
                view: AgentView::new(now),
                ledger: Default::default(),
                hello: None,
                away: false,
                stocked: false,
                told: 0,
                busy: Duration::ZERO,
                accepts: true,
                trouble: None,
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
        self.stale.model(place.0.as_str());
        self.fleet.moved.insert(place.0.clone());
        let free = self.fleet.agent_mut(&place.1).map_or(0, |agent| agent.free());
        self.asks.end(now, place, answer, free);
    }
}
