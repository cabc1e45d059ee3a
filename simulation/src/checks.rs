//! What must hold at every moment. The rules of `modelring-placement` check each decision where it is made (debug
//! assertions of the pod, the view, the vmodel, control's hints); here is what only somebody who sees all processes at
//! once can check.

use std::collections::{BTreeMap, BTreeSet};

use modelring_placement::{
    id::{ModelId, Seq},
    pod::{Change, CopyState},
};
use modelring_proxy::table::Version;

use crate::{
    call::{Call, Outcome},
    millis,
    process::Node,
    queue::Nanos,
    secs,
    server::Held,
    world::{CallId, World},
};

/// A call that is written while its copy is usable may be so long on its way: the agent's 3 s from the last ping that it
/// received less the proxy's 2 s from the sending of it.
const ON_ITS_WAY: Nanos = millis(1000);
/// Hints, tables and drains of before a fault may have their effect so much later.
const AFTER_A_FAULT: Nanos = secs(70);

/// What was seen, and what is broken.
#[derive(Debug, Default)]
pub struct Checks {
    /// The first rule that was broken, and how.
    pub broken: Option<String>,
    /// The last fault, or change of what is asked for.
    pub last_fault: Nanos,
    /// Counts, by what.
    pub counts: BTreeMap<&'static str, u64>,
    /// Loads begun by pods, by model.
    pub pulls: BTreeMap<ModelId, u64>,
    /// Time that processes stood still, in all.
    frozen: Nanos,
    draining: BTreeMap<(usize, ModelId), (Seq, Nanos)>,
    /// Unloads that did not wait for the proxies, because the drain's time was over.
    forced: BTreeMap<(usize, ModelId), Nanos>,
    /// Models that were ever loaded somewhere.
    loaded: BTreeSet<ModelId>,
}

// === impl Checks ===

impl Checks {
    /// A rule is broken.
    pub fn break_rule(&mut self, rule: &str, how: impl Into<String>) {
        self.broken.get_or_insert_with(|| format!("{rule}: {}", how.into()));
    }

    /// One more of these.
    pub fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// How often.
    #[must_use]
    pub fn counted(&self, what: &str) -> u64 {
        self.counts.get(what).copied().unwrap_or_default()
    }

    pub(crate) fn froze(&mut self, _node: Node, now: Nanos, until: Nanos) {
        self.last_fault = until;
        self.frozen += until - now;
    }

    pub(crate) fn agent_died(&mut self, n: usize, now: Nanos) {
        self.last_fault = self.last_fault.max(now);
        self.draining.retain(|(pod, _), _| *pod != n);
    }

    pub(crate) fn pod_left(&mut self, _n: usize, now: Nanos) {
        self.last_fault = self.last_fault.max(now);
    }

    pub(crate) fn server_died(&mut self, _n: usize, _life: u64, now: Nanos) {
        self.last_fault = self.last_fault.max(now);
    }

    pub(crate) fn server_unloaded(&mut self, _n: usize, _model: &ModelId, _now: Nanos) {
        self.count("unloads");
    }

    pub(crate) fn control_started(&mut self, now: Nanos) {
        self.last_fault = self.last_fault.max(now);
        self.count("starts of control");
    }

    pub(crate) fn pulls(&mut self, _n: usize, model: &ModelId) {
        self.count("pulls");
        *self.pulls.entry(model.clone()).or_default() += 1;
    }

    pub(crate) fn emitted(&mut self, n: usize, news: &Change, now: Nanos) {
        let place = (n, news.model.clone());
        match &news.state {
            CopyState::Draining { evict: true, .. } => {
                self.count("drains");
                self.draining.insert(place, (news.seq, now));
            }
            CopyState::Ready { .. } => {
                if self.draining.remove(&place).is_some() {
                    self.count("drains called off");
                }
                self.loaded.insert(news.model.clone());
            }
            CopyState::Failed { .. } => self.count("failures"),
            _ => {}
        }
    }

    /// Tables never go back.
    pub(crate) fn installs(&mut self, n: usize, last: Option<Version>, next: Version) {
        self.count("tables");
        if last.is_some_and(|last| next.epoch < last.epoch || next.epoch == last.epoch && next.n < last.n) {
            self.break_rule("epochs", format!("proxy {n} goes from table {last:?} back to {next}"));
        }
    }

    pub(crate) fn answered(&mut self, id: CallId, asked: &str, answered: &str) {
        if asked != answered {
            self.break_rule("never-unready", format!("call {id} of {asked} was answered by {answered}"));
        }
    }

    /// A call's bytes reach the server.
    pub(crate) fn call_arrives(
        &mut self,
        n: usize,
        model: &ModelId,
        holds: bool,
        written: Nanos,
        same_life: bool,
        now: Nanos,
    ) {
        self.count("calls at servers");
        if holds {
            return;
        }
        self.count("calls of unloaded models");
        let forced = self.forced.get(&(n, model.clone())).is_some_and(|at| *at >= written);
        if same_life && !forced && now < written + ON_ITS_WAY {
            let way = (now - written) / 1_000_000;
            self.break_rule("never-unready", format!("a call reaches pod {n} without {model}, {way} ms on its way"));
        }
    }
}

// === impl World ===

impl World {
    /// The first broken rule.
    #[must_use]
    pub fn broken(&self) -> Option<&str> {
        self.checks.broken.as_deref()
    }

    /// Whether the server takes a load, and stays within its memory.
    pub(crate) fn check_a_load(&mut self, n: usize, model: &ModelId, before: Option<Held>) {
        self.checks.count("loads");
        if let Some(before) = before {
            self.checks.break_rule("one-load", format!("pod {n} loads {model}, which is there: {before:?}"));
        }
        let server = &self.pods[n].server;
        let held = server.models.keys().filter_map(|model| server.bytes.get(model));
        let (bytes, beyond) = held.fold((0, 0), |(bytes, beyond), (needs, predicted)| {
            (bytes + needs, beyond + needs.saturating_sub(*predicted))
        });
        if bytes > self.shape.capacity + beyond {
            let text = format!("pod {n} has {} bytes and holds {bytes}: {:?}", self.shape.capacity, server.models);
            self.checks.break_rule("ledger", text);
        }
    }

    /// A proxy is about to write a call on a connection to this life of the server.
    pub(crate) fn check_a_write(&mut self, proxy: usize, pod: usize, model: &ModelId, life: u64) {
        let server = &self.pods[pod].server;
        let died = !self.process(Node::Server(pod)).up || server.life != life;
        let holds = server.models.get(model) == Some(&Held::Loaded);
        if !died && !holds {
            let text = format!("proxy {proxy} writes to {model} on pod {pod}, which is not loaded");
            self.checks.break_rule("never-unready", text);
        }
    }

    /// The agent is about to have a copy unloaded.
    pub(crate) fn checks_before_unload(&mut self, n: usize, model: &ModelId, cause: &str) {
        let Some((_, since)) = self.checks.draining.remove(&(n, model.clone())) else { return };
        let timeout = u64::try_from(self.shape.drain_timeout.as_nanos()).unwrap_or(u64::MAX);
        if self.now >= since + timeout {
            self.checks.count("drains forced");
            self.checks.forced.insert((n, model.clone()), self.now);
        }
        let Some(agent) = &self.pods[n].agent else { return };
        let ledger = agent.pod.ledger(self.clock(Node::Agent(n)));
        let pressed = ledger.queue > 0 || ledger.overrun > 0;
        let asked_for = self.desires.services.keys().any(|name| self.desires.model(name).as_ref() == Some(model));
        let calm = self.now > self.checks.last_fault + AFTER_A_FAULT;
        if !pressed && asked_for && calm {
            let text = format!("pod {n} unloads {model}, which is asked for, and nothing needs its place ({cause})");
            self.checks.break_rule("last-copy", text);
        }
    }

    /// A call was answered: in time, and with what may be.
    pub(crate) fn checks_of_an_answer(&mut self, id: CallId, call: &Call, outcome: &Outcome) {
        self.checks.count(match outcome {
            Outcome::Ok(_) => "ok",
            Outcome::Reason(reason, _) => reason,
            Outcome::NotFound => "not found",
            Outcome::Gone => "proxy gone",
        });
        if *outcome == Outcome::NotFound {
            self.checks.break_rule("never-unready", format!("the NOT_FOUND of call {id} is not repaired"));
        }
        let took = self.now - call.begun;
        let most = match call.deadline {
            Some(deadline) => deadline - call.begun,
            None => self.longest_call(),
        };
        if took > most + millis(1) + self.checks.frozen {
            let text =
                format!("call {id} of {} took {} ms, {} at most", call.service, took / 1_000_000, most / 1_000_000);
            self.checks.break_rule("budgets", text);
        }
    }

    /// How long a call without a deadline may take: its budgets once, whatever its attempts, and what its service takes.
    fn longest_call(&self) -> Nanos {
        let budgets = self.shape.place_timeout + self.shape.load_timeout * 5;
        u64::try_from(budgets.as_nanos()).unwrap_or(u64::MAX) + secs(15)
    }

    /// What must hold after every event.
    pub(crate) fn check(&mut self) {
        if !self.events.is_multiple_of(256) {
            return;
        }
        let most = self.longest_call() + self.checks.frozen + secs(1);
        let late = self.calls.iter().find(|(_, call)| call.end.is_none() && self.now > call.begun + most);
        if let Some((id, call)) = late {
            let text = format!("call {id} of {} is not answered: {call:?}", call.service);
            self.checks.break_rule("budgets", text);
        }
    }

    /// What is not as it should be once everything has settled; empty = nothing.
    #[must_use]
    pub fn unsettled(&self) -> Vec<String> {
        let mut what = Vec::new();
        let waiting = self.calls.values().filter(|call| call.end.is_none()).count();
        if waiting > 0 {
            what.push(format!("{waiting} calls are not answered"));
        }
        for (n, pod) in self.pods.iter().enumerate() {
            let Some(agent) = &pod.agent else {
                what.push(format!("agent {n} is not there"));
                continue;
            };
            let ledger = agent.pod.ledger(self.clock(Node::Agent(n)));
            if agent.session.is_none() {
                what.push(format!("agent {n} has no server"));
            }
            if (ledger.reserved, ledger.unloading, ledger.overrun, ledger.queue) != (0, 0, 0, 0) {
                what.push(format!("agent {n} has something under way: {ledger:?}"));
            }
            for copy in agent.pod.copies() {
                if matches!(copy.state, CopyState::Draining { .. }) {
                    what.push(format!("{} drains on pod {n}", copy.model));
                }
            }
            let ready = agent.pod.copies().filter(|copy| matches!(copy.state, CopyState::Ready { .. }));
            let ready: BTreeSet<_> = ready.map(|copy| copy.model).collect();
            let loaded = pod.server.models.iter().filter(|(_, held)| **held == Held::Loaded);
            let loaded: BTreeSet<_> = loaded.map(|(model, _)| model.clone()).collect();
            if ready != loaded && agent.session.is_some() {
                what.push(format!("agent {n} says {ready:?}, its server holds {loaded:?}"));
            }
        }
        self.unsettled_control(&mut what);
        what
    }

    fn unsettled_control(&self, what: &mut Vec<String>) {
        let controls = self.controls.iter().filter_map(|control| control.running.as_ref());
        let Some(control) = controls.max_by_key(|control| control.core.epoch()) else {
            what.push("no control runs".to_owned());
            return;
        };
        let epoch = control.core.epoch();
        let table = control.core.published();
        for (n, proxy) in self.proxies.iter().enumerate() {
            let Some(running) = &proxy.running else {
                what.push(format!("proxy {n} is not there"));
                continue;
            };
            let version = running.fleet.table().map(|table| table.version);
            if version.is_none_or(|version| version.epoch != epoch) {
                what.push(format!("proxy {n} has table {version:?} of epoch {epoch}"));
            }
            let same = |name: &String, active: &String| {
                running.fleet.table().and_then(|table| table.vmodel(name).map(|v| v.active.to_string())).as_ref()
                    == Some(active)
            };
            if table.vmodels.iter().any(|(name, vmodel)| !same(name, &vmodel.active)) {
                what.push(format!("proxy {n} has other vmodels than control"));
            }
            let now = self.clock(Node::Proxy(n));
            if running.fleet.peers().values().any(|peer| !peer.host.is_live(now)) {
                what.push(format!("proxy {n} has no lease of some agent"));
            }
        }
        for (name, service) in &self.desires.services {
            let Some(model) = self.desires.model(name) else { continue };
            let Some(vmodel) = table.vmodels.get(name) else {
                what.push(format!("{name} is in no table"));
                continue;
            };
            let profile = self.desires.profile(&service.path);
            let good = !profile.bad && profile.is_there;
            let fits = self.surely_fits(profile.bytes);
            if good && fits && vmodel.active != model.as_str() {
                what.push(format!("{name} is served by {} in place of {model}", vmodel.active));
            }
            let ready = self.copies_of(&vmodel.active);
            let failed = !good && vmodel.active == model.as_str();
            if ready < service.min as usize && !failed && fits {
                what.push(format!("{name} has {ready} copies of {}, {} are asked for", vmodel.active, service.min));
            }
        }
        let stale = table.vmodels.keys().find(|name| !self.desires.services.contains_key(*name));
        if let Some(name) = stale {
            what.push(format!("{name} is in the table and not asked for"));
        }
    }

    /// Whether so many bytes find a place whatever is kept: all that may be kept fits into one pod beside them.
    #[must_use]
    pub fn surely_fits(&self, bytes: u64) -> bool {
        let controls = self.controls.iter().filter_map(|control| control.running.as_ref());
        let Some(control) = controls.max_by_key(|control| control.core.epoch()) else { return false };
        let table = control.core.published();
        let kept = table.vmodels.iter().filter_map(|(name, vmodel)| {
            let min = self.desires.services.get(name).map_or(0, |service| service.min);
            let path = &table.models.get(&vmodel.active)?.r#ref.as_ref()?.path;
            (min > 0 || !vmodel.target.is_empty()).then(|| self.desires.profile(path).bytes)
        });
        kept.sum::<u64>() + bytes <= self.shape.capacity
    }

    /// Ready copies of a model.
    #[must_use]
    pub fn copies_of(&self, model: &str) -> usize {
        let pods = self.pods.iter().filter_map(|pod| pod.agent.as_ref());
        let ready = pods.filter(|agent| {
            let mut copies = agent.pod.copies();
            copies.any(|copy| copy.model.as_str() == model && matches!(copy.state, CopyState::Ready { .. }))
        });
        ready.count()
    }
}
