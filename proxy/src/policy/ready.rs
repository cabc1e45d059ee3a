//! Whether a call would be answered.

use modelring_placement::{
    seek::{Ending, MAX_FAILURES},
    view::Status,
};

use super::{Asked, Mesh, no_table, resolve};
use crate::{
    engine::answer::{Answer, Reason},
    rest::handler::Readiness,
};

impl Mesh {
    /// Whether a call of this model would be answered: it is known, has not failed to load, and its class has an instance. A
    /// cold model is ready, it would be loaded.
    ///
    /// # Errors
    ///
    /// What such a call would be answered.
    pub fn is_model_ready(&self, asked: &Asked) -> Result<(), Answer> {
        let fleet = &self.0.fleet;
        let table = fleet.table().ok_or_else(no_table)?;
        let model = resolve(&table, asked)?;
        let class = table.class(&model.class).filter(|class| !class.runtimes.is_empty());
        let Some(class) = class else { return Err(no_runtime(&model.class)) };
        let now = fleet.clock.now();
        if fleet.index.with(model.id().as_str(), |copies| copies.iter().any(|copy| copy.is_usable(now))) {
            return Ok(());
        }
        if class.members().all(|member| member.leaving) {
            let text = Ending::no_instance(&model.reference.model_type).text;
            return Err(Answer::new(Reason::NI, text));
        }
        let sights = fleet.sights(now, &model, &table);
        let failures: Vec<_> = sights
            .candidates
            .iter()
            .filter_map(|sight| match &sight.status {
                Status::Failed { since, error, .. } => Some((*since, error)),
                _ => None,
            })
            .collect();
        let newest = failures.iter().max_by_key(|(since, _)| *since);
        match newest {
            Some((_, error)) if failures.len() >= MAX_FAILURES.min(sights.candidates.len()) => {
                let text = Ending::failed(model.id(), error.code, &error.text).text;
                Err(Answer::new(Reason::LF, text))
            }
            _ => Ok(()),
        }
    }
}

impl Readiness for Mesh {
    fn ready(&self) -> bool {
        self.0.fleet.is_ready()
    }

    fn model_ready(&self, name: &str) -> Result<(), Answer> {
        self.is_model_ready(&Asked::VModel(name.into()))
    }

    fn max_message(&self) -> usize {
        let tuning = self.0.fleet.table().map(|table| table.tuning.clone()).unwrap_or_default();
        tuning.max_message
    }
}

/// No runtime takes models of this class.
pub(super) fn no_runtime(class: &str) -> Answer {
    Answer::new(Reason::NR, format!("no runtime serves models of type {class}"))
}
