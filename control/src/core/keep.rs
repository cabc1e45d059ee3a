//! Keeps the wanted copies: asks the next candidates of each model that has fewer, and again when a refusal or a failure
//! no longer counts.

use std::collections::HashMap;

use modelring_placement::{
    id::{InstanceId, ModelId},
    ring::{RingParameters, place_next},
};
use modelring_proto::v1::{LoadRequest, load_request::Why};

use super::{
    Ask, Core, LOAD_BUDGET,
    asks::Asks,
    dial::Answer,
    evaluate::{Sight, Want},
    fleet::{Copies, Fleet},
    publish::RING,
};

// === impl Fleet ===

impl Fleet {
    /// Instances that may hold models of a class, sorted.
    pub(super) fn ids_of_class(sight: &Sight, runtimes: &[String]) -> Vec<InstanceId> {
        let fits = sight.instances.values().filter(|instance| runtimes.contains(&instance.runtime));
        fits.map(|instance| InstanceId::from(instance.id.as_str())).collect()
    }

    /// The order of candidates of a model: the one that proxies with the same table have.
    pub(super) fn order(&mut self, sight: &Sight, runtimes: &[String], model: &ModelId) -> Vec<InstanceId> {
        let ids = Self::ids_of_class(sight, runtimes);
        let parameters = RingParameters { seed: RING.seed, points: RING.points };
        self.ring(parameters, runtimes, ids).order(model, |id| sight.members.get(id))
    }

    /// Whether no further copy of a model can be had now: every candidate without one has refused for space, or is away.
    pub(super) fn no_space(
        &self,
        asks: &Asks,
        sight: &Sight,
        namespace: &str,
        model: &ModelId,
        runtimes: &[String],
        ready: &[InstanceId],
    ) -> bool {
        let present = self.present(namespace);
        let mut refused = false;
        let others = Self::ids_of_class(sight, runtimes).into_iter().filter(|id| !ready.contains(id));
        let none_left = others.into_iter().all(|id| {
            let space = asks.refusal(model, &id).is_some_and(|refusal| refusal.space);
            refused |= space;
            space || !present.get(&id).is_some_and(|(_, agent)| agent.is_live(sight.now))
        });
        none_left && (refused || !ready.is_empty())
    }
}

// === impl Want ===

impl Want {
    /// Why a further copy is asked for where there are so many. What was evicted though some still call it comes back by its
    /// next caller, or into memory that is free: to evict another for it would only turn them round and round.
    fn why(&self, held: usize) -> Why {
        match held {
            held if held < self.least as usize => Why::Keep,
            0 => Why::Ahead,
            _ => Why::Scale,
        }
    }
}

// === impl Core ===

impl Core {
    pub(super) fn keep(&mut self, sight: &Sight) {
        let wants = std::mem::take(&mut self.wants);
        let present = self.fleet.present(&self.namespace).into_iter();
        let live: HashMap<InstanceId, u64> = present
            .filter(|(_, (_, agent))| agent.is_live(sight.now))
            .map(|(id, (_, agent))| (id, agent.free()))
            .collect();
        let none = Copies::default();
        for want in wants.values().filter(|want| want.copies > 0) {
            let copies = sight.copies.get(&want.model).unwrap_or(&none);
            let mut held: Vec<InstanceId> = copies.ready.iter().chain(&copies.moving).cloned().collect();
            held.extend(
                self.asks.open_of(&want.model).filter(|id| !copies.ready.contains(id) && !copies.moving.contains(id)),
            );
            // What is on a leaving instance is soon no more.
            held.retain(|id| !sight.is_leaving(id));
            let wanted = want.copies as usize;
            if held.len() >= wanted {
                continue;
            }
            // What is missing may be had later: a refusal ends, an instance comes.
            self.waits = true;
            if self.asks.is_full() {
                break;
            }
            let mut order = self.fleet.order(sight, &want.runtimes, &want.model);
            let ahead = want.why(held.len()) == Why::Ahead;
            order.retain(|id| {
                live.get(id).is_some_and(|free| self.asks.may_ask(sight.now, &want.model, id, ahead, *free))
                    && !copies.failed.iter().any(|(failed, _)| failed == id)
            });
            while held.len() < wanted && !self.asks.is_full() {
                let Some(placing) = place_next(&order, &held, |id| sight.members.get(id)) else { break };
                self.ask(want, placing.instance.clone(), want.why(held.len()));
                held.push(placing.instance);
            }
        }
        self.wants = wants;
    }

    fn ask(&mut self, want: &Want, instance: InstanceId, why: Why) {
        let Some(service) = self.services.services.get(&want.service) else { return };
        let request = LoadRequest {
            model: Some(service.reference(&want.kept)),
            why: why.into(),
            replaces: String::new(),
            table: Some(self.published.version(self.epoch)),
        };
        let timeout = service.load_timeout.unwrap_or_else(|| self.fleet.load_timeout(&want.runtimes));
        self.ask_outside(want.model.clone(), instance, request, timeout, None);
    }

    /// Asks for the new model of a service in place of the old one.
    pub(super) fn make_room(
        &mut self,
        sight: &Sight,
        name: &str,
        runtimes: &[String],
        instance: InstanceId,
        model: &ModelId,
        replaces: &ModelId,
    ) {
        let Some(service) = self.services.services.get(name) else { return };
        let Some(kept) = service.models.get(model) else { return };
        tracing::info!(name, %model, %replaces, %instance, at = %sight.now, "the new model is asked for in place of the old one");
        let request = LoadRequest {
            model: Some(service.reference(kept)),
            why: Why::Keep.into(),
            replaces: replaces.to_string(),
            table: Some(self.published.version(self.epoch)),
        };
        let timeout = service.load_timeout.unwrap_or_else(|| self.fleet.load_timeout(runtimes));
        self.ask_outside(model.clone(), instance, request, timeout, Some(name.to_owned()));
    }

    fn ask_outside(
        &mut self,
        model: ModelId,
        instance: InstanceId,
        request: LoadRequest,
        load_timeout: std::time::Duration,
        makes_room_for: Option<String>,
    ) {
        let Some(address) = self.fleet.address(&instance) else {
            if let Some(service) = makes_room_for {
                self.services.room_answer(&service, &Answer::Lost("the instance is gone".to_owned()));
            }
            return;
        };
        let place = (model, instance);
        self.asks.begin(place.clone(), request.why() == Why::Ahead);
        let load_budget = load_timeout.saturating_mul(LOAD_BUDGET);
        self.outside.ask(address, Ask { place, makes_room_for, request, load_budget });
    }
}
