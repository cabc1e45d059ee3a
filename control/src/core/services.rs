//! The vmodels of all InferenceServices, with what is kept of each over a restart.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use modelring_placement::{
    copies::Limits,
    id::{InstanceId, ModelId},
    time::Time,
    vmodel::{Facts, Order, Restart, VModel},
};

use super::dial::Answer;
use crate::{
    Error,
    convert::Converted,
    source::{ActiveMemory, ActiveRecord, KeptModel},
};

/// All vmodels.
#[derive(Debug, Default)]
pub(super) struct Services {
    /// As a control before this one left them.
    pub(super) records: BTreeMap<String, ActiveRecord>,
    pub(super) services: BTreeMap<String, Service>,
}

/// One vmodel.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) vmodel: VModel,
    /// All models that the vmodel names, complete.
    pub(super) models: HashMap<ModelId, KeptModel>,
    pub(super) limits: Limits,
    pub(super) load_timeout: Option<Duration>,
    /// Percent of the calls that go to the target, while a canary is on and the target is ready.
    pub(super) weight: u32,
    /// n of the table in which its entry last changed; `None` until that is published.
    pub(super) changed_at: Option<u64>,
    /// What came of the room that was asked for.
    pub(super) room: Option<Result<(), String>>,
    /// Its models in the table.
    pub(super) listed: Vec<ModelId>,
    /// An instance where the new model may take the place of the old one.
    pub(super) place: Option<InstanceId>,
    /// What keeps it from being right, for people.
    pub(super) trouble: Option<String>,
}

/// What is seen of the models of one service.
pub(super) struct Seen<'a> {
    pub(super) now: Time,
    pub(super) unknown: bool,
    pub(super) load_timeout: Duration,
    pub(super) copies: &'a dyn Fn(&ModelId) -> modelring_placement::vmodel::Copies,
    pub(super) place: Option<InstanceId>,
    pub(super) acknowledged: bool,
}

// === impl Services ===

impl Services {
    pub(super) fn new(records: BTreeMap<String, ActiveRecord>) -> Self {
        Self { records, services: BTreeMap::new() }
    }

    /// Begins a vmodel that this control has not had yet.
    pub(super) fn begin(
        &mut self,
        now: Time,
        name: &str,
        wanted: &Converted,
        restart: impl Fn(&ActiveRecord) -> Restart,
    ) -> &mut Service {
        let record = self.records.get(name);
        self.services.entry(name.to_owned()).or_insert_with(|| {
            let mut models = HashMap::from([(id(&wanted.model), wanted.model.clone())]);
            let vmodel = match record {
                Some(record) => {
                    models.extend(
                        [&record.active].into_iter().chain(&record.before).map(|kept| (id(kept), kept.clone())),
                    );
                    let (active, before) = (id(&record.active), record.before.as_ref().map(id));
                    VModel::restarted(now, active, before, record.tried.as_deref().map(ModelId::from), restart(record))
                }
                None => VModel::new(id(&wanted.model)),
            };
            let (limits, load_timeout) = (Limits::default(), None);
            Service {
                vmodel,
                models,
                limits,
                load_timeout,
                weight: 0,
                changed_at: None,
                room: None,
                listed: Vec::new(),
                place: None,
                trouble: None,
            }
        })
    }

    /// Whether nothing is on with a service and it is just as the manifest says.
    pub(super) fn is_as_asked(&self, name: &str, wanted: &Converted) -> bool {
        self.services.get(name).is_some_and(|service| {
            service.vmodel.is_steady()
                && service.vmodel.active().as_str() == wanted.model.id
                && service.limits == Limits { min: wanted.min_copies, max: wanted.max_copies }
                && service.load_timeout == wanted.load_timeout
                && self.records.contains_key(name)
        })
    }

    /// Takes a vmodel out that is no longer asked for, with its record. Returns it if it was there.
    pub(super) fn remove(&mut self, memory: &dyn ActiveMemory, name: &str) -> Option<Service> {
        if self.records.contains_key(name) {
            match memory.remove(name) {
                Ok(()) => drop(self.records.remove(name)),
                Err(error) => tracing::warn!(name, %error, "the record of a service that is no more stays"),
            }
        }
        self.services.remove(name)
    }

    pub(super) fn room_answer(&mut self, name: &str, answer: &Answer) {
        if let Some(service) = self.services.get_mut(name) {
            service.room = Some(match answer {
                Answer::Loaded { .. } => Ok(()),
                Answer::Failed(error) => Err(error.text.clone()),
                Answer::Refused { text, .. } | Answer::Lost(text) => Err(text.clone()),
            });
        }
    }

    /// Moves one vmodel on. A change of its active model is written down first; if that fails nothing changes. An error
    /// ends this control: another has taken over.
    pub(super) fn step(
        &mut self,
        memory: &Arc<dyn ActiveMemory>,
        epoch: u64,
        name: &str,
        wanted: &Converted,
        seen: &Seen<'_>,
    ) -> Result<Option<Order>, Error> {
        let Some(service) = self.services.get_mut(name) else { return Ok(None) };
        service.models.entry(id(&wanted.model)).or_insert_with(|| wanted.model.clone());
        service.limits = Limits { min: wanted.min_copies, max: wanted.max_copies };
        service.load_timeout = wanted.load_timeout;
        let canary = wanted.canary;
        let wanted = id(&wanted.model);
        let facts = Facts {
            now: seen.now,
            wanted: &wanted,
            unknown: seen.unknown,
            max_copies: service.limits.max,
            load_timeout: seen.load_timeout,
            active: (seen.copies)(service.vmodel.active()),
            target: (seen.copies)(&wanted),
            place: seen.place.as_ref(),
            acknowledged: seen.acknowledged,
            canary: canary.is_some(),
            room: service.room.as_ref().map(Result::is_ok),
        };
        let (next, order) = service.vmodel.step(&facts);
        let record = service.record(&next, epoch);
        let kept = self.records.get(name);
        let is_kept = kept.is_some_and(|kept| ActiveRecord { epoch, ..kept.clone() } == record);
        if !is_kept {
            if let Err(error) = memory.write(name, &record, kept.is_some()) {
                if let Error::Superseded { .. } = error {
                    return Err(error);
                }
                let trouble = format!("its record cannot be written, so nothing changes: {error}");
                // It is tried again at every step, and said once.
                if service.trouble.as_ref() != Some(&trouble) {
                    tracing::error!(name, %error, "the record of a service cannot be written, nothing changes");
                }
                service.trouble = Some(trouble);
                return Ok(None);
            }
            self.records.insert(name.to_owned(), record);
        }
        if next.active() != service.vmodel.active() {
            tracing::info!(name, from = %service.vmodel.active(), to = %next.active(), "the active model changed");
        }
        if order.is_some() {
            service.room = None;
        }
        service.vmodel = next;
        let target_is_ready = service.vmodel.target() == Some(&wanted) && facts.target.ready > 0;
        service.weight = canary.filter(|_| target_is_ready).unwrap_or(0);
        service.drop_models(&wanted);
        Ok(order)
    }
}

// === impl Service ===

impl Service {
    fn record(&self, vmodel: &VModel, epoch: u64) -> ActiveRecord {
        let kept = |id: &ModelId| self.models.get(id).cloned().expect("every model that a vmodel names is kept");
        let tried = vmodel.tried().map(ToString::to_string);
        ActiveRecord { active: kept(vmodel.active()), before: vmodel.before().map(kept), tried, epoch }
    }

    /// Keeps the models that the vmodel names.
    fn drop_models(&mut self, wanted: &ModelId) {
        let vmodel = &self.vmodel;
        self.models.retain(|id, _| {
            id == wanted || id == vmodel.active() || vmodel.before() == Some(id) || vmodel.target() == Some(id)
        });
    }

    /// The models of the table: the active one, the one before and the target.
    pub(super) fn named(&self) -> impl Iterator<Item = (&ModelId, &KeptModel)> {
        let vmodel = &self.vmodel;
        let named = [Some(vmodel.active()), vmodel.before(), vmodel.target()];
        named.into_iter().flatten().filter_map(|id| self.models.get_key_value(id))
    }
}

/// The id of a kept model.
pub(super) fn id(model: &KeptModel) -> ModelId {
    ModelId::from(model.id.as_str())
}
