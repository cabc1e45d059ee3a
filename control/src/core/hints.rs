//! Hints to agents: what they never evict, what they evict first, what is in no table. They order nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use modelring_placement::{
    id::{InstanceId, ModelId},
    pod::CopyState,
    rules::last_copy,
};
use modelring_proto::v1::Hints;

use super::{
    Core,
    evaluate::{Sight, Want},
};

#[derive(Debug, Default)]
struct Lists {
    keep: BTreeSet<ModelId>,
    surplus: BTreeSet<ModelId>,
    gone: BTreeSet<ModelId>,
}

// === impl Core ===

impl Core {
    pub(super) fn hint(&mut self, sight: &Sight, wants: &[Want]) {
        let mut lists: HashMap<InstanceId, Lists> = HashMap::new();
        for want in wants {
            let Some(copies) = sight.copies.get(&want.model).filter(|copies| !copies.ready.is_empty()) else {
                continue;
            };
            let order = self.fleet.order(sight, &want.runtimes, &want.model);
            let position = |id: &InstanceId| order.iter().position(|other| other == id).unwrap_or(usize::MAX);
            let mut ready = copies.ready.clone();
            ready.sort_by_key(|id| (position(id), id.clone()));
            for id in ready.iter().filter(|id| want.spare.as_ref() != Some(*id)).take(want.pinned as usize) {
                lists.entry(id.clone()).or_default().keep.insert(want.model.clone());
            }
            // Where an instance has not said what it holds, too little is known to call a copy one too many.
            if self.fleet.of_class(&want.runtimes).any(|agent| agent.is_unknown(sight.now)) {
                continue;
            }
            for id in ready.iter().skip(want.copies.max(1) as usize) {
                lists.entry(id.clone()).or_default().surplus.insert(want.model.clone());
            }
        }
        let named: HashSet<&ModelId> = wants.iter().map(|want| &want.model).collect();
        for (id, (_, agent)) in self.fleet.present(&self.namespace) {
            let held = agent
                .view
                .copies()
                .filter(|(_, seen)| !matches!(seen.state, CopyState::Gone | CopyState::Failed { .. }));
            let gone = held.map(|(model, _)| model).filter(|model| !named.contains(model)).cloned();
            lists.entry(id).or_default().gone.extend(gone);
        }
        debug_assert!(wants.iter().all(|want| {
            let ready = sight.copies.get(&want.model).map_or(&[][..], |copies| &copies.ready);
            last_copy::keeps_one(&want.model, ready, |id, model| {
                lists.get(id).is_some_and(|lists| lists.surplus.contains(model) || lists.gone.contains(model))
            })
        }));
        let mut by_id: BTreeMap<InstanceId, Hints> = BTreeMap::new();
        for (id, Lists { keep, surplus, gone }) in lists {
            let texts = |models: BTreeSet<ModelId>| models.into_iter().map(|model| model.to_string()).collect();
            let hints = Hints { epoch: self.epoch, keep: texts(keep), surplus: texts(surplus), gone: texts(gone) };
            by_id.insert(id, hints);
        }
        for agent in self.fleet.agents.values() {
            let Some(hints) = agent.id().and_then(|id| by_id.get(&id)) else { continue };
            agent.hints.send_if_modified(|last| {
                let other = last != hints;
                if other {
                    last.clone_from(hints);
                }
                other
            });
        }
    }
}
