//! When time alone changes something.

use super::{
    CopyState, HOT, HUNG_AFTER, Pod,
    admit::SLOW,
    ask::UNSIZED,
    entry::{Cause, Entry, Held, KEPT_UNASKED, Load, Sizing, Stage, Wanted},
    expire::PULL_TIMEOUTS,
};
use crate::{id::ModelId, time::Time};

// === impl Pod ===

impl Pod {
    /// The first moment after `now` at which time alone changes something.
    pub(super) fn next_change(&self, now: Time) -> Option<Time> {
        let changes = self.entries.iter().flat_map(|(model, entry)| {
            [self.shown_ends(entry), self.want_ends(entry, now), self.held_ends(model, entry)]
        });
        changes.flatten().filter(|at| *at > now && *at != Time::NEVER).min()
    }

    fn shown_ends(&self, entry: &Entry) -> Option<Time> {
        match &entry.shown {
            Some((_, CopyState::Failed { until, .. })) => Some(*until),
            _ => None,
        }
    }

    /// A want without waiters loses its place; sizing may take a load timeout.
    fn want_ends(&self, entry: &Entry, now: Time) -> Option<Time> {
        let want = entry.want.as_ref()?;
        let forgotten = want.waiters.is_empty().then_some(want.last_asked + KEPT_UNASKED);
        let sizing = match want.size {
            Sizing::Asked(_, since) if since + UNSIZED > now => Some(since + UNSIZED),
            Sizing::Asked(_, since) if since + SLOW > now => Some(since + SLOW),
            Sizing::Asked(_, since) => Some(since + self.load_timeout(&want.model)),
            _ => None,
        };
        [forgotten, sizing].into_iter().flatten().min()
    }

    fn held_ends(&self, model: &ModelId, entry: &Entry) -> Option<Time> {
        match &entry.held {
            Held::Loading(load) => Some(self.load_ends(load)),
            Held::Ready(copy) if self.is_hinted_gone(model) && !self.leaving => Some(copy.unused_at()),
            Held::Ready(copy) if self.leaving => Some(copy.last_used + HOT),
            Held::Draining(_, drain) if matches!(drain.cause, Cause::Leave { done: true }) => None,
            Held::Draining(_, drain) => Some(self.drain_ends(drain)),
            Held::Nothing | Held::Ready(_) | Held::Unloading { .. } => None,
        }
    }

    fn load_ends(&self, load: &Load) -> Time {
        let timeout = self.load_timeout(&load.model);
        load.since
            + match load.stage {
                Stage::Pulling => timeout * PULL_TIMEOUTS,
                Stage::Sent(Wanted::No) => timeout * HUNG_AFTER,
                Stage::Sent(_) => timeout,
            }
    }
}

// === impl Entry ===

impl Entry {
    /// Whether a leaving pod must stay for it.
    pub(super) fn is_needed(&self, now: Time) -> bool {
        match &self.held {
            Held::Ready(copy) => copy.last_used + HOT > now,
            Held::Draining(copy, drain) => match drain.cause {
                Cause::Leave { done } => !done && copy.last_used + HOT > now,
                _ => false,
            },
            Held::Loading(_) => self.want.as_ref().is_some_and(|want| !want.waiters.is_empty()),
            Held::Nothing | Held::Unloading { .. } => false,
        }
    }
}
