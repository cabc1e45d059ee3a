//! Calls that wait: for a model to be loaded, or for their turn on a copy.

use std::{pin::pin, sync::Arc, time::Duration};

use modelring_placement::{
    id::ModelId,
    seek::{Budgets, EndReason, Ending},
    time::Time,
};
use tokio::time::{sleep, timeout};

use super::{Call, Choice, Lease, Mesh, overload, search};
use crate::{
    engine::{
        answer::{Answer, Reason},
        policy::Decision,
    },
    fleet::{Copy, Fleet, Phase, Waiter},
    metrics::{For, Metrics, Waiting},
};

/// How long a call waits before it looks again after a ready copy was gone when it came.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Tells control how long a call was held, however that ended, and counts it.
struct Held<'a> {
    fleet: &'a Fleet,
    metrics: &'a Metrics,
    _waiting: Waiting,
    model: &'a ModelId,
    since: Time,
}

/// Counts how long a call waited for its turn, however that ended.
struct Turn<'a> {
    fleet: &'a Fleet,
    metrics: &'a Metrics,
    _waiting: Waiting,
    since: Time,
}

/// Waits until the model is loaded, and goes there.
pub(super) async fn hold(mesh: Mesh, mut call: Call) -> Decision<Lease> {
    let fleet = mesh.0.fleet.clone();
    let now = fleet.clock.now();
    let metrics = mesh.0.metrics.clone();
    let _held = Held {
        fleet: &fleet,
        metrics: &metrics,
        _waiting: metrics.waiting(For::Load),
        model: call.model.id(),
        since: now,
    };
    let mut budgets = call.budgets.unwrap_or_else(|| Budgets::new(now, call.deadline, call.table.tuning.place_timeout));
    let mut first = true;
    loop {
        let waiter = search::join(&fleet, &call);
        if std::mem::take(&mut first)
            && let Some(ending) = hopeless(&fleet, &call, &waiter, &budgets)
        {
            keep(&fleet, waiter, call.table.tuning.place_timeout);
            return Decision::Answer(answer(ending));
        }
        if let Some(ending) = wait(&fleet, &waiter, &mut budgets).await {
            return Decision::Answer(answer(ending));
        }
        let now = fleet.clock.now();
        let left = call.budgets.insert(budgets);
        left.rest(now);
        match mesh.choose(&call, now, None, false) {
            Choice::Forward(plan) => return Decision::Forward(*plan),
            Choice::Answer(answer) => return Decision::Answer(answer),
            Choice::Overload => return Decision::Answer(overload()),
            Choice::Full(copy) => {
                drop(waiter);
                return Decision::Hold(Box::pin(queue(mesh.clone(), call.clone(), copy)));
            }
            Choice::None => {
                if let Some(ending) = budgets.spent(now, &waiter.load().seek.lock()) {
                    return Decision::Answer(answer(ending));
                }
                drop(waiter);
                sleep(LOOK_AGAIN.min(fleet.clock.until(budgets.until()))).await;
            }
        }
    }
}

/// Waits in line for a copy with a concurrency limit.
pub(super) async fn queue(mesh: Mesh, call: Call, copy: Arc<Copy>) -> Decision<Lease> {
    let fleet = mesh.0.fleet.clone();
    fleet.saturated.notify_one();
    let line = copy.queue();
    let metrics = mesh.0.metrics.clone();
    let _turn =
        Turn { fleet: &fleet, metrics: &metrics, _waiting: metrics.waiting(For::Turn), since: fleet.clock.now() };
    loop {
        let mut turn = pin!(line.turn());
        turn.as_mut().enable();
        match mesh.choose(&call, fleet.clock.now(), None, true) {
            Choice::Forward(plan) => return Decision::Forward(*plan),
            Choice::Answer(answer) => return Decision::Answer(answer),
            Choice::None => return Decision::Hold(Box::pin(hold(mesh.clone(), call.clone()))),
            Choice::Full(_) | Choice::Overload => {}
        }
        if timeout(fleet.clock.until(call.deadline), turn).await.is_err() {
            return Decision::Answer(Answer::new(Reason::DE, "deadline passed while waiting for a turn on a copy"));
        }
    }
}

/// Waits for the search; `None` = a copy is ready.
async fn wait(fleet: &Fleet, waiter: &Waiter, budgets: &mut Budgets) -> Option<Ending> {
    let load = waiter.load();
    let mut phase = load.phase.subscribe();
    loop {
        match &*phase.borrow_and_update() {
            Phase::Use => return None,
            Phase::Ended(ending) => return Some(ending.clone()),
            Phase::Seeking { accepted } => budgets.seeking(fleet.clock.now(), *accepted),
        }
        if let Some(ending) = budgets.spent(fleet.clock.now(), &load.seek.lock()) {
            return Some(ending);
        }
        // Either way the loop looks again.
        let _ = timeout(fleet.clock.until(budgets.until()), phase.changed()).await;
    }
}

/// Whether the caller's deadline is too short for the load.
fn hopeless(fleet: &Fleet, call: &Call, waiter: &Waiter, budgets: &Budgets) -> Option<Ending> {
    if call.deadline == Time::NEVER {
        return None;
    }
    let now = fleet.clock.now();
    let sights = fleet.sights(now, &call.model, &call.table);
    let reference = &call.model.reference;
    let learned = fleet.load_time(&reference.model_type, sights.load_timeout(fleet, reference));
    let seek = waiter.load().seek.lock();
    let expected = seek.expected(now, learned, &sights.candidates, &sights.elsewhere);
    budgets.hopeless(now, expected, &seek)
}

/// The load goes on although nobody waits, until an agent has accepted it or the place budget is spent.
fn keep(fleet: &Arc<Fleet>, waiter: Waiter, place: Duration) {
    if !waiter.load().keep() {
        return;
    }
    fleet.runtime.spawn(async move {
        let mut phase = waiter.load().phase.subscribe();
        let accepted = phase.wait_for(|phase| !matches!(phase, Phase::Seeking { accepted: None }));
        let _ = timeout(place, accepted).await;
    });
}

fn answer(ending: Ending) -> Answer {
    let reason = match ending.reason {
        EndReason::NI => Reason::NI,
        EndReason::NP => Reason::NP,
        EndReason::LF => Reason::LF,
        EndReason::LT => Reason::LT,
        EndReason::DH => Reason::DH,
        EndReason::DE => Reason::DE,
    };
    let answer = Answer::new(reason, ending.text);
    Answer { retry_after: ending.retry_after.or(answer.retry_after), ..answer }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.metrics.waited(For::Turn, self.fleet.clock.now().since(self.since));
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let took = self.fleet.clock.now().since(self.since);
        self.fleet.holds.held(self.model, took);
        self.metrics.waited(For::Load, took);
    }
}
