//! Hints to agents: what they never evict, what they evict first, what is in no table. They order nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use modelring_placement::{
    id::{InstanceId, ModelId},
    pod::CopyState,
    rules::last_copy,
};
use modelring_proto::v1::Hints;

use super::{
    Core,
    evaluate::{Sight, Want},
    fleet::Present,
};

/// What the hints say, as lists that are kept: a copy that moves changes its own entries.
#[derive(Debug, Default)]
pub(super) struct Weighed {
    lists: BTreeMap<InstanceId, Lists>,
    /// The instances in whose lists a model is.
    places: HashMap<ModelId, Vec<InstanceId>>,
    /// Instances whose lists changed.
    changed: BTreeSet<InstanceId>,
    epoch: u64,
}

#[derive(Debug, Default)]
struct Lists {
    keep: BTreeSet<ModelId>,
    surplus: BTreeSet<ModelId>,
    gone: BTreeSet<ModelId>,
}

/// Which list of an instance a model is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum List {
    Keep,
    Surplus,
    Gone,
}

// === impl Weighed ===

impl Weighed {
    fn set(&mut self, model: &ModelId, entries: Vec<(InstanceId, List)>) {
        for id in self.places.remove(model).unwrap_or_default() {
            if let Some(lists) = self.lists.get_mut(&id) {
                lists.keep.remove(model);
                lists.surplus.remove(model);
                lists.gone.remove(model);
            }
            self.changed.insert(id);
        }
        for (id, list) in entries {
            let lists = self.lists.entry(id.clone()).or_default();
            let list = match list {
                List::Keep => &mut lists.keep,
                List::Surplus => &mut lists.surplus,
                List::Gone => &mut lists.gone,
            };
            list.insert(model.clone());
            self.changed.insert(id.clone());
            self.places.entry(model.clone()).or_default().push(id);
        }
    }
}

// === impl Core ===

impl Core {
    /// Weighs these models, or all, and tells the agents whose hints changed.
    pub(super) fn hint(&mut self, sight: &Sight, all: bool, models: &BTreeSet<ModelId>) {
        let mut weighed = std::mem::take(&mut self.weighed);
        let wants = std::mem::take(&mut self.wants);
        let all = all || weighed.epoch != self.epoch;
        let (mut strange, mut known) = (Vec::new(), Vec::new());
        {
            let present = self.fleet.present(&self.namespace);
            let held = || present.values().flat_map(|(_, agent)| agent.view.copies().map(|(model, _)| model));
            let models: BTreeSet<&ModelId> = if all { held().collect() } else { models.iter().collect() };
            if all {
                weighed = Weighed { epoch: self.epoch, ..Weighed::default() };
                weighed.changed.extend(present.keys().cloned());
            }
            for model in models {
                match wants.get(model) {
                    Some(want) => known.push(want),
                    None => strange.push((model.clone(), holders(&present, model))),
                }
            }
        }
        for (model, entries) in strange {
            weighed.set(&model, entries);
        }
        for want in known {
            let entries = self.weigh(sight, want);
            weighed.set(&want.model, entries);
        }
        for agent in self.fleet.agents.values() {
            let Some(id) = agent.id().filter(|id| weighed.changed.contains(id)) else { continue };
            let hints = weighed.lists.get(&id).map_or_else(Hints::default, Lists::hints);
            let hints = Hints { epoch: self.epoch, ..hints };
            agent.hints.send_if_modified(|last| {
                let other = *last != hints;
                if other {
                    *last = hints;
                }
                other
            });
        }
        weighed.changed.clear();
        self.wants = wants;
        self.weighed = weighed;
    }

    /// The lists of instances that a model of the table belongs in.
    fn weigh(&mut self, sight: &Sight, want: &Want) -> Vec<(InstanceId, List)> {
        let model = &want.model;
        let ready = sight.copies.get(model).map_or(&[][..], |copies| &copies.ready);
        if ready.is_empty() {
            return Vec::new();
        }
        let order = self.fleet.order(sight, &want.runtimes, model);
        let position = |id: &InstanceId| order.iter().position(|other| other == id).unwrap_or(usize::MAX);
        let mut ready = ready.to_vec();
        ready.sort_by_key(|id| (position(id), id.clone()));
        let kept = ready.iter().filter(|id| want.spare.as_ref() != Some(*id)).take(want.pinned as usize);
        let mut entries: Vec<_> = kept.map(|id| (id.clone(), List::Keep)).collect();
        // Where an instance has not said what it holds, too little is known to call a copy one too many.
        if !self.fleet.of_class(&want.runtimes).any(|agent| agent.is_unknown(sight.now)) {
            let surplus = ready.iter().skip(want.copies.max(1) as usize);
            entries.extend(surplus.map(|id| (id.clone(), List::Surplus)));
        }
        debug_assert!(last_copy::keeps_one(model, &ready, |id, _| {
            entries.iter().any(|(of, list)| of == id && *list != List::Keep)
        }));
        entries
    }
}

/// The instances that hold a model which is in no table.
fn holders(present: &Present<'_>, model: &ModelId) -> Vec<(InstanceId, List)> {
    let holds = |state: &CopyState| !matches!(state, CopyState::Gone | CopyState::Failed { .. });
    let holders =
        present.iter().filter(|(_, (_, agent))| agent.view.copy(model).is_some_and(|seen| holds(&seen.state)));
    holders.map(|(id, _)| (id.clone(), List::Gone)).collect()
}

// === impl Lists ===

impl Lists {
    fn hints(&self) -> Hints {
        let texts = |models: &BTreeSet<ModelId>| models.iter().map(ToString::to_string).collect();
        Hints { epoch: 0, keep: texts(&self.keep), surplus: texts(&self.surplus), gone: texts(&self.gone) }
    }
}
