//! What follows from the start and end of the model server, and of the instance.

use super::{
    Action, CopyState, ModelId, Pod, Refusal, Server, ServerLife, ServerLimits, Told,
    ask::SOON,
    entry::{Held, Stage},
    refusal::Refused,
};
use crate::ledger::Ledger;

// === impl Pod ===

impl Pod {
    /// A new server process holds nothing; with it the account begins anew.
    pub(super) fn server_is_ready(&mut self, life: ServerLife, limits: ServerLimits) {
        if self.life.is_some_and(|last| life <= last) {
            return;
        }
        if let Some(before) = &self.server {
            self.server_is_gone(before.life);
        }
        self.life = Some(life);
        self.ledger = Ledger::new(limits.capacity);
        self.server = Some(Server { life, limits });
    }

    /// All copies and reservations of that process are gone with it. A load sent to a newer one is not.
    pub(super) fn server_is_gone(&mut self, life: ServerLife) {
        if self.server.take_if(|server| server.life == life).is_none() {
            return;
        }
        self.ledger = Ledger::default();
        let models: Vec<_> = self.entries.keys().cloned().collect();
        for model in &models {
            self.lose(model);
        }
        for model in &models {
            let text = "the model server is gone".to_owned();
            self.end_want(model, &Told::Refused { refusal: Refusal::Full, retry_after: Some(SOON), text });
        }
    }

    fn lose(&mut self, model: &ModelId) {
        let Some(entry) = self.entries.get_mut(model) else { return };
        if let Held::Loading(load) = std::mem::take(&mut entry.held)
            && load.stage == Stage::Pulling
        {
            self.out.push(Action::CancelPull(model.clone(), load.attempt));
        }
        let failed = matches!(entry.shown, Some((_, CopyState::Failed { .. })));
        if !failed {
            self.hide(model);
        }
    }

    /// Nothing new is loaded; what the server is already loading is awaited.
    pub(super) fn leave(&mut self) {
        self.leaving = true;
        let models: Vec<_> = self.entries.keys().cloned().collect();
        for model in models {
            self.abort_pull(&model);
            let sent = matches!(self.entries.get(&model).map(|entry| &entry.held), Some(Held::Loading(_)));
            if !sent {
                let text = "the instance is going away".to_owned();
                self.refuse(&model, Refused { refusal: Refusal::Leaving, retry_after: None, text });
            }
        }
    }
}
