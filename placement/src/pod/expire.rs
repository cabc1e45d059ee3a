//! What ends because time has passed: failures that no longer count, loads that nobody asks for, silence of storage and
//! server.

use super::{
    CopyState, LoadError, ModelId, Pod, Refusal,
    entry::{Held, Sizing, Stage, Wanted},
    refusal::Refused,
    text::Seconds,
};
use crate::time::Time;

/// A pull may take this many load timeouts: the whole budget of a caller.
pub(super) const PULL_TIMEOUTS: u32 = 5;
const DEADLINE_EXCEEDED: u32 = 4;

// === impl Pod ===

impl Pod {
    /// Ends what has waited too long, and what is no longer true.
    pub(super) fn expire(&mut self, now: Time) {
        self.failures.prune(now);
        let models: Vec<_> = self.entries.keys().cloned().collect();
        for model in models {
            self.expire_failure(now, &model);
            self.expire_want(now, &model);
            self.expire_load(now, &model);
        }
    }

    fn expire_failure(&mut self, now: Time, model: &ModelId) {
        let shown = self.entries.get(model).and_then(|entry| entry.shown.as_ref());
        if matches!(shown, Some((_, CopyState::Failed { until, .. })) if *until <= now) {
            self.hide(model);
        }
    }

    fn expire_want(&mut self, now: Time, model: &ModelId) {
        let Some(entry) = self.entries.get(model).filter(|entry| entry.is_queued()) else { return };
        let Some(want) = &entry.want else { return };
        if want.is_forgotten(now) {
            let text = "nobody has asked for it lately".to_owned();
            return self.refuse(model, Refused { refusal: Refusal::Full, retry_after: None, text });
        }
        let timeout = self.load_timeout(&want.model);
        if matches!(want.size, Sizing::Asked(_, since) if since + timeout <= now) {
            let text = format!("its size was not found out within {}", Seconds(timeout));
            let reference = want.model.clone();
            self.fail(now, &reference, LoadError { code: DEADLINE_EXCEEDED, text, passing: true }, None);
        }
    }

    fn expire_load(&mut self, now: Time, model: &ModelId) {
        let Some(Held::Loading(load)) = self.entries.get(model).map(|entry| &entry.held) else { return };
        let (reference, since, stage) = (load.model.clone(), load.since, load.stage);
        let timeout = self.load_timeout(&reference);
        let text = match stage {
            Stage::Pulling if since + timeout * PULL_TIMEOUTS <= now => {
                self.abort_pull(model);
                format!("its files were not there within {}", Seconds(timeout * PULL_TIMEOUTS))
            }
            Stage::Sent(Wanted::Yes | Wanted::IfAskedFor) if since + timeout <= now => {
                if let Some(Held::Loading(load)) = self.entries.get_mut(model).map(|entry| &mut entry.held) {
                    load.stage = Stage::Sent(Wanted::No);
                }
                format!("the model server did not load it within {}", Seconds(timeout))
            }
            _ => return,
        };
        self.fail(now, &reference, LoadError { code: DEADLINE_EXCEEDED, text, passing: true }, None);
    }
}
