//! A table in the making: takes changes, then checks that it is whole.

use std::{sync::Arc, time::Duration};

use modelring_placement::{
    id::{ModelId, ModelRef},
    ring::RingParameters,
};
use modelring_proto::v1;

use super::{
    Table,
    entry::{Class, Instance, Model, Tuning, VModel, Version},
    rules::Rules,
};

/// A table in the making.
pub(super) struct Draft {
    table: Table,
    touched: Touched,
    /// The first thing that did not apply.
    problem: Option<String>,
}

/// What has to be checked at the end.
enum Touched {
    /// All.
    All,
    /// Only these.
    Some { models: Vec<ModelId>, vmodels: Vec<Arc<str>>, gone: Vec<ModelId>, classes_removed: bool },
}

// === impl Draft ===

impl Draft {
    /// Begins a snapshot.
    pub(super) fn snapshot() -> Self {
        Self { table: Table::default(), touched: Touched::All, problem: None }
    }

    /// Begins a delta to `base`.
    pub(super) fn delta(base: &Table) -> Self {
        let touched =
            Touched::Some { models: Vec::new(), vmodels: Vec::new(), gone: Vec::new(), classes_removed: false };
        Self { table: base.clone(), touched, problem: None }
    }

    /// Applies a change; what is wrong with it is said by [`Draft::finish`].
    pub(super) fn apply(&mut self, change: v1::TableChange) {
        self.remove(&change);
        for class in change.classes {
            let runtimes = class.runtimes.into_iter().map(Arc::from).collect();
            let id: Arc<str> = class.id.into();
            Arc::make_mut(&mut self.table.classes).insert(id.clone(), Arc::new(Class::new(id, runtimes)));
        }
        for model in change.models {
            self.set_model(model);
        }
        for vmodel in change.vmodels {
            self.set_vmodel(vmodel);
        }
        for instance in change.instances {
            self.set_instance(instance);
        }
        for wanted in change.wanted {
            // In a snapshot the model may come in a later chunk; in a delta it is there or nobody wants it.
            if matches!(self.touched, Touched::All) || self.table.models.contains(&wanted.model) {
                self.table.wanted.insert(self.model_id(wanted.model), wanted.copies);
            }
        }
        if let Some(tuning) = change.tuning {
            self.table.tuning = Arc::new(Tuning::from_proto(&tuning));
        }
        if let Some(ring) = change.ring {
            self.table.ring = RingParameters { seed: ring.seed, points: ring.points };
        }
        if let Some(proxies) = change.proxies {
            self.table.proxies = proxies;
        }
    }

    /// The table of this version, or what does not fit.
    pub(super) fn finish(mut self, version: Version) -> Result<Table, String> {
        if let Some(problem) = self.problem {
            return Err(problem);
        }
        let Table { models, vmodels, classes, .. } = &self.table;
        match &self.touched {
            Touched::All => {
                models.iter().try_for_each(|(_, model)| self.check_model(model))?;
                vmodels.iter().try_for_each(|(name, vmodel)| self.check_vmodel(name, vmodel))?;
            }
            Touched::Some { models: changed, vmodels: renamed, gone, classes_removed } => {
                if *classes_removed {
                    models.iter().try_for_each(|(_, model)| self.check_model(model))?;
                }
                changed.iter().filter_map(|id| models.get(id.as_str())).try_for_each(|m| self.check_model(m))?;
                for name in renamed {
                    vmodels.get(name).map_or(Ok(()), |vmodel| self.check_vmodel(name, vmodel))?;
                }
                let dangling = gone.iter().find(|id| !models.contains(id.as_str()) && self.is_referred_to(id));
                if let Some(id) = dangling {
                    return Err(format!("model `{id}` was removed while a vmodel points at it"));
                }
            }
        }
        self.table.classes =
            Arc::new(classes.iter().map(|(id, class)| (id.clone(), self.with_members(class))).collect());
        self.table.version = version;
        Ok(self.table)
    }

    fn remove(&mut self, change: &v1::TableChange) {
        for id in &change.removed_classes {
            Arc::make_mut(&mut self.table.classes).remove(id.as_str());
            if let Touched::Some { classes_removed, .. } = &mut self.touched {
                *classes_removed = true;
            }
        }
        for id in &change.removed_models {
            self.table.models.remove(id);
            self.table.wanted.remove(id);
            if let Touched::Some { gone, .. } = &mut self.touched {
                gone.push(id.as_str().into());
            }
        }
        for name in &change.removed_vmodels {
            if let Some(before) = self.table.vmodels.remove(name) {
                self.unrefer(&before);
            }
        }
        for id in &change.removed_instances {
            Arc::make_mut(&mut self.table.instances).remove(id.as_str());
        }
    }

    fn set_model(&mut self, model: v1::Model) {
        let Some(reference) = model.r#ref.filter(|reference| !reference.id.is_empty()) else {
            return self.fail("a model has no id");
        };
        let reference = reference_from(reference);
        let id = reference.id.clone();
        if let Touched::Some { models, .. } = &mut self.touched {
            models.push(id.clone());
        }
        let class = match self.table.classes.get_key_value(model.class.as_str()) {
            Some((id, _)) => id.clone(),
            None => model.class.into(),
        };
        self.table.models.insert(id, Arc::new(Model::new(reference, class, model.max_copies)));
    }

    fn set_vmodel(&mut self, vmodel: v1::VModel) {
        if vmodel.name.is_empty() {
            return self.fail("a vmodel has no name");
        }
        let name: Arc<str> = vmodel.name.into();
        let after = VModel {
            active: self.model_id(vmodel.active),
            target: (!vmodel.target.is_empty()).then(|| self.model_id(vmodel.target)),
            target_weight: vmodel.target_weight.min(100),
        };
        for id in [Some(&after.active), after.target.as_ref()].into_iter().flatten() {
            let references = self.table.references.get(id.as_str()).copied().unwrap_or_default();
            self.table.references.insert(id.clone(), references + 1);
        }
        if let Touched::Some { vmodels, .. } = &mut self.touched {
            vmodels.push(name.clone());
        }
        if let Some(before) = self.table.vmodels.insert(name, Arc::new(after)) {
            self.unrefer(&before);
        }
    }

    fn set_instance(&mut self, instance: v1::Instance) {
        if instance.id.is_empty() || instance.address.is_empty() {
            return self.fail("an instance has no id or no address");
        }
        let instance = Instance {
            id: instance.id.into(),
            pod_uid: instance.pod_uid.into(),
            address: instance.address.into(),
            runtime: instance.runtime.into(),
            node: instance.node.into(),
            zone: instance.zone.into(),
            accepts_new: instance.accepts_new,
            leaving: instance.leaving,
        };
        Arc::make_mut(&mut self.table.instances).insert(instance.id.clone(), Arc::new(instance));
    }

    fn check_model(&self, model: &Model) -> Result<(), String> {
        if self.table.classes.contains_key(&model.class) {
            return Ok(());
        }
        Err(format!("model `{}` is of unknown class `{}`", model.id(), model.class))
    }

    fn check_vmodel(&self, name: &str, vmodel: &VModel) -> Result<(), String> {
        let points_at = [Some(&vmodel.active), vmodel.target.as_ref()];
        match points_at.into_iter().flatten().find(|id| !self.table.models.contains(id.as_str())) {
            Some(id) => Err(format!("vmodel `{name}` points at unknown model `{id}`")),
            None => Ok(()),
        }
    }

    fn is_referred_to(&self, id: &ModelId) -> bool {
        self.table.references.get(id.as_str()).is_some_and(|references| *references > 0)
    }

    fn unrefer(&mut self, vmodel: &VModel) {
        for id in [Some(&vmodel.active), vmodel.target.as_ref()].into_iter().flatten() {
            match self.table.references.get(id.as_str()).copied() {
                Some(references) if references > 1 => {
                    self.table.references.insert(id.clone(), references - 1);
                }
                _ => {
                    self.table.references.remove(id.as_str());
                }
            }
        }
    }

    /// The class with the instances that belong to it.
    fn with_members(&self, class: &Arc<Class>) -> Arc<Class> {
        let is_member = |instance: &&Arc<Instance>| class.runtimes.contains(&instance.runtime);
        let members = self.table.instances.values().filter(is_member);
        class.with(members.map(|instance| (instance.id.clone(), instance.member())).collect(), self.table.ring)
    }

    /// The id as the table already holds it, so that it is in memory once.
    fn model_id(&self, id: String) -> ModelId {
        self.table.models.get(&id).map_or_else(|| id.into(), |model| model.id().clone())
    }

    fn fail(&mut self, problem: &str) {
        self.problem.get_or_insert_with(|| problem.to_owned());
    }
}

// === impl Tuning ===

impl Tuning {
    fn from_proto(tuning: &v1::Tuning) -> Self {
        let millis = |millis: u64, default| if millis == 0 { default } else { Duration::from_millis(millis) };
        let default = Self::default();
        Self {
            place_timeout: millis(tuning.place_timeout_millis, default.place_timeout),
            drain_timeout: millis(tuning.drain_timeout_millis, default.drain_timeout).max(Duration::from_secs(3)),
            max_message: match tuning.max_message_bytes {
                0 => default.max_message,
                bytes => usize::try_from(bytes).unwrap_or(usize::MAX),
            },
            rules: Rules::from_proto(&tuning.rpcs, tuning.allow_other_rpcs),
        }
    }
}

fn reference_from(reference: v1::ModelRef) -> ModelRef {
    ModelRef {
        id: reference.id.into(),
        model_type: reference.r#type,
        path: reference.path,
        key: reference.key,
        size_hint: (reference.size_hint > 0).then_some(reference.size_hint),
        load_timeout: (reference.load_timeout_millis > 0).then(|| Duration::from_millis(reference.load_timeout_millis)),
    }
}
