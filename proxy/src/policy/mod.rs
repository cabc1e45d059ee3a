//! The proxy's [`Policy`]: joins the table (what is asked for) and the fleet (who has it).
//!
//! The way of a call: `method` says who answers at all, `name` which model is meant, `Mesh::place` picks a ready copy
//! or lets the call wait (`hold`) while one search per model (`search`) has a copy loaded; `again` says what becomes
//! of a failed attempt. The table is loaded once per call and travels with it (`Call`, rule `one-version`).

mod again;
mod hold;
mod log;
mod method;
mod name;
mod own;
mod plan;
mod ready;
mod search;
mod tail;

use std::{sync::Arc, time::Duration};

use modelring_placement::{
    choice::{FAILURE, choose},
    retry::RetryBudget,
    rules::one_version,
    seek::Budgets,
    time::Time,
};

use tokio_util::sync::CancellationToken;

pub use name::Asked;
pub use own::services;

use crate::{
    config::AccessLog,
    engine::{
        answer::{Answer, Reason},
        policy::{Attempt, Decision, First, Head, Plan, Policy, Record, Subject},
    },
    fleet::{Copy, Entry, Fleet, InFlight, Serving},
    metrics::Metrics,
    table::{Model, Table, VModel},
};
use method::Answerer;

/// The policy of a proxy; cloning it is cheap.
#[derive(Clone)]
pub struct Mesh(Arc<Inner>);

struct Inner {
    fleet: Arc<Fleet>,
    retries: RetryBudget,
    access_log: AccessLog,
    metrics: Arc<Metrics>,
}

/// What a call is, from its first look at the table to its end.
#[derive(Clone)]
struct Call {
    /// The version that this call sees.
    table: Arc<Table>,
    model: Arc<Model>,
    /// The name that the caller asked for.
    asked: Arc<str>,
    /// `/pkg.Service/Method`.
    path: Arc<str>,
    deadline: Time,
    /// What is left of the time that it may be held, once it was.
    budgets: Option<Budgets>,
    /// A server said RESOURCE_EXHAUSTED already.
    exhausted: bool,
    /// A server denied the model already.
    denied: bool,
}

/// One attempt of a call on a copy.
pub struct Lease {
    call: Call,
    in_flight: InFlight,
    serving: Arc<Serving>,
}

/// What a look at the ready copies brings.
enum Choice {
    Forward(Box<Plan<Lease>>),
    Answer(Answer),
    /// No copy is ready.
    None,
    /// The ready copies are at their limit; this is the best of them.
    Full(Arc<Copy>),
    /// And as many as may wait wait already.
    Overload,
}

// === impl Mesh ===

impl Mesh {
    /// A policy over this fleet, which counts its calls in `metrics`.
    #[must_use]
    pub fn new(fleet: Arc<Fleet>, access_log: AccessLog, metrics: Arc<Metrics>) -> Self {
        Self(Arc::new(Inner { fleet, retries: RetryBudget::new(), access_log, metrics }))
    }

    fn now(&self) -> Time {
        self.0.fleet.clock.now()
    }

    /// Finds the model that is asked for and sends the call on its way.
    fn decide(&self, head: &Head, table: Arc<Table>, asked: Result<Asked, Answer>) -> Decision<Lease> {
        let noted = head.noted.get().and_then(|noted| noted.downcast_ref::<Table>());
        debug_assert!(
            noted.is_none_or(|noted| one_version::check(
                (noted.version.epoch, noted.version.n),
                (table.version.epoch, table.version.n)
            )
            .is_ok()),
            "rule one-version is broken"
        );
        let found = asked.and_then(|asked| Ok((resolve(&table, &asked)?, asked)));
        match found {
            Ok((model, _)) if table.class(&model.class).is_none_or(|class| class.runtimes.is_empty()) => {
                Decision::Answer(ready::no_runtime(&model.class))
            }
            Ok((model, asked)) => {
                let call = Call {
                    table,
                    model,
                    asked: asked.name().clone(),
                    path: head.path.clone(),
                    deadline: head.deadline,
                    budgets: None,
                    exhausted: false,
                    denied: false,
                };
                let now = self.now();
                self.0.retries.called(now, 1);
                self.place(call, now)
            }
            Err(answer) => Decision::Answer(answer),
        }
    }

    /// To a ready copy, or into the queue of one, or into the hold.
    fn place(&self, call: Call, now: Time) -> Decision<Lease> {
        match self.choose(&call, now, None, false) {
            Choice::Forward(plan) => Decision::Forward(*plan),
            Choice::Answer(answer) => Decision::Answer(answer),
            Choice::None => Decision::Hold(Box::pin(hold::hold(self.clone(), call))),
            Choice::Full(copy) => Decision::Hold(Box::pin(hold::queue(self.clone(), call, copy))),
            Choice::Overload => Decision::Answer(overload()),
        }
    }

    /// Takes the best ready copy but `except`. `in_line`: the call has waited for its turn.
    fn choose(&self, call: &Call, now: Time, except: Option<&Arc<Copy>>, in_line: bool) -> Choice {
        self.0.fleet.index.with(call.model.id().as_str(), |copies| match except {
            None => self.choose_among(call, now, copies, in_line),
            Some(except) => {
                let others: Vec<_> = copies.iter().filter(|copy| !Arc::ptr_eq(copy, except)).cloned().collect();
                self.choose_among(call, now, &others, in_line)
            }
        })
    }

    fn choose_among(&self, call: &Call, now: Time, copies: &[Arc<Copy>], in_line: bool) -> Choice {
        // A copy may drain between the choice and the entry; then the choice is made anew, and soon none is usable.
        for _ in 0..=copies.len() {
            let Some(copy) = choose(copies, &mut rand::random).map(|chosen| &copies[chosen]) else {
                return Choice::None;
            };
            match copy.enter(now, in_line) {
                Entry::In(in_flight) => match plan::plan(call, in_flight, self.0.metrics.by_model()) {
                    Some(Ok(plan)) => return Choice::Forward(Box::new(plan)),
                    Some(Err(answer)) => return Choice::Answer(answer),
                    None => {}
                },
                Entry::NotReady => {}
                Entry::Full => return Choice::Full(copy.clone()),
                Entry::Overload => return Choice::Overload,
            }
        }
        Choice::None
    }
}

impl Policy for Mesh {
    type Lease = Lease;

    fn head(&self, head: &Head) -> First<Lease> {
        let method = head.path.trim_start_matches('/');
        match method::answerer(method) {
            Answerer::Nobody => return First::Decide(Decision::Answer(not_permitted(method))),
            Answerer::Proxy => return First::Decide(Decision::Serve),
            Answerer::ProxyUnlessNamed if !Asked::is_in(&head.headers) => return First::Decide(Decision::Serve),
            Answerer::ProxyUnlessNamed | Answerer::Server => {}
        }
        let Some(table) = self.0.fleet.table() else { return First::Decide(Decision::Answer(no_table())) };
        match table.tuning.rules.get(method) {
            Some(rule) if !rule.path.is_empty() => {
                let path = rule.path.clone();
                // The first note is the only one.
                let _ = head.noted.set(table);
                return First::Peek(path);
            }
            None if !table.tuning.rules.allow_other => {
                return First::Decide(Decision::Answer(not_permitted(method)));
            }
            _ => {}
        }
        First::Decide(self.decide(head, table, Asked::from_headers(&head.headers)))
    }

    fn route(&self, head: &Head, name: Option<&[u8]>) -> Decision<Lease> {
        let noted = head.noted.get().and_then(|noted| noted.clone().downcast::<Table>().ok());
        let Some(table) = noted.or_else(|| self.0.fleet.table()) else { return Decision::Answer(no_table()) };
        let method = head.path.trim_start_matches('/');
        let asked = match name.filter(|name| !name.is_empty()) {
            Some(name) => Asked::from_message(name, table.tuning.rules.get(method).is_none_or(|rule| rule.vmodel)),
            None => Asked::from_headers(&head.headers),
        };
        self.decide(head, table, asked)
    }

    fn usable(&self, lease: &Lease) -> bool {
        lease.in_flight.copy().is_usable(self.now())
    }

    fn again(&self, _: &Head, _: Option<&[u8]>, lease: Lease, attempt: Attempt) -> Decision<Lease> {
        self.try_again(lease, &attempt)
    }

    fn answered(&self, lease: &Lease, code: u32, took: Duration) {
        let copy = lease.in_flight.copy();
        let failed = matches!(code, 2 | 13 | 14);
        copy.observe(self.now(), if failed { FAILURE.max(took) } else { took });
        copy.host.answered();
    }

    fn revoked(&self, lease: &Lease) -> Option<Arc<CancellationToken>> {
        Some(lease.in_flight.revoked().clone())
    }

    fn invoked(&self, head: &Head, subject: Option<&Subject>, code: u32, took: Duration) {
        self.0.metrics.invoked(&head.path, subject, code, took);
    }

    fn done(&self, record: &Record) {
        self.0.metrics.call(record);
        log::call(self.0.access_log, record);
    }
}

/// The model that is asked for, a vmodel's by weight while a canary is on.
fn resolve(table: &Table, asked: &Asked) -> Result<Arc<Model>, Answer> {
    let not_found = |what: &str| Answer::new(Reason::NM, format!("{what} not found"));
    let id = match asked {
        Asked::Model(id) => id,
        Asked::VModel(name) => {
            let vmodel = table.vmodel(name).ok_or_else(|| not_found("vmodel"))?;
            let id = weighted(vmodel, || rand::random_range(0..100));
            return table.model(id).cloned().ok_or_else(|| Answer::new(Reason::IN, "vmodel points at no model"));
        }
    };
    table.model(id).cloned().ok_or_else(|| not_found("model"))
}

/// The id of the model that a vmodel's call goes to; `percent` draws from 0 to 99.
fn weighted(vmodel: &VModel, percent: impl FnOnce() -> u32) -> &str {
    match &vmodel.target {
        Some(target) if vmodel.target_weight > 0 && percent() < vmodel.target_weight => target.as_str(),
        _ => vmodel.active.as_str(),
    }
}

fn no_table() -> Answer {
    Answer::new(Reason::TB, "the proxy has no table yet")
}

fn not_permitted(method: &str) -> Answer {
    Answer::new(Reason::MN, format!("Method not found or not permitted: {method}"))
}

fn overload() -> Answer {
    Answer::new(Reason::OQ, "Model queue overload")
}
