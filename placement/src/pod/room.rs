//! What may go for a load.
//!
//! Never a kept copy. Not one that a proxy reported in flight within the last 3 s, and not a young one, with two
//! exceptions: the copy that the load replaces, and, for a load that callers wait for and that finds no other victim, a
//! copy that has been ready for longer than twice the churn age (or drain timeout): so two models that share one place
//! take turns.

use std::time::Duration;

use super::{
    Pod, Why,
    entry::{Copy, Held, Load, Stage, Wanted},
    refusal::Refused,
};
use crate::{
    evict::{self, Candidate, Rank},
    id::ModelId,
    time::Time,
};

/// How long a report of a call in flight protects a copy.
const IN_FLIGHT: Duration = Duration::from_secs(3);

/// A load that needs a place.
pub(super) struct Demand<'a> {
    pub(super) bytes: u64,
    pub(super) why: Why,
    pub(super) replaces: Option<&'a ModelId>,
}

pub(super) enum Room {
    /// It fits now.
    Free,
    /// It will fit when what is on its way out is out.
    Coming,
    /// These must go.
    Make(Vec<Step>),
    /// Nothing that may go makes room.
    Never(Refused),
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Give up a pull that nobody has asked for.
    GiveUp(ModelId),
    /// Unload, once the server has answered, a load that nobody has asked for.
    Disown(ModelId),
    /// Drain a copy; firm = whatever happens.
    Drain { model: ModelId, firm: bool },
}

/// What is chosen to go, until it is enough.
struct Choice {
    short: u64,
    chosen: Vec<(u64, Option<Step>)>,
}

// === impl Pod ===

impl Pod {
    pub(super) fn room_for(&self, demand: &Demand<'_>, now: Time) -> Room {
        let short = self.ledger.shortage(demand.bytes);
        let coming = self.coming();
        if short == 0 {
            return Room::Free;
        }
        if short <= coming {
            return Room::Coming;
        }
        let candidates = self.candidates(now, None);
        let mut choice = Choice { short: short - coming, chosen: Vec::new() };
        if demand.why != Why::Ahead {
            self.choose(&mut choice, &candidates, demand, now);
        }
        if choice.is_enough() { choice.into() } else { Room::Never(self.refusal(demand, &candidates, coming, now)) }
    }

    /// Bytes of copies that are on their way out.
    pub(super) fn coming(&self) -> u64 {
        let draining = self.entries.values().filter_map(|entry| match &entry.held {
            Held::Draining(copy, drain) if drain.evicts() => Some(copy.bytes),
            _ => None,
        });
        self.ledger.unloading() + draining.sum::<u64>()
    }

    /// Ready copies that are not kept, the one that goes next first.
    pub(super) fn candidates<'a>(&'a self, now: Time, but: Option<&ModelId>) -> Vec<Candidate<'a>> {
        let ready = self.entries.iter().filter_map(|(model, entry)| match &entry.held {
            Held::Ready(copy) if Some(model) != but && !self.hints.keeps(model) => Some((model, copy)),
            _ => None,
        });
        let mut candidates: Vec<_> = ready.map(|(model, copy)| self.candidate(model, copy, now)).collect();
        evict::sort(self.settings.eviction, &mut candidates);
        candidates
    }

    fn candidate<'a>(&self, model: &'a ModelId, copy: &Copy, now: Time) -> Candidate<'a> {
        let (rank, churn_age) = (self.hints.rank(model), self.churn_age(&copy.model));
        let in_flight_until = copy.in_flight.map_or(Time::ZERO, |seen| seen + IN_FLIGHT);
        Candidate {
            model,
            bytes: copy.bytes,
            rank,
            worth: copy.worth,
            last_used: copy.last_used.min(now),
            young_until: if rank == Rank::Ordinary { copy.last_used + churn_age } else { Time::ZERO },
            in_flight_until,
            yields_at: copy.since + churn_age.max(self.settings.drain_timeout) * 2,
        }
    }

    fn choose(&self, choice: &mut Choice, candidates: &[Candidate<'_>], demand: &Demand<'_>, now: Time) {
        let drain = |candidate: &Candidate<'_>, firm| {
            (candidate.bytes, Some(Step::Drain { model: candidate.model.clone(), firm }))
        };
        if demand.why == Why::Waiter {
            choice.extend(self.forgotten_pulls(now));
        }
        let replaced = |candidate: &&Candidate<'_>| Some(candidate.model) == demand.replaces;
        choice.extend(candidates.iter().filter(replaced).map(|candidate| drain(candidate, true)));
        let others = candidates.iter().filter(|candidate| !replaced(candidate));
        let (free, guarded): (Vec<_>, Vec<_>) = others.partition(|candidate| candidate.free_at() <= now);
        choice.extend(free.into_iter().map(|candidate| drain(candidate, false)));
        if demand.why == Why::Waiter {
            choice.extend(self.unwanted_loads(now));
            let yielding = guarded.into_iter().filter(|candidate| candidate.yields_at <= now);
            choice.extend(yielding.map(|candidate| drain(candidate, true)));
        }
    }

    /// Pulls that nobody has asked for lately: they are given up for a load that callers wait for.
    pub(super) fn forgotten_pulls(&self, now: Time) -> impl Iterator<Item = (u64, Option<Step>)> + '_ {
        self.forgotten_loads(now).filter(|load| load.stage == Stage::Pulling).map(|load| {
            let give_up = Step::GiveUp(load.model.id.clone());
            (load.bytes, Some(give_up))
        })
    }

    /// Loads at the server that will be unloaded when it answers, or may be. One that hangs promises nothing.
    fn unwanted_loads(&self, now: Time) -> impl Iterator<Item = (u64, Option<Step>)> + '_ {
        let sent = self.entries.values().filter(move |entry| !self.is_hung(&entry.held, now));
        let unwanted = sent.filter_map(|entry| match &entry.held {
            Held::Loading(load) if load.stage == Stage::Sent(Wanted::No) => Some((load.bytes, None)),
            _ => None,
        });
        let forgotten = self.forgotten_loads(now).filter_map(|load| match load.stage {
            Stage::Sent(Wanted::Yes) => Some((load.bytes, Some(Step::Disown(load.model.id.clone())))),
            Stage::Sent(Wanted::IfAskedFor) => Some((load.bytes, None)),
            _ => None,
        });
        unwanted.chain(forgotten)
    }

    fn forgotten_loads(&self, now: Time) -> impl Iterator<Item = &Load> + '_ {
        self.entries.values().filter_map(move |entry| match (&entry.held, &entry.want) {
            (Held::Loading(load), Some(want)) if want.replaces.is_none() && want.is_forgotten(now) => Some(load),
            _ => None,
        })
    }

    /// Bytes of copies that never go.
    pub(super) fn kept_bytes(&self) -> u64 {
        let kept = self.entries.iter().filter_map(|(model, entry)| match &entry.held {
            Held::Ready(copy) if self.hints.keeps(model) => Some(copy.bytes),
            _ => None,
        });
        kept.sum()
    }
}

// === impl Choice ===

impl Choice {
    fn is_enough(&self) -> bool {
        self.freed() >= self.short
    }

    fn freed(&self) -> u64 {
        self.chosen.iter().map(|(bytes, _)| bytes).sum()
    }

    /// Takes from the front until it is enough.
    fn extend(&mut self, more: impl IntoIterator<Item = (u64, Option<Step>)>) {
        let mut freed = self.freed();
        for (bytes, step) in more {
            if freed >= self.short {
                break;
            }
            freed += bytes;
            self.chosen.push((bytes, step));
        }
    }
}

// === impl Room ===

impl From<Choice> for Room {
    /// Spares what was chosen first where a later, larger one is enough without it.
    fn from(choice: Choice) -> Self {
        let mut spare = choice.freed() - choice.short;
        let needed = choice.chosen.into_iter().filter_map(|(bytes, step)| {
            if bytes <= spare {
                spare -= bytes;
                return None;
            }
            step
        });
        let steps: Vec<_> = needed.collect();
        if steps.is_empty() { Self::Coming } else { Self::Make(steps) }
    }
}
