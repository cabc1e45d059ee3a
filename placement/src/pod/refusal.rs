//! Why a load gets no place, and when to ask again.

use std::time::Duration;

use super::{
    Pod, Refusal, Told, Why,
    ask::SOON,
    room::Demand,
    text::{Seconds, Size},
};
use crate::{evict::Candidate, time::Time};

/// When to ask again where only control can change something.
const PINNED: Duration = Duration::from_secs(5);
/// When to ask again for a load that takes free memory only.
const AHEAD: Duration = Duration::from_secs(5);
/// The least time after which asking again makes sense.
const LEAST_RETRY: Duration = Duration::from_millis(50);

pub(super) struct Refused {
    pub(super) refusal: Refusal,
    pub(super) retry_after: Option<Duration>,
    pub(super) text: String,
}

// === impl Pod ===

impl Pod {
    /// The refusal of a load for which what is kept leaves no place, even if all else went.
    pub(super) fn pinned(&self, demand: &Demand<'_>, now: Time) -> Option<Refused> {
        let is_pinned = demand.bytes.saturating_add(self.kept_bytes()) > self.ledger.capacity();
        is_pinned.then(|| self.refusal(demand, &self.candidates(now, None), self.coming(), now))
    }

    /// What stands in the way, with all sizes.
    pub(super) fn refusal(&self, demand: &Demand<'_>, candidates: &[Candidate<'_>], coming: u64, now: Time) -> Refused {
        let kept = self.kept_bytes();
        let sum = |of: &dyn Fn(&Candidate<'_>) -> bool| -> u64 {
            candidates.iter().filter(|candidate| of(candidate)).map(|candidate| candidate.bytes).sum()
        };
        let in_flight = sum(&|candidate| candidate.in_flight_until > now);
        let young = sum(&|candidate| candidate.in_flight_until <= now && candidate.young_until > now);
        let ledger = &self.ledger;
        let text = format!(
            "needs {} of {}, of which {} are free, {} being freed, {} idle, {} used too recently, {} in flight, \
             {} kept and {} promised to other loads",
            Size(demand.bytes),
            Size(ledger.capacity()),
            Size(ledger.free()),
            Size(coming),
            Size(sum(&|candidate| candidate.free_at() <= now)),
            Size(young),
            Size(in_flight),
            Size(kept),
            Size(ledger.reserved()),
        );
        if demand.bytes.saturating_add(kept) > ledger.capacity() {
            return Refused { refusal: Refusal::Pinned, retry_after: Some(PINNED), text };
        }
        if demand.why == Why::Ahead {
            return Refused { refusal: Refusal::Full, retry_after: Some(AHEAD), text };
        }
        let short = ledger.shortage(demand.bytes).saturating_sub(coming);
        let retry_after = Self::room_at(demand, candidates, short).map(|at| at.since(now).max(LEAST_RETRY));
        let refusal = if young > 0 { Refusal::Churn } else { Refusal::Full };
        let text = match retry_after {
            Some(after) if refusal == Refusal::Churn => format!("{text}; room can be made in {}", Seconds(after)),
            _ => text,
        };
        Refused { refusal, retry_after: Some(retry_after.unwrap_or(SOON)), text }
    }

    /// When the copies that are protected now leave enough room, if none is used again.
    fn room_at(demand: &Demand<'_>, candidates: &[Candidate<'_>], short: u64) -> Option<Time> {
        let mut ends: Vec<_> = candidates
            .iter()
            .map(|candidate| {
                let yields_at = if demand.why == Why::Waiter { candidate.yields_at } else { Time::NEVER };
                (candidate.free_at().min(yields_at), candidate.bytes)
            })
            .collect();
        ends.sort_unstable();
        let mut freed = 0_u64;
        ends.into_iter().find_map(|(at, bytes)| {
            freed += bytes;
            (freed >= short).then_some(at)
        })
    }
}

// === impl Refused ===

impl Refused {
    /// The server takes no load any more.
    pub(super) fn stuck() -> Self {
        let text = "the model server answers none of the loads that it was sent".to_owned();
        Self { refusal: Refusal::Full, retry_after: Some(PINNED), text }
    }
}

impl From<Refused> for Told {
    fn from(Refused { refusal, retry_after, text }: Refused) -> Self {
        Self::Refused { refusal, retry_after, text }
    }
}
