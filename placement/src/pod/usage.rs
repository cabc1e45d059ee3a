//! What use, hints and reports of proxies change.

use std::collections::BTreeSet;

use super::{BootId, CopyState, Hints, Pod, Seq, Touch, entry::Held};
use crate::{evict::Rank, id::ModelId, time::Time};

/// Control's hints in force.
#[derive(Debug, Default)]
pub(super) struct Weights {
    epoch: u64,
    /// When they came.
    pub(super) since: Time,
    keep: BTreeSet<ModelId>,
    surplus: BTreeSet<ModelId>,
    gone: BTreeSet<ModelId>,
}

// === impl Weights ===

impl Weights {
    /// Takes new hints, unless they are those of an older control.
    pub(super) fn replace(&mut self, now: Time, hints: Hints) {
        if hints.epoch >= self.epoch {
            *self = Self {
                epoch: hints.epoch,
                since: now,
                keep: hints.keep.into_iter().collect(),
                surplus: hints.surplus.into_iter().collect(),
                gone: hints.gone.into_iter().collect(),
            };
        }
    }

    pub(super) fn keeps(&self, model: &ModelId) -> bool {
        self.keep.contains(model)
    }

    pub(super) fn rank(&self, model: &ModelId) -> Rank {
        if self.gone.contains(model) {
            Rank::Gone
        } else if self.surplus.contains(model) {
            Rank::Surplus
        } else {
            Rank::Ordinary
        }
    }
}

// === impl Pod ===

impl Pod {
    pub(super) fn touches(&mut self, now: Time, touches: &[Touch]) {
        for touch in touches {
            self.touch(now, touch);
        }
    }

    /// Use keeps a copy; a call in flight calls its drain off.
    fn touch(&mut self, now: Time, touch: &Touch) {
        let (clock, timeout) = (self.clock, self.default_load_timeout());
        let Some(entry) = self.entries.get_mut(&touch.model) else { return };
        let in_flight = touch.in_flight > 0;
        let (copy, called_off) = match &mut entry.held {
            Held::Ready(copy) => (copy, false),
            Held::Draining(copy, drain) => (copy, in_flight && drain.evicts() && !drain.is_firm()),
            _ => return,
        };
        if in_flight {
            copy.in_flight = Some(now);
        }
        if in_flight || touch.count > 0 {
            let used = if in_flight { now } else { touch.last_used.min(now) };
            copy.use_once(used, clock, self.load_times.estimate(&copy.model.model_type, timeout));
        }
        if called_off {
            self.call_off(now, &touch.model);
        }
    }

    /// The server has not what was said to be ready: it is gone. An unload follows, so that server and account agree.
    pub(super) fn missing(&mut self, model: &ModelId, boot: BootId, seq: Seq) {
        let shown = self.entries.get(model).and_then(|entry| entry.shown.as_ref());
        let is_this_one = matches!(shown, Some((last, CopyState::Ready { .. })) if *last == seq);
        if boot == self.boot && is_this_one {
            self.hide(model);
            self.send_unload(model, None);
        }
    }

    /// What failed for want of a right key may work with the new one.
    pub(super) fn secret_changed(&mut self) {
        self.failures.clear();
        self.known.clear();
        let failed: Vec<_> = self
            .copies()
            .filter(|copy| matches!(copy.state, CopyState::Failed { .. }))
            .map(|copy| copy.model)
            .collect();
        for model in failed {
            self.hide(&model);
        }
    }
}
