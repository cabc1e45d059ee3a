//! When a changed InferenceService switches from the old model to the new one (rule `stable-name`).
//!
//! ```text
//!            spec names another model
//!  Steady ─────────────────────────────▶ Preparing ── ready as widely as the old one, or space ran out ──▶ Switched ─▶ Steady
//!                                          │  ▲                                                             (new READY and
//!                      no space, one copy, │  │ the load in its place failed                                 acknowledged)
//!                      load timeout over   ▼  │
//!                                        Switched, room is made
//! ```
//!
//! [`VModel::step`] looks at facts and says the next state and, at most, one order. Control writes what
//! [`VModel::active`] and [`VModel::before`] became to the record before it changes the table.

use std::time::Duration;

use crate::{
    id::{InstanceId, ModelId},
    rules::stable_name,
    time::Time,
};

/// Between the switch and the ask for the place: the agent is to hear first that the old model is no longer kept.
const UNPIN: Duration = Duration::from_secs(1);

/// State of one vmodel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VModel {
    active: ModelId,
    before: Option<ModelId>,
    phase: Phase,
    /// The active model was taken back after its place was given away: until this update is over it is to have a copy.
    restoring: bool,
    /// The model for which room was made in vain. It is prepared on, and no room is made for it again.
    tried: Option<ModelId>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    /// The active model is the one that the spec names.
    Steady,
    /// The target is loaded while the active one answers.
    Preparing(Update),
    /// The table names the new one; the one before is kept until that is READY and acknowledged.
    Switched(Update),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Update {
    target: ModelId,
    /// Copies of the old one that were ready when the update began, at least 1.
    goal: u32,
    since: Time,
    room: Room,
}

/// Making room: once per update.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Room {
    /// Not tried.
    Untried,
    /// The table has switched at this time; every proxy is to acknowledge before the place is asked for.
    Announced(InstanceId, Time),
    /// The place is asked for.
    Asked(InstanceId),
    /// Tried, whatever came of it.
    Tried,
}

/// Copies of one model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copies {
    /// Ready ones.
    pub ready: u32,
    /// No further one can be had now: every other candidate refused for space, or there is no other.
    pub no_space: bool,
}

/// What a step is decided on.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// The time.
    pub now: Time,
    /// The model that the spec names.
    pub wanted: &'a ModelId,
    /// Whether a listed instance of the class has not said what it holds: nothing is switched then.
    pub unknown: bool,
    /// Most copies that the InferenceService allows.
    pub max_copies: Option<u32>,
    /// How long a load of the new model may take.
    pub load_timeout: Duration,
    /// Copies of the active model.
    pub active: Copies,
    /// Copies of the wanted model.
    pub target: Copies,
    /// An instance on which the active model is ready and the wanted one may be placed.
    pub place: Option<&'a InstanceId>,
    /// Whether all connected proxies have acknowledged the last change of this vmodel.
    pub acknowledged: bool,
    /// A canary is on: the wanted model gets a share of the calls, and the active one stays until that is over.
    pub canary: bool,
    /// What came of the last [`Order::MakeRoom`]: whether the model is loaded; `None` until it is over.
    pub room: Option<bool>,
}

/// Something that control is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Ask an instance for `model` in place of `replaces`.
    MakeRoom {
        /// The instance.
        instance: InstanceId,
        /// The model to load.
        model: ModelId,
        /// The one that may go for it.
        replaces: ModelId,
    },
}

// === impl VModel ===

impl VModel {
    /// A vmodel that is seen for the first time.
    #[must_use]
    pub fn new(active: ModelId) -> Self {
        Self { active, before: None, phase: Phase::Steady, restoring: false, tried: None }
    }

    /// A vmodel as a control before this one left it. With a `before`, the one of both is taken that is ready: `active`, else
    /// `before` if that is ready or not all is known, else `active`.
    #[must_use]
    pub fn restarted(
        now: Time,
        active: ModelId,
        before: Option<ModelId>,
        tried: Option<ModelId>,
        facts: Restart,
    ) -> Self {
        match before {
            Some(before) if !facts.active_ready && (facts.before_ready || facts.unknown) => {
                Self { tried, ..Self::new(before) }
            }
            Some(before) => {
                let update = Update { target: active.clone(), goal: 1, since: now, room: Room::Tried };
                Self { before: Some(before), phase: Phase::Switched(update), tried, ..Self::new(active) }
            }
            None => Self { tried, ..Self::new(active) },
        }
    }

    /// The model that answers.
    #[must_use]
    pub fn active(&self) -> &ModelId {
        &self.active
    }

    /// While a change is not acknowledged: the model before.
    #[must_use]
    pub fn before(&self) -> Option<&ModelId> {
        self.before.as_ref()
    }

    /// While a change is prepared: the model that shall answer.
    #[must_use]
    pub fn target(&self) -> Option<&ModelId> {
        match &self.phase {
            Phase::Preparing(update) => Some(&update.target),
            Phase::Steady | Phase::Switched(_) => None,
        }
    }

    /// The model for which room was made in vain, kept over a restart: until the spec names another, or
    /// [`VModel::forget_tries`], no room is made for it again.
    #[must_use]
    pub fn tried(&self) -> Option<&ModelId> {
        self.tried.as_ref()
    }

    /// Whether nothing is on.
    #[must_use]
    pub fn is_steady(&self) -> bool {
        self.phase == Phase::Steady
    }

    /// Copies on which the new model is to be ready.
    #[must_use]
    pub fn goal(&self) -> u32 {
        self.update().map_or(1, |update| update.goal)
    }

    /// How long the update has been on.
    #[must_use]
    pub fn waited(&self, now: Time) -> Duration {
        self.update().map_or(Duration::ZERO, |update| now.since(update.since))
    }

    /// Whether room was made, or tried to be made, for this update.
    #[must_use]
    pub fn room_was_made(&self) -> bool {
        self.update().is_some_and(|update| update.room != Room::Untried)
    }

    /// Fewest copies of a model that this vmodel needs by itself, whatever the demand.
    #[must_use]
    pub fn needs(&self, model: &ModelId) -> u32 {
        match &self.phase {
            Phase::Preparing(update) if update.target == *model => update.goal,
            Phase::Preparing(_) if self.restoring && self.active == *model => 1,
            // The new one must become READY before the one before can go.
            Phase::Switched(update) if self.active == *model && update.room == Room::Tried => 1,
            _ => 0,
        }
    }

    /// The storage Secret changed: what had no place or failed may be tried again.
    pub fn forget_tries(&mut self) {
        self.tried = None;
        if let Phase::Preparing(Update { room: room @ Room::Tried, .. }) = &mut self.phase {
            *room = Room::Untried;
        }
    }

    /// The next state, and what is to be done.
    #[must_use]
    pub fn step(&self, facts: &Facts<'_>) -> (Self, Option<Order>) {
        let mut next = self.clone();
        let order = match &self.phase {
            Phase::Steady => {
                if *facts.wanted != self.active {
                    next.begin(facts);
                }
                None
            }
            Phase::Preparing(update) => next.prepare(update, facts),
            Phase::Switched(update) => next.settle(update, facts),
        };
        debug_assert!(stable_name::allows(self, &next, facts), "{self:?} -> {next:?} by {facts:?}");
        (next, order)
    }

    fn update(&self) -> Option<&Update> {
        match &self.phase {
            Phase::Steady => None,
            Phase::Preparing(update) | Phase::Switched(update) => Some(update),
        }
    }

    fn begin(&mut self, facts: &Facts<'_>) {
        self.restoring = false;
        let goal = facts.active.ready.min(facts.max_copies.unwrap_or(u32::MAX)).max(1);
        self.tried.take_if(|tried| tried != facts.wanted);
        let room = if self.tried.is_some() { Room::Tried } else { Room::Untried };
        let update = Update { target: facts.wanted.clone(), goal, since: facts.now, room };
        self.phase = Phase::Preparing(update);
    }

    fn prepare(&mut self, update: &Update, facts: &Facts<'_>) -> Option<Order> {
        if *facts.wanted == self.active {
            self.phase = Phase::Steady;
            self.restoring = false;
            self.tried = None;
            return None;
        }
        if *facts.wanted != update.target {
            self.begin(facts);
            return None;
        }
        if facts.unknown || facts.canary {
            return None;
        }
        let (ready, waited) = (facts.target.ready, facts.now.since(update.since) >= facts.load_timeout);
        let goal = update.goal.min(facts.max_copies.unwrap_or(u32::MAX)).max(1);
        let short = facts.target.no_space && waited;
        if ready >= goal || ready >= 1 && (facts.active.ready == 0 || short) {
            self.switch(update.clone(), Room::Tried);
            return None;
        }
        match (&update.room, facts.place) {
            (Room::Untried, Some(place)) if short && facts.active.ready >= 2 => {
                self.phase = Phase::Preparing(Update { room: Room::Asked(place.clone()), ..update.clone() });
                Some(self.make_room(place, &update.target, &self.active))
            }
            (Room::Untried, Some(place)) if short && facts.active.ready == 1 => {
                self.switch(update.clone(), Room::Announced(place.clone(), facts.now));
                None
            }
            (Room::Asked(_), _) if facts.room.is_some() => {
                self.tried = (facts.room == Some(false)).then(|| update.target.clone());
                self.phase = Phase::Preparing(Update { room: Room::Tried, ..update.clone() });
                None
            }
            _ => None,
        }
    }

    fn settle(&mut self, update: &Update, facts: &Facts<'_>) -> Option<Order> {
        let before = self.before.clone().expect("a switched vmodel keeps the model before");
        let served = facts.active.ready >= 1;
        let asked_for = *facts.wanted == self.active;
        let room = |room| Phase::Switched(Update { room, ..update.clone() });
        if !served && asked_for {
            match (&update.room, facts.room) {
                (Room::Announced(place, since), _) if facts.acknowledged && facts.now.since(*since) >= UNPIN => {
                    self.phase = room(Room::Asked(place.clone()));
                    return Some(self.make_room(place, &update.target, &before));
                }
                (Room::Asked(_), Some(false)) if !facts.unknown => {
                    self.tried = Some(update.target.clone());
                    self.active = before;
                    self.before = None;
                    self.restoring = true;
                    self.phase = Phase::Preparing(Update { room: Room::Tried, since: facts.now, ..update.clone() });
                }
                // It was loaded and is lost again: it is kept as any other.
                (Room::Asked(_), Some(true)) => self.phase = room(Room::Tried),
                _ => {}
            }
            return None;
        }
        if served && facts.acknowledged {
            self.before = None;
            self.phase = Phase::Steady;
        } else if !served && !facts.unknown {
            // Another change while this one is not through: it begins from the model before.
            self.active = before;
            self.before = None;
            self.phase = Phase::Steady;
        } else if served {
            self.phase = room(Room::Tried);
        }
        None
    }

    fn switch(&mut self, update: Update, room: Room) {
        self.before = Some(std::mem::replace(&mut self.active, update.target.clone()));
        self.restoring = false;
        self.tried = None;
        self.phase = Phase::Switched(Update { room, ..update });
    }

    fn make_room(&self, instance: &InstanceId, model: &ModelId, replaces: &ModelId) -> Order {
        Order::MakeRoom { instance: instance.clone(), model: model.clone(), replaces: replaces.clone() }
    }
}

/// What a control that starts sees of a vmodel that was left with a model before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restart {
    /// A copy of the active model is ready.
    pub active_ready: bool,
    /// A copy of the one before is ready.
    pub before_ready: bool,
    /// Some instance has not sent its snapshot.
    pub unknown: bool,
}
