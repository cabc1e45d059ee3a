//! What follows from all that is known.

use std::collections::{BTreeMap, HashMap};

use modelring_placement::{
    accept, copies,
    id::{InstanceId, ModelId},
    ring::Member,
    time::Time,
    vmodel::{self, Order, Restart},
};
use modelring_proto::v1::{Instance, TableChange};

use super::{
    Core, FIRST_TABLE, NO_DOWN_STEP,
    catalog::Catalog,
    fleet::Copies,
    services::{self, Seen, Service},
};
use crate::{Error, convert::Converted, source::KeptModel};

/// All that is seen of the fleet at one moment.
pub(super) struct Sight {
    pub(super) now: Time,
    pub(super) instances: BTreeMap<String, Instance>,
    pub(super) members: HashMap<InstanceId, Member>,
    pub(super) copies: HashMap<ModelId, Copies>,
}

// === impl Sight ===

impl Sight {
    /// Whether an instance is going away.
    pub(super) fn is_leaving(&self, id: &InstanceId) -> bool {
        self.members.get(id).is_some_and(|member| member.leaving)
    }
}

/// How many copies a model should have, and of what class it is.
#[derive(Debug)]
pub(super) struct Want {
    pub(super) service: String,
    pub(super) model: ModelId,
    pub(super) kept: KeptModel,
    pub(super) runtimes: Vec<String>,
    pub(super) copies: u32,
    /// As many are to be kept whatever the demand; more are for scale.
    pub(super) least: u32,
    /// As many are never to be evicted.
    pub(super) pinned: u32,
    /// This one may be.
    pub(super) spare: Option<InstanceId>,
}

// === impl Core ===

impl Core {
    /// Derives what follows from all that is known, and does it.
    ///
    /// # Errors
    ///
    /// Another control has taken over: this one ends.
    pub fn evaluate(&mut self) -> Result<(), Error> {
        self.dirty = false;
        self.waits = false;
        let Some(catalog) = self.catalog.take() else { return Ok(()) };
        let now = self.now();
        let since_marks = now.since(self.marked_at);
        if since_marks >= accept::LOOK_EVERY {
            self.marked_at = now;
            self.fleet.mark(now, since_marks);
        }
        let all_said = self.fleet.agents.values().all(|agent| agent.is_live(now));
        if self.published.is_first() && !all_said && now.since(self.listed_at) < FIRST_TABLE {
            self.waits = true;
        } else {
            self.derive(now, &catalog)?;
        }
        self.catalog = Some(catalog);
        Ok(())
    }

    fn derive(&mut self, now: Time, catalog: &Catalog) -> Result<(), Error> {
        let (instances, members) = self.fleet.instances(&self.namespace);
        self.look_around(now, catalog, &instances);
        let (copies, mut weigh) = self.recount(now);
        let sight = Sight { now, instances, members, copies };
        self.take_stock(&sight);
        self.age_demand(now);
        let all = self.stale.all;
        let mut change = TableChange::default();
        for name in self.take_stale(catalog) {
            weigh.extend(self.services.services.get(&name).into_iter().flat_map(|service| service.listed.clone()));
            match catalog.services.get(&name) {
                Some(wanted) => {
                    self.move_service(catalog, &sight, &name, wanted)?;
                    self.explain(catalog, &sight, &name);
                    let wants = self.wants(catalog, &sight, &name);
                    weigh.extend(wants.iter().map(|want| want.model.clone()));
                    self.list(catalog, &name, wants, &mut change);
                    if !self.services.is_as_asked(&name, wanted) {
                        // It goes on by itself: with time, with what proxies acknowledge.
                        self.stale.names.insert(name);
                        self.waits = true;
                    }
                }
                None => self.delist(&name, &mut change),
            }
        }
        self.keep(&sight);
        self.publish(catalog, &sight.instances, all, change);
        self.hint(&sight, all, &weigh);
        self.fleet.copies = sight.copies;
        Ok(())
    }

    /// What is ready when control starts is what there should be, also what an agent tells late.
    fn take_stock(&mut self, sight: &Sight) {
        let until = self.listed_at + NO_DOWN_STEP;
        let new = self.fleet.agents.values_mut().filter(|agent| !agent.stocked && agent.is_live(sight.now));
        for agent in new {
            agent.stocked = true;
            for (model, _) in agent.view.copies() {
                let ready = sight.copies.get(model).map_or(0, |copies| copies.ready.len());
                if ready > 0 && sight.now < until {
                    let ready = u32::try_from(ready).unwrap_or(u32::MAX);
                    self.demand.entry(model.clone()).or_default().demand.found(sight.now, ready, until);
                }
            }
        }
        if self.published.is_first() {
            // A control before this one has seen to their first copy.
            self.settled.extend(self.services.records.values().map(|record| services::id(&record.active)));
        }
    }

    /// Moves a vmodel on as far as it goes.
    fn move_service(&mut self, catalog: &Catalog, sight: &Sight, name: &str, wanted: &Converted) -> Result<(), Error> {
        /// From Switched over Steady to Preparing and Switched again is the longest way.
        const MOST_STEPS: usize = 4;
        if self.services.is_as_asked(name, wanted) {
            return Ok(());
        }
        let memory = self.memory.clone();
        let of_wanted = catalog.labels.serving(&wanted.model.model_type);
        let restart_unknown = self.fleet.of_class(&of_wanted).any(|agent| !agent.is_live(sight.now));
        let ready =
            |kept: &KeptModel| sight.copies.get(kept.id.as_str()).is_some_and(|copies| !copies.ready.is_empty());
        self.services.begin(sight.now, name, wanted, |record| Restart {
            active_ready: ready(&record.active),
            before_ready: record.before.as_ref().is_some_and(ready),
            unknown: restart_unknown,
        });
        for _ in 0..MOST_STEPS {
            let Some(before) = self.services.services.get(name).map(|service| service.vmodel.clone()) else {
                break;
            };
            let (seen_unknown, place) = self.around(catalog, sight, name, wanted, &of_wanted);
            let acknowledged = self.services.services[name].changed_at.is_some_and(|n| self.proxies.have(n));
            let timeout = wanted.load_timeout.unwrap_or_else(|| self.fleet.load_timeout(&of_wanted));
            let classes: HashMap<ModelId, Vec<String>> = self.services.services[name]
                .models
                .iter()
                .map(|(id, kept)| (id.clone(), catalog.labels.serving(&kept.model_type)))
                .collect();
            let (asks, fleet) = (&self.asks, &self.fleet);
            let count = |model: &ModelId| {
                let runtimes = classes.get(model).unwrap_or(&of_wanted);
                let ready = sight.copies.get(model).map_or(&[][..], |copies| &copies.ready);
                let no_space = fleet.no_space(asks, sight, &self.namespace, model, runtimes, ready);
                vmodel::Copies { ready: u32::try_from(ready.len()).unwrap_or(u32::MAX), no_space }
            };
            let seen = Seen {
                now: sight.now,
                unknown: seen_unknown,
                load_timeout: timeout,
                copies: &count,
                place,
                acknowledged,
            };
            let order = self.services.step(&memory, self.epoch, name, wanted, &seen)?;
            let Some(service) = self.services.services.get_mut(name) else { break };
            if service.vmodel.active() != before.active() {
                // Not acknowledged before it was published.
                service.changed_at = None;
            }
            let moved = service.vmodel != before;
            if let Some(Order::MakeRoom { instance, model, replaces }) = order {
                self.make_room(sight, name, &of_wanted, instance, &model, &replaces);
            }
            if !moved {
                break;
            }
        }
        Ok(())
    }

    /// Whether anything around a service is unknown, and where its new model may take the place of its old one.
    fn around(
        &self,
        catalog: &Catalog,
        sight: &Sight,
        name: &str,
        wanted: &Converted,
        of_wanted: &[String],
    ) -> (bool, Option<InstanceId>) {
        let service = &self.services.services[name];
        let active = service.vmodel.active();
        let of_active =
            service.models.get(active).map(|kept| catalog.labels.serving(&kept.model_type)).unwrap_or_default();
        let unknown = self
            .fleet
            .of_class(of_wanted)
            .chain(self.fleet.of_class(&of_active))
            .any(|agent| agent.is_unknown(sight.now));
        let fits = |id: &&InstanceId| {
            let runtime = sight.instances.get(id.as_str()).map(|instance| &instance.runtime);
            let stays = sight.members.get(*id).is_some_and(|member| !member.leaving);
            stays && runtime.is_some_and(|runtime| of_wanted.contains(runtime))
        };
        let holds = sight.copies.get(active).map_or(&[][..], |copies| &copies.ready);
        let place = holds.iter().filter(fits).min().cloned().filter(|_| wanted.model.id != active.as_str());
        (unknown, place)
    }

    /// How many copies each model of a service should have.
    fn wants(&mut self, catalog: &Catalog, sight: &Sight, name: &str) -> Vec<Want> {
        let Some(service) = self.services.services.get(name) else { return Vec::new() };
        let mut wants = Vec::new();
        for (model, kept) in service.named() {
            let copies = sight.copies.get(model);
            let seen_to =
                |copies: &Copies| !copies.ready.is_empty() || copies.failed.iter().any(|(_, error)| !error.passing);
            if copies.is_some_and(seen_to) {
                self.settled.insert(model.clone());
            }
            let most = service.limits.max.unwrap_or(u32::MAX);
            let needs = service.vmodel.needs(model).min(most);
            let is_active = model == service.vmodel.active();
            let ready = copies.map_or(0, |copies| copies.ready.len());
            let demand = self.demand.get(model).map_or(0, |used| used.demand.copies(sight.now));
            let first = is_active && !self.settled.contains(model);
            let (copies, pinned) = if is_active {
                // A model whose successor is prepared is not evicted for it.
                let kept = if service.vmodel.target().is_some() { ready } else { 0 };
                let pinned = service.limits.min.max(u32::try_from(kept).unwrap_or(u32::MAX));
                let moves = u32::from(self.must_move(sight, model));
                (copies::want(service.limits, demand, first).max(needs).max(moves), pinned)
            } else if service.weight > 0 {
                // A canary has calls of its own.
                (copies::want(service.limits, demand, false).max(needs), 0)
            } else {
                (needs, 0)
            };
            wants.push(Want {
                service: name.to_owned(),
                model: model.clone(),
                kept: kept.clone(),
                runtimes: catalog.labels.serving(&kept.model_type),
                copies,
                least: needs.max(if is_active { service.limits.min } else { 0 }).max(u32::from(first)),
                pinned,
                // Of several one may make room.
                spare: service.place.clone().filter(|_| is_active && ready >= 2),
            });
        }
        wants
    }

    /// Whether a hot model is ready on leaving instances only: it is to be ready elsewhere before they go.
    fn must_move(&self, sight: &Sight, model: &ModelId) -> bool {
        let ready = sight.copies.get(model).map_or(&[][..], |copies| &copies.ready);
        let is_hot = self.demand.get(model).is_some_and(|used| used.demand.is_hot(sight.now));
        is_hot && !ready.is_empty() && ready.iter().all(|id| sight.is_leaving(id))
    }

    /// Says what keeps a service from being right.
    fn explain(&mut self, catalog: &Catalog, sight: &Sight, name: &str) {
        let Some(service) = self.services.services.get(name) else { return };
        let no_runtime = |model: &ModelId| {
            let kept = service.models.get(model)?;
            catalog.labels.serving(&kept.model_type).is_empty().then(|| {
                if kept.model_type.starts_with("rt:") {
                    "Specified runtime name not recognized".to_owned()
                } else {
                    "No ServingRuntime supports specified model type and/or protocol".to_owned()
                }
            })
        };
        let failed = |model: &ModelId| {
            let (instance, error) = sight.copies.get(model)?.failed.last()?;
            Some(format!("it failed to load on {instance}: {}", error.text))
        };
        let active = service.vmodel.active();
        let trouble = match service.vmodel.target() {
            Some(target) => {
                let room = service.room.as_ref().and_then(|room| room.as_ref().err()).cloned();
                let refused = || self.asks.last_text(target).map(|text| format!("there is no place for it: {text}"));
                let why = no_runtime(target).or_else(|| failed(target)).or(room).or_else(refused);
                let why = why.or_else(|| self.unknown_around(catalog, sight, service));
                why.map(|why| format!("the update to {target} is not through, {active} keeps serving: {why}"))
            }
            None => no_runtime(active).or_else(|| {
                let is_ready = sight.copies.get(active).is_some_and(|copies| !copies.ready.is_empty());
                failed(active).filter(|_| !is_ready)
            }),
        };
        let Some(service) = self.services.services.get_mut(name) else { return };
        let is_written =
            self.services.records.get(name).is_some_and(|record| record.active.id == service.vmodel.active().as_str());
        if is_written {
            service.trouble = trouble;
        }
    }

    /// The instance for whose sake nothing is switched.
    fn unknown_around(&self, catalog: &Catalog, sight: &Sight, service: &Service) -> Option<String> {
        let runtimes: Vec<_> = service.models.values().map(|kept| catalog.labels.serving(&kept.model_type)).collect();
        let unknown = runtimes.iter().find_map(|runtimes| self.fleet.unknown_of_class(sight.now, runtimes))?;
        Some(format!("it is not known what the instance at {unknown} holds"))
    }
}
