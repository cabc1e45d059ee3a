//! What may be seen of a pod beside its ledger: for metrics, which decide nothing.

use super::{
    Pod,
    entry::{Cause, Held},
};
use crate::{id::ModelId, time::Time};

/// Why a copy drains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DrainCause {
    /// A load needs its memory.
    Room,
    /// The pod holds more than its capacity.
    Overrun,
    /// It is itself what does not fit.
    TooLarge,
    /// Its model is in no table.
    Gone,
    /// The instance leaves and the copy is ready elsewhere.
    Leave,
}

/// Models by what the pod holds of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Wait for a place.
    pub queued: usize,
    /// Are pulled or loaded.
    pub loading: usize,
    /// Serve.
    pub ready: usize,
    /// Serve what is in flight.
    pub draining: usize,
    /// Are being unloaded.
    pub unloading: usize,
    /// Could not be loaded, and that still counts.
    pub failed: usize,
}

// === impl Pod ===

impl Pod {
    /// Why a copy drains and when it was last used; `None` where it does not drain.
    #[must_use]
    pub fn drain(&self, model: &ModelId) -> Option<(DrainCause, Time)> {
        match &self.entries.get(model)?.held {
            Held::Draining(copy, drain) => Some((drain.cause.label(), copy.last_used)),
            _ => None,
        }
    }

    /// When the copy that has been unused for longest was last used; `None` where there is none.
    #[must_use]
    pub fn least_recent_use(&self) -> Option<Time> {
        let uses = self.entries.values().filter_map(|entry| match &entry.held {
            Held::Ready(copy) | Held::Draining(copy, _) => Some(copy.last_used),
            _ => None,
        });
        uses.min()
    }

    /// Models by what is held of them.
    #[must_use]
    pub fn count(&self) -> Census {
        let mut count = Census::default();
        for entry in self.entries.values() {
            let failed = matches!(entry.shown, Some((_, super::CopyState::Failed { .. })));
            match &entry.held {
                Held::Nothing if entry.want.is_some() => count.queued += 1,
                Held::Nothing if failed => count.failed += 1,
                Held::Nothing => {}
                Held::Loading(_) => count.loading += 1,
                Held::Ready(_) => count.ready += 1,
                Held::Draining(..) => count.draining += 1,
                Held::Unloading { .. } => count.unloading += 1,
            }
        }
        count
    }
}

// === impl Cause ===

impl Cause {
    fn label(&self) -> DrainCause {
        match self {
            Self::Room { .. } => DrainCause::Room,
            Self::Overrun => DrainCause::Overrun,
            Self::TooLarge(_) => DrainCause::TooLarge,
            Self::Gone => DrainCause::Gone,
            Self::Leave { .. } => DrainCause::Leave,
        }
    }
}
