//! The search itself.

use std::time::Duration;

use super::{ANSWER, Ending, FAILURE_COUNTS, Heard, MAX_FAILURES, MAX_PLACES, Sight, Step};
use crate::{
    id::{InstanceId, ModelId},
    pod::{LoadError, Refusal},
    time::Time,
    view::Status,
};

/// When an agent is asked again that gave no time.
const AGAIN: Duration = Duration::from_secs(1);
/// The least time until an agent is asked again.
const AGAIN_AT_LEAST: Duration = Duration::from_millis(100);
/// How long the view may take to follow a `loaded`.
const FOLLOW: Duration = Duration::from_millis(100);

/// The search for a copy of one model.
#[derive(Clone, Debug)]
pub struct Seek {
    pub(super) model: ModelId,
    model_type: String,
    asked: Option<Asked>,
    places: Vec<Place>,
    failures: Vec<Failure>,
    /// Newest refusal for space.
    refusal: Option<(Refusal, String)>,
    /// Until when the view is given time to follow a `loaded`.
    follow: Time,
    /// Whether the last look saw a candidate under a live lease that does not leave.
    live: bool,
}

/// The open `EnsureLoaded`.
#[derive(Clone, Debug)]
struct Asked {
    instance: InstanceId,
    at: Time,
    accepted: bool,
}

/// An agent that was asked and has not taken the load.
#[derive(Clone, Debug)]
struct Place {
    instance: InstanceId,
    /// When it may be asked again; never for one that leaves.
    again: Time,
}

/// A failure told to this seek.
#[derive(Clone, Debug)]
struct Failure {
    instance: InstanceId,
    at: Time,
    until: Time,
    error: LoadError,
}

// === impl Seek ===

impl Seek {
    /// A search for this model; `model_type` is for people.
    #[must_use]
    pub fn new(model: ModelId, model_type: impl Into<String>) -> Self {
        Self {
            model,
            model_type: model_type.into(),
            asked: None,
            places: Vec::new(),
            failures: Vec::new(),
            refusal: None,
            follow: Time::ZERO,
            live: false,
        }
    }

    /// What to do now. `candidates`: the members of the class in the order of the ring; `elsewhere`: any other instance
    /// that shows a copy (leaving ones, those of another class before an update).
    pub fn next(&mut self, now: Time, candidates: &[Sight], elsewhere: &[Sight]) -> Step {
        let all = || candidates.iter().chain(elsewhere);
        let leaves = |sight: &Sight| self.place(&sight.instance).is_some_and(|place| place.again == Time::NEVER);
        self.live = candidates.iter().any(|sight| is_live(&sight.status) && !leaves(sight));
        if all().any(|sight| sight.status == Status::Ready) {
            return Step::Use;
        }
        if let Some(until) = self.open_until(now, all()) {
            return Step::Wait { until };
        }
        if self.failures.len() >= MAX_FAILURES
            || all().filter(|sight| self.failed(now, sight).is_some()).count() >= MAX_FAILURES
        {
            return self.give_up(now, all());
        }
        if now < self.follow {
            return Step::Wait { until: self.follow };
        }
        if let Some(instance) = self.joinable(now, all()) {
            return self.ask(now, instance);
        }
        if let Some(until) = all().filter_map(|sight| due(now, &sight.status)).min() {
            return Step::Wait { until };
        }
        if let Some(instance) = self.askable(now, candidates) {
            return self.ask(now, instance);
        }
        let open = |sight: &&Sight| is_live(&sight.status) && self.failed(now, sight).is_none();
        let none_left = !candidates.iter().any(|sight| open(&sight));
        if none_left && candidates.iter().any(|sight| self.failed(now, sight).is_some()) {
            return self.give_up(now, all());
        }
        let again =
            candidates.iter().filter(open).filter_map(|sight| self.place(&sight.instance)).map(|place| place.again);
        let expiry = candidates.iter().filter_map(|sight| self.failed(now, sight)).map(|(_, until, _)| until);
        Step::Wait { until: again.chain(expiry).filter(|at| *at > now).min().unwrap_or(Time::NEVER) }
    }

    /// The open `EnsureLoaded` to `instance` brought this. What comes from one that is not open any more changes nothing.
    pub fn heard(&mut self, now: Time, instance: &InstanceId, heard: Heard) {
        let Some(asked) = self.asked.as_mut().filter(|asked| asked.instance == *instance) else { return };
        if heard == Heard::Accepted {
            asked.accepted = true;
            return;
        }
        self.asked = None;
        match heard {
            Heard::Accepted => {}
            Heard::Loaded => self.follow = now + FOLLOW,
            Heard::Failed(error) => self.fail(now, instance, FAILURE_COUNTS, error),
            Heard::Refused { refusal: Refusal::Failing, retry_after, text } => {
                let counts = retry_after.unwrap_or_default().max(FAILURE_COUNTS);
                self.fail(now, instance, counts, LoadError { code: 13, text, passing: false });
            }
            Heard::Refused { refusal: Refusal::Leaving, .. } => self.rest(instance, Time::NEVER),
            Heard::Refused { refusal, retry_after, text } => {
                self.refusal = Some((refusal, text));
                let after = retry_after.filter(|after| !after.is_zero()).unwrap_or(AGAIN).max(AGAIN_AT_LEAST);
                self.rest(instance, now + after);
            }
            Heard::Lost => self.rest(instance, now + AGAIN),
        }
    }

    /// Whether an agent has the load in its queue or is at it. Then the load goes on without this seek.
    #[must_use]
    pub fn accepted(&self) -> bool {
        self.asked.as_ref().is_some_and(|asked| asked.accepted)
    }

    /// The agent whose `EnsureLoaded` is open.
    #[must_use]
    pub fn asked(&self) -> Option<&InstanceId> {
        self.asked.as_ref().map(|asked| &asked.instance)
    }

    /// When the model may be expected to be ready, given the learned load time of its type. A load that is late, or an
    /// agent whose snapshot is due, may be ready at any moment: now.
    #[must_use]
    pub fn expected(&self, now: Time, learned: Duration, candidates: &[Sight], elsewhere: &[Sight]) -> Time {
        let all = candidates.iter().chain(elsewhere);
        let soonest = all.filter_map(|sight| match &sight.status {
            Status::Ready => Some(now),
            Status::Unknown { until } if now < *until => Some(now),
            Status::Loading { since } => Some((*since + learned).max(now)),
            _ => None,
        });
        soonest.min().unwrap_or(now + learned)
    }

    /// How a call ends whose load budget is spent.
    pub(super) fn not_loaded(&self, within: Duration) -> Ending {
        Ending::not_loaded(&self.model, within, self.refusal.as_ref().map(|(_, text)| text.as_str()))
    }

    /// How a call ends whose place budget is spent.
    pub(super) fn without_place(&self, now: Time) -> Ending {
        if !self.live {
            return Ending::no_instance(&self.model_type);
        }
        let again = self.places.iter().map(|place| place.again).filter(|again| *again != Time::NEVER).min();
        let said = self.refusal.as_ref().map(|(refusal, text)| (*refusal, text.as_str()));
        Ending::no_place(said, again.map(|again| again.since(now).max(Duration::from_secs(1))))
    }

    /// Until when the open `EnsureLoaded` is waited for; it is dropped when it has had its time or its agent is lost.
    fn open_until<'a>(&mut self, now: Time, mut all: impl Iterator<Item = &'a Sight>) -> Option<Time> {
        let asked = self.asked.clone()?;
        let known = all.any(|sight| sight.instance == asked.instance && sight.status != Status::NoLease);
        let until = if asked.accepted { Time::NEVER } else { asked.at + ANSWER };
        if known && now < until {
            return Some(until);
        }
        self.asked = None;
        self.rest(&asked.instance, now + AGAIN);
        None
    }

    /// The copy on its way that is to be joined: one that loads, the longest at it, else one that is queued.
    fn joinable<'a>(&self, now: Time, all: impl Iterator<Item = &'a Sight>) -> Option<InstanceId> {
        all.filter(|sight| self.rested(now, &sight.instance) && self.failed(now, sight).is_none())
            .filter_map(|sight| match sight.status {
                Status::Loading { since } => Some(((0, since), &sight.instance)),
                Status::Queued { since } => Some(((1, since), &sight.instance)),
                _ => None,
            })
            .min_by_key(|(key, _)| *key)
            .map(|(_, instance)| instance.clone())
    }

    /// The candidate to ask: the first that was not asked, while there are places left; else the first whose time has come again.
    fn askable(&self, now: Time, candidates: &[Sight]) -> Option<InstanceId> {
        let mut able = candidates.iter().filter(|sight| is_live(&sight.status) && self.failed(now, sight).is_none());
        let asked =
            candidates.iter().filter(|sight| is_live(&sight.status)).filter_map(|sight| self.place(&sight.instance));
        let asked = asked.filter(|place| place.again != Time::NEVER).count();
        let fresh = able.clone().find(|sight| self.place(&sight.instance).is_none());
        fresh
            .filter(|_| asked < MAX_PLACES)
            .or_else(|| able.find(|sight| self.place(&sight.instance).is_some_and(|place| place.again <= now)))
            .map(|sight| sight.instance.clone())
    }

    fn ask(&mut self, now: Time, instance: InstanceId) -> Step {
        self.asked = Some(Asked { instance: instance.clone(), at: now, accepted: false });
        Step::Ask(instance)
    }

    /// The newest failure of this instance that still counts: when it was, until when it counts, why.
    fn failed<'a>(&'a self, now: Time, sight: &'a Sight) -> Option<(Time, Time, &'a LoadError)> {
        let told = self.failures.iter().rev().find(|failure| failure.instance == sight.instance && now < failure.until);
        let told = told.map(|failure| (failure.at, failure.until, &failure.error));
        let seen = match &sight.status {
            Status::Failed { since, until, error } if now < *until => Some((*since, *until, error)),
            _ => None,
        };
        told.into_iter().chain(seen).max_by_key(|(at, ..)| *at)
    }

    fn give_up<'a>(&'a self, now: Time, all: impl Iterator<Item = &'a Sight>) -> Step {
        let told = self.failures.iter().map(|failure| (failure.at, failure.until, &failure.error));
        let seen = all.filter_map(|sight| self.failed(now, sight));
        let newest = told.chain(seen).max_by_key(|(at, ..)| *at);
        let (code, said) = newest.map_or((0, ""), |(.., error)| (error.code, error.text.as_str()));
        Step::GiveUp(Ending::failed(&self.model, code, said))
    }

    fn fail(&mut self, now: Time, instance: &InstanceId, counts: Duration, error: LoadError) {
        self.failures.push(Failure { instance: instance.clone(), at: now, until: now + counts, error });
        self.rest(instance, now);
    }

    fn rest(&mut self, instance: &InstanceId, again: Time) {
        match self.places.iter_mut().find(|place| place.instance == *instance) {
            Some(place) => place.again = again,
            None => self.places.push(Place { instance: instance.clone(), again }),
        }
    }

    fn place(&self, instance: &InstanceId) -> Option<&Place> {
        self.places.iter().find(|place| place.instance == *instance)
    }

    fn rested(&self, now: Time, instance: &InstanceId) -> bool {
        self.place(instance).is_none_or(|place| place.again <= now)
    }
}

fn is_live(status: &Status) -> bool {
    !matches!(status, Status::NoLease | Status::Unknown { .. })
}

/// Until when an unknown agent is waited for.
fn due(now: Time, status: &Status) -> Option<Time> {
    match status {
        Status::Unknown { until } if now < *until => Some(*until),
        _ => None,
    }
}
