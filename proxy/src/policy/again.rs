//! What becomes of a failed attempt.
//!
//! A call is sent again only when it certainly did not run, or when the server said UNAVAILABLE to a unary call; nothing
//! of the answer has gone out, what the caller sent is still held, and the retry budget allows (rule `no-storm`). A server
//! that denies a model is reported to its agent, once per READY, and the call is routed anew.

use std::{pin::pin, sync::Arc, time::Duration};

use modelring_placement::{choice::FAILURE, time::Time};
use tokio::time::timeout;

use super::{Call, Choice, Lease, Mesh, method::is_unary};
use crate::{
    engine::{
        answer::{Answer, Reason},
        policy::{Attempt, Cause, Decision, Ran},
    },
    fleet::Copy,
};

/// Most attempts of a call.
const TRIES: u32 = 3;
/// Most attempts where they ended before anything was written: they cost the servers nothing.
const UNWRITTEN_TRIES: u32 = 10;
/// How long the agent may take to look whether its server has a model.
const DENIAL: Duration = Duration::from_secs(1);
/// How long to wait for the view to follow when the only copy cannot be reached.
const UNREACHED: Duration = Duration::from_millis(250);

/// What a failed attempt asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// Choose anew: nothing was written.
    Unwritten,
    /// Another copy, or this one after a moment: it did not run.
    DidNotRun,
    /// The server denies the model.
    Denied,
    /// Another ready copy, if there is one.
    Elsewhere,
    /// The caller gets what came.
    Pass,
}

// === impl Mesh ===

impl Mesh {
    pub(super) fn try_again(&self, lease: Lease, attempt: &Attempt) -> Decision<Lease> {
        let now = self.now();
        let Lease { call, in_flight, serving } = lease;
        let copy = in_flight.copy().clone();
        drop(in_flight);
        match attempt.cause {
            Cause::Connect => {
                copy.host.lost(now);
                copy.observe(now, FAILURE);
                if serving.target().is_some_and(|target| serving.cannot_connect(target.address)) {
                    tracing::warn!(instance = %copy.host.id, "model server cannot be connected, using the relay endpoint");
                }
            }
            Cause::Lost | Cause::Reset => {
                copy.host.lost(now);
                copy.observe(now, FAILURE);
            }
            Cause::Status => {
                copy.host.answered();
                if matches!(attempt.code, Some(8 | 14)) {
                    copy.observe(now, FAILURE);
                }
            }
            Cause::Refused | Cause::Unusable => {}
        }

        let verdict = verdict(attempt, is_unary(call.path.trim_start_matches('/')));
        let most = if verdict == Verdict::Unwritten { UNWRITTEN_TRIES } else { TRIES };
        if verdict == Verdict::Pass || !attempt.replayable || attempt.tries >= most {
            return Decision::Answer(final_answer(attempt, false));
        }
        match verdict {
            Verdict::Unwritten => self.place(call, now),
            Verdict::Denied => match copy.deny() {
                Some(missing) => {
                    self.0.metrics.denied();
                    tracing::warn!(model = %copy.model, instance = %copy.host.id, "model server denies a model that should be ready");
                    if let Some(peer) = self.0.fleet.peer(copy.host.id.as_str()) {
                        peer.missing(missing);
                    }
                    self.elsewhere(&call, &copy, now, attempt, Some(DENIAL))
                }
                None => Decision::Answer(final_answer(attempt, false)),
            },
            Verdict::DidNotRun => self.elsewhere(&call, &copy, now, attempt, Some(UNREACHED)),
            Verdict::Elsewhere | Verdict::Pass => self.elsewhere(&call, &copy, now, attempt, None),
        }
    }

    /// Another ready copy; where there is none, this one or a load, after up to `patience` for the view to follow.
    fn elsewhere(
        &self,
        call: &Call,
        copy: &Arc<Copy>,
        now: Time,
        attempt: &Attempt,
        patience: Option<Duration>,
    ) -> Decision<Lease> {
        let other = self.choose(call, now, Some(copy), false);
        let has_other = matches!(other, Choice::Forward(_));
        if !has_other && patience.is_none() {
            return Decision::Answer(final_answer(attempt, false));
        }
        if !self.0.retries.retry(now) {
            self.0.metrics.retry_refused();
            return Decision::Answer(final_answer(attempt, true));
        }
        self.0.metrics.retry(attempt.cause);
        match (other, patience) {
            (Choice::Forward(plan), _) => Decision::Forward(*plan),
            (_, patience) => {
                let patience = patience.unwrap_or_default();
                Decision::Hold(Box::pin(after_change(self.clone(), call.clone(), copy.clone(), patience)))
            }
        }
    }
}

/// Routes anew when the copy has changed, or after `patience`.
async fn after_change(mesh: Mesh, call: Call, copy: Arc<Copy>, patience: Duration) -> Decision<Lease> {
    let mut changed = pin!(copy.changed());
    changed.as_mut().enable();
    if copy.is_usable(mesh.now()) {
        let _ = timeout(patience.min(mesh.0.fleet.clock.until(call.deadline)), changed).await;
    }
    mesh.place(call, mesh.now())
}

fn verdict(attempt: &Attempt, unary: bool) -> Verdict {
    match (attempt.cause, attempt.ran, attempt.code) {
        (Cause::Unusable, ..) => Verdict::Unwritten,
        (Cause::Status, _, Some(code)) if denies(code, &attempt.text) => Verdict::Denied,
        (Cause::Status, _, Some(14)) if unary => Verdict::Elsewhere,
        (Cause::Status, _, Some(8)) if attempt.tries <= 1 => Verdict::Elsewhere,
        (Cause::Status, ..) => Verdict::Pass,
        (_, Ran::No, _) => Verdict::DidNotRun,
        _ => Verdict::Pass,
    }
}

/// Whether a status says that the server has not the model: NOT_FOUND, and what Triton and MLServer say in its place.
fn denies(code: u32, text: &str) -> bool {
    match code {
        5 => true,
        14 => {
            text.starts_with("Request for unknown model")
                && (text.contains("is not found") || text.contains("has no available versions"))
        }
        3 => text.strip_prefix("Model ").is_some_and(|rest| rest.contains("not found")),
        _ => false,
    }
}

/// What the caller is told when the call is not sent again.
fn final_answer(attempt: &Attempt, over_budget: bool) -> Answer {
    if let (Cause::Status, Some(code)) = (attempt.cause, attempt.code) {
        return Answer::status(code, attempt.text.clone());
    }
    let said = if attempt.text.is_empty() { "" } else { ": " };
    let told = |reason, what: &str| Answer::new(reason, format!("{what}{said}{}", attempt.text));
    match attempt.ran {
        Ran::No if over_budget => told(Reason::RB, "retry budget spent"),
        Ran::No if attempt.cause == Cause::Connect => told(Reason::UC, "no connection to the model server"),
        Ran::No => told(Reason::RB, "retries spent"),
        Ran::Maybe => told(Reason::UR, "connection to the model server was lost, the call may have run"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(code: u32, text: &str) -> Attempt {
        let (ran, cause) = (Ran::Maybe, Cause::Status);
        Attempt { ran, cause, code: Some(code), text: text.into(), replayable: true, tries: 1 }
    }

    #[test]
    fn what_triton_and_mlserver_say_of_an_unknown_model_counts_as_not_found() {
        let denied = |code, text: &str| verdict(&status(code, text), true) == Verdict::Denied;
        assert!(denied(5, "anything"));
        assert!(denied(14, "Request for unknown model: 'm' is not found"));
        assert!(denied(14, "Request for unknown model: 'm' has no available versions"));
        assert!(denied(3, "Model m with version  not found"));
        assert!(!denied(14, "server is busy"));
        assert!(!denied(3, "shape is wrong"));
    }

    #[test]
    fn unavailable_is_tried_elsewhere_only_for_unary_calls() {
        assert_eq!(verdict(&status(14, "busy"), true), Verdict::Elsewhere);
        assert_eq!(verdict(&status(14, "busy"), false), Verdict::Pass);
    }

    #[test]
    fn resource_exhausted_is_tried_elsewhere_once() {
        assert_eq!(verdict(&status(8, "full"), true), Verdict::Elsewhere);
        assert_eq!(verdict(&Attempt { tries: 2, ..status(8, "full") }, true), Verdict::Pass);
    }

    #[test]
    fn what_may_have_run_is_not_sent_again() {
        let attempt = |ran, cause| Attempt { ran, cause, code: None, ..status(0, "gone") };
        assert_eq!(verdict(&attempt(Ran::Maybe, Cause::Lost), true), Verdict::Pass);
        assert_eq!(verdict(&attempt(Ran::No, Cause::Refused), true), Verdict::DidNotRun);
        assert_eq!(verdict(&attempt(Ran::No, Cause::Connect), false), Verdict::DidNotRun);
        assert_eq!(final_answer(&attempt(Ran::Maybe, Cause::Lost), false).reason, Some(Reason::UR));
        assert_eq!(final_answer(&attempt(Ran::No, Cause::Connect), false).reason, Some(Reason::UC));
        assert_eq!(final_answer(&attempt(Ran::No, Cause::Connect), true).reason, Some(Reason::RB));
        assert_eq!(final_answer(&status(13, "odd"), false), Answer::status(13, "odd"));
    }
}
