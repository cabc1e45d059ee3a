//! The rules, asked of the pod's own state after every event in debug builds.

use super::{
    Pod,
    entry::{Held, Stage},
};
use crate::rules::{self, ledger::Charges, one_load::OnItsWay};

impl Pod {
    pub(super) fn verify(&self) -> Result<(), String> {
        let mut charges = Charges::default();
        for entry in self.entries.values() {
            match &entry.held {
                Held::Nothing => {}
                Held::Loading(load) => charges.reserved += load.bytes,
                Held::Ready(copy) | Held::Draining(copy, _) => charges.loaded += copy.bytes,
                Held::Unloading { bytes, .. } => charges.unloading += bytes,
            }
        }
        rules::ledger::check(&self.ledger, charges).map_err(|broken| format!("ledger: {broken}"))?;
        let concurrency = self.server.as_ref().map_or(0, |server| server.limits.loading_concurrency.max(1));
        let loads = self.entries.iter().filter_map(|(model, entry)| match &entry.held {
            Held::Loading(load) => {
                Some(OnItsWay { model, attempt: load.attempt, sent: matches!(load.stage, Stage::Sent(_)) })
            }
            _ => None,
        });
        rules::one_load::check(loads, concurrency, &self.out).map_err(|broken| format!("one-load: {broken}"))?;
        self.verify_queue()
    }

    /// The queue holds exactly the wants that have no place.
    fn verify_queue(&self) -> Result<(), String> {
        let queued = self.entries.values().filter(|entry| entry.is_queued()).count();
        let known = self.queue.iter().all(|model| self.entries.get(model).is_some_and(|entry| entry.is_queued()));
        if known && queued == self.queue.len() {
            Ok(())
        } else {
            Err(format!("{queued} loads wait, the queue holds {}", self.queue.len()))
        }
    }
}
