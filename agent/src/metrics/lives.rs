//! Counts what the pod decides, from the actions that it wants carried out.

use std::{collections::HashMap, sync::Arc};

use modelring_placement::{
    id::ModelId,
    pod::{Action, Change, CopyState, DrainCause, Pod, Told},
    time::Time,
};

use super::{Metrics, Outcome, add};

/// Where the models are that are neither ready nor gone, and since when.
#[derive(Debug)]
pub(crate) struct Lives {
    metrics: Arc<Metrics>,
    stages: HashMap<ModelId, Stage>,
    /// Unloads that were sent. The model may be queued anew meanwhile.
    unloads: HashMap<ModelId, Time>,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    Queued(Time),
    Loading(Time),
    /// Why, and when it was last used.
    Draining(DrainCause, Time),
}

// === impl Lives ===

impl Lives {
    pub(crate) fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, stages: HashMap::new(), unloads: HashMap::new() }
    }

    pub(crate) fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// The pod wants this done.
    pub(crate) fn see(&mut self, now: Time, action: &Action, pod: &Pod) {
        match action {
            Action::Emit(change) => self.change(now, change, pod),
            Action::Unload(model, _) => {
                self.unloads.insert(model.clone(), now);
                if let Some(Stage::Draining(cause, used)) = self.stages.remove(model) {
                    self.metrics.drained(cause, Outcome::Unloaded);
                    if matches!(cause, DrainCause::Room | DrainCause::Overrun) {
                        self.metrics.age_at_eviction.observe_time(now.since(used));
                    }
                }
            }
            Action::Tell(_, Told::Refused { refusal, .. }) => self.metrics.refused(*refusal),
            _ => {}
        }
    }

    /// The server has confirmed an unload.
    pub(crate) fn unloaded(&mut self, now: Time, model: &ModelId) {
        if let Some(since) = self.unloads.remove(model) {
            self.metrics.unload.observe_time(now.since(since));
        }
    }

    /// The server is gone, and nothing will be confirmed.
    pub(crate) fn server_is_gone(&mut self) {
        self.unloads.clear();
    }

    fn change(&mut self, now: Time, change: &Change, pod: &Pod) {
        let model = &change.model;
        let before = self.stages.get(model).copied();
        let next = match &change.state {
            CopyState::Queued => Some(Stage::Queued(now)),
            CopyState::Loading { .. } => {
                let since = if let Some(Stage::Queued(since)) = before { since } else { now };
                self.metrics.queue_delay.observe_time(now.since(since));
                Some(Stage::Loading(now))
            }
            CopyState::Ready { bytes, .. } => {
                match before {
                    Some(Stage::Loading(since)) => {
                        self.metrics.load.observe_time(now.since(since));
                        self.metrics.model_size.observe(*bytes);
                    }
                    Some(Stage::Draining(cause, _)) => self.metrics.drained(cause, Outcome::CalledOff),
                    _ => {}
                }
                None
            }
            CopyState::Draining { .. } => pod.drain(model).map(|(cause, used)| Stage::Draining(cause, used)),
            CopyState::Failed { .. } => {
                add(&self.metrics.load_failures, 1);
                None
            }
            CopyState::Gone => {
                if let Some(Stage::Draining(cause, _)) = before {
                    self.metrics.drained(cause, Outcome::Lost);
                }
                None
            }
        };
        match next {
            Some(next) => drop(self.stages.insert(model.clone(), next)),
            None => drop(self.stages.remove(model)),
        }
    }
}
