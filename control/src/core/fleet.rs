//! The agents as control sees them, and where the copies of each model are.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use modelring_placement::{
    accept,
    id::{InstanceId, ModelId},
    pod::{CopyState, LedgerState as Ledger, LoadError},
    ring::{Member, Ring, RingParameters},
    time::Time,
    view::{AgentView, ViewEvent},
};
use modelring_proto::v1::{Hello, Hints, Instance};
use tokio::sync::watch;

use super::{dial::Heard, wire};
use crate::source::InstanceSpec;

/// Load timeout where neither manifest nor runtime says one.
const LOAD_TIMEOUT: Duration = Duration::from_secs(90);
/// Memory is to spare where this part of the capacity is free: a tenth.
const SPARE_PART: u64 = 10;

/// One listed agent.
pub(super) struct Agent {
    pub(super) spec: InstanceSpec,
    pub(super) hints: watch::Sender<Hints>,
    pub(super) view: AgentView,
    pub(super) ledger: Ledger,
    pub(super) hello: Option<Hello>,
    /// Counts its greetings and snapshots.
    pub(super) told: u64,
    /// Nobody listens there, or it does not speak with us: it has no copy that anybody could use.
    pub(super) away: bool,
    /// What it held when this control first saw it was taken note of.
    pub(super) stocked: bool,
    /// Time that calls were in flight on it since the last look at the marks.
    pub(super) busy: Duration,
    /// Its mark: whether it gets new copies before others.
    pub(super) accepts: bool,
    /// What is wrong with it.
    pub(super) trouble: Option<String>,
}

/// All listed agents, by address.
#[derive(Default)]
pub(super) struct Fleet {
    pub(super) agents: BTreeMap<String, Agent>,
    /// Where the copies of each model are, as last counted.
    pub(super) copies: HashMap<ModelId, Copies>,
    /// Models whose copies are to be counted again.
    pub(super) moved: BTreeSet<ModelId>,
    rings: HashMap<Vec<String>, (Vec<InstanceId>, Ring)>,
}

/// Copies of a model under live leases.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Copies {
    pub(super) ready: Vec<InstanceId>,
    /// Queued or loading.
    pub(super) moving: Vec<InstanceId>,
    pub(super) failed: Vec<(InstanceId, LoadError)>,
    pub(super) concurrency_limit: u32,
}

/// Agents that have said who they are, by instance, with their address.
pub(super) type Present<'a> = BTreeMap<InstanceId, (&'a String, &'a Agent)>;

// === impl Copies ===

impl Copies {
    fn add(&mut self, now: Time, id: &InstanceId, state: &CopyState) {
        match state {
            CopyState::Ready { concurrency_limit, .. } => {
                self.ready.push(id.clone());
                self.concurrency_limit = *concurrency_limit;
            }
            CopyState::Queued | CopyState::Loading { .. } => self.moving.push(id.clone()),
            CopyState::Failed { error, until } if now < *until => self.failed.push((id.clone(), error.clone())),
            CopyState::Draining { .. } | CopyState::Failed { .. } | CopyState::Gone => {}
        }
    }
}

// === impl Agent ===

impl Agent {
    pub(super) fn id(&self) -> Option<InstanceId> {
        self.hello.as_ref().map(|hello| InstanceId::from(hello.instance_id.as_str()))
    }

    /// The runtime that it says it runs, else the listed one.
    pub(super) fn runtime(&self) -> &str {
        let said = self.hello.as_ref().map(|hello| hello.runtime.as_str()).filter(|runtime| !runtime.is_empty());
        said.unwrap_or(&self.spec.runtime)
    }

    pub(super) fn is_live(&self, now: Time) -> bool {
        self.view.known() && now < self.view.lease_until()
    }

    /// Whether it may hold copies that are not seen: it has not said all under a lease that lives, and may be there.
    pub(super) fn is_unknown(&self, now: Time) -> bool {
        !self.away && !self.is_live(now)
    }

    /// Takes in what happened on its watch.
    pub(super) fn hear(&mut self, now: Time, heard: Heard, namespace: &str) {
        let view = |view: &mut AgentView, event| drop(view.handle(now, event));
        match heard {
            Heard::PingSent(n) => view(&mut self.view, ViewEvent::PingSent(n)),
            Heard::Ended => {
                view(&mut self.view, ViewEvent::Ended);
                self.away = false;
            }
            Heard::Unreachable { refused: false, text } => {
                view(&mut self.view, ViewEvent::Ended);
                self.away = false;
                self.trouble = Some(format!("it does not answer, what it holds is not known: {text}"));
            }
            Heard::Unreachable { refused: true, text } | Heard::Refused(text) => {
                view(&mut self.view, ViewEvent::Refused);
                self.away = true;
                self.trouble = Some(format!("it cannot be watched: {text}"));
            }
            Heard::Said(event) => match wire::said(now, event) {
                wire::Said::View(event) => {
                    self.told += u64::from(matches!(event, ViewEvent::SnapshotEnd { .. }));
                    view(&mut self.view, event);
                }
                wire::Said::Ledger(ledger) => self.ledger = ledger,
                wire::Said::Hello(hello) => {
                    view(&mut self.view, ViewEvent::Hello { boot: hello.boot_id });
                    self.trouble = trouble(&hello, &self.spec, namespace);
                    self.hello = Some(*hello);
                    self.told += 1;
                    self.away = false;
                }
                wire::Said::Unknown => {}
            },
        }
    }

    fn member(&self) -> Option<Member> {
        let some = |text: &str| (!text.is_empty()).then(|| text.into());
        Some(Member {
            id: self.id()?,
            node: some(&self.spec.node),
            zone: some(&self.spec.zone),
            accepts_new: self.accepts_new(),
            leaving: self.view.leaving(),
        })
    }

    /// A load that hangs beyond all its timeouts speaks against more at once, what else does at the next look.
    fn accepts_new(&self) -> bool {
        self.accepts && self.ledger.hung == 0
    }

    /// Bytes that may be promised to loads.
    pub(super) fn free(&self) -> u64 {
        let Ledger { capacity, loaded, reserved, unloading, .. } = self.ledger;
        capacity.saturating_sub(loaded.saturating_add(reserved).saturating_add(unloading))
    }

    /// What speaks for and against new copies on it.
    fn load(&self, over: Duration) -> accept::Load {
        let (spare, capacity) = (self.free(), self.ledger.capacity);
        accept::Load {
            busy: self.busy.as_secs_f64() / over.as_secs_f64().max(1.0),
            cache_age: self.ledger.next_victim_age.filter(|_| spare < capacity / SPARE_PART),
            hung: self.ledger.hung > 0,
            accepts: self.accepts,
        }
    }
}

fn trouble(hello: &Hello, spec: &InstanceSpec, namespace: &str) -> Option<String> {
    if hello.namespace != namespace && !hello.namespace.is_empty() {
        return Some(format!("it is of namespace `{}`, not `{namespace}`: it is not used", hello.namespace));
    }
    let other = !spec.runtime.is_empty() && !hello.runtime.is_empty() && spec.runtime != hello.runtime;
    other.then(|| format!("it says that it runs `{}`, listed is `{}`: the former counts", hello.runtime, spec.runtime))
}

// === impl Fleet ===

impl Fleet {
    /// Agents that have said who they are and are of this namespace; of two with one id the first by address.
    pub(super) fn present(&self, namespace: &str) -> Present<'_> {
        let mut present = BTreeMap::new();
        for (address, agent) in &self.agents {
            let ours =
                agent.hello.as_ref().is_some_and(|hello| hello.namespace.is_empty() || hello.namespace == namespace);
            if let Some(id) = agent.id().filter(|_| ours) {
                present.entry(id).or_insert((address, agent));
            }
        }
        present
    }

    pub(super) fn agent_mut(&mut self, instance: &InstanceId) -> Option<&mut Agent> {
        self.agents.values_mut().find(|agent| agent.id().as_ref() == Some(instance))
    }

    /// Where an instance was dialled.
    pub(super) fn address(&self, instance: &InstanceId) -> Option<&String> {
        self.agents.iter().find(|(_, agent)| agent.id().as_ref() == Some(instance)).map(|(address, _)| address)
    }

    /// The instances of the table, and the same as members of rings.
    pub(super) fn instances(&self, namespace: &str) -> (BTreeMap<String, Instance>, HashMap<InstanceId, Member>) {
        let mut instances = BTreeMap::new();
        let mut members = HashMap::new();
        for (id, (address, agent)) in self.present(namespace) {
            let (Some(hello), Some(member)) = (&agent.hello, agent.member()) else { continue };
            let instance = Instance {
                id: id.to_string(),
                pod_uid: hello.pod_uid.clone(),
                address: address.clone(),
                runtime: agent.runtime().to_owned(),
                node: agent.spec.node.clone(),
                zone: agent.spec.zone.clone(),
                accepts_new: member.accepts_new,
                leaving: member.leaving,
            };
            instances.insert(id.to_string(), instance);
            members.insert(id, member);
        }
        (instances, members)
    }

    /// Counts all copies, by live agents.
    pub(super) fn count_all(&self, now: Time, namespace: &str) -> HashMap<ModelId, Copies> {
        let mut copies: HashMap<ModelId, Copies> = HashMap::new();
        for (id, (_, agent)) in self.present(namespace) {
            if agent.is_live(now) {
                for (model, seen) in agent.view.copies() {
                    copies.entry(model.clone()).or_default().add(now, &id, &seen.state);
                }
            }
        }
        copies
    }

    /// Counts the copies of one model.
    pub(super) fn count(&self, now: Time, present: &Present<'_>, model: &ModelId) -> Copies {
        let mut copies = Copies::default();
        for (id, (_, agent)) in present.iter().filter(|(_, (_, agent))| agent.is_live(now)) {
            if let Some(seen) = agent.view.copy(model) {
                copies.add(now, id, &seen.state);
            }
        }
        copies
    }

    /// Agents of these runtimes.
    pub(super) fn of_class<'a>(&'a self, runtimes: &'a [String]) -> impl Iterator<Item = &'a Agent> {
        self.agents.values().filter(|agent| runtimes.iter().any(|runtime| runtime == agent.runtime()))
    }

    /// Address of an agent of these runtimes that may hold copies that are not seen.
    pub(super) fn unknown_of_class(&self, now: Time, runtimes: &[String]) -> Option<&String> {
        let mut of_class =
            self.agents.iter().filter(|(_, agent)| runtimes.iter().any(|runtime| runtime == agent.runtime()));
        of_class.find(|(_, agent)| agent.is_unknown(now)).map(|(address, _)| address)
    }

    /// The ring of a class; built when its instances changed.
    pub(super) fn ring(&mut self, parameters: RingParameters, runtimes: &[String], ids: Vec<InstanceId>) -> &Ring {
        let entry = self.rings.entry(runtimes.to_vec());
        let (known, ring) = entry.or_insert_with(|| (ids.clone(), Ring::new(parameters, ids.clone())));
        if *known != ids {
            *ring = Ring::new(parameters, ids.clone());
            *known = ids;
        }
        ring
    }

    /// How long a load on these runtimes may take where the manifest does not say.
    pub(super) fn load_timeout(&self, runtimes: &[String]) -> Duration {
        let said =
            self.of_class(runtimes).filter_map(|agent| agent.hello.as_ref()).map(|hello| hello.load_timeout_millis);
        said.filter(|millis| *millis > 0).max().map_or(LOAD_TIMEOUT, Duration::from_millis)
    }

    /// Whether the class has a tenth of its memory free, or what would go next has not been used for 20 hours.
    pub(super) fn has_spare(&self, runtimes: &[String]) -> bool {
        const LONG_UNUSED: Duration = Duration::from_secs(20 * 3600);
        let (mut capacity, mut used, mut youngest) = (0_u64, 0_u64, Duration::MAX);
        for ledger in self.of_class(runtimes).map(|agent| &agent.ledger) {
            capacity = capacity.saturating_add(ledger.capacity);
            used = used.saturating_add(ledger.loaded).saturating_add(ledger.reserved).saturating_add(ledger.unloading);
            youngest = youngest.min(ledger.next_victim_age.unwrap_or(Duration::ZERO));
        }
        capacity > 0 && (capacity.saturating_sub(used) >= capacity / SPARE_PART || youngest > LONG_UNUSED)
    }

    /// Looks at the marks again, by what was reported over this time.
    pub(super) fn mark(&mut self, now: Time, over: Duration) {
        let mut by_runtime: BTreeMap<String, Vec<&mut Agent>> = BTreeMap::new();
        for agent in self.agents.values_mut().filter(|agent| agent.is_live(now) && !agent.view.leaving()) {
            by_runtime.entry(agent.runtime().to_owned()).or_default().push(agent);
        }
        for agents in by_runtime.into_values() {
            let loads: Vec<_> = agents.iter().map(|agent| agent.load(over)).collect();
            for ((agent, load), accepts) in agents.into_iter().zip(&loads).zip(accept::marks(&loads)) {
                if agent.accepts != accepts {
                    tracing::info!(instance = ?agent.id(), accepts, busy = load.busy, cache_age = ?load.cache_age, "mark");
                    agent.accepts = accepts;
                }
            }
        }
        for agent in self.agents.values_mut() {
            agent.busy = Duration::ZERO;
        }
    }
}
