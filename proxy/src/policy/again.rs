//! What becomes of a failed attempt.
//!
//! A call is sent again only when it certainly did not run, when the server said UNAVAILABLE to a unary call, or, once, when
//! it said RESOURCE_EXHAUSTED and there is another ready copy; and only when nothing of the answer has gone out, all that
//! the caller sent is still held, and the retry budget allows (rule `no-storm`). A server that denies a model is reported to
//! its agent, once per READY, and the call is routed anew.

use std::{pin::pin, sync::Arc, time::Duration};

use modelring_placement::{choice::FAILURE, time::Time};
use tokio::time::timeout;

use super::{Call, Choice, Lease, Mesh, method};
use crate::{
    engine::{
        answer::{Answer, Reason},
        policy::{Attempt, Cause, Decision, Ran},
    },
    fleet::{Copy, Denial},
};

/// Most attempts of a call.
const TRIES: u32 = 3;
/// Most attempts where they ended before anything was written: they cost the servers nothing.
const UNWRITTEN_TRIES: u32 = 10;
/// How long the agent may take to look whether its server has a model.
const DENIAL: Duration = Duration::from_secs(1);
/// How long to wait for the view to follow when the only copy cannot be reached.
const UNREACHED: Duration = Duration::from_millis(250);

/// What a server says that has no room for a call.
const RESOURCE_EXHAUSTED: u32 = 8;

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

/// What there is no more of when a call is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spent {
    /// Attempts, or copies.
    Tries,
    /// The retry budget of the proxy.
    Budget,
}

// === impl Mesh ===

impl Mesh {
    pub(super) fn try_again(&self, lease: Lease, attempt: &Attempt) -> Decision<Lease> {
        let now = self.now();
        let Lease { mut call, in_flight, serving } = lease;
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
                if matches!(attempt.code, Some(8 | 13 | 14)) {
                    copy.observe(now, FAILURE);
                }
            }
            Cause::Refused | Cause::Unusable => {}
        }

        let method = call.path.trim_start_matches('/');
        let unary = method::unary(method).unwrap_or(attempt.whole && serving.names(method));
        let verdict = verdict(attempt, unary, call.exhausted);
        // Told whatever becomes of this call: the next ones are better off.
        let is_repaired = verdict == Verdict::Denied && self.denied(&copy, now, call.denied);
        let most = if verdict == Verdict::Unwritten { UNWRITTEN_TRIES } else { TRIES };
        if !attempt.replayable || attempt.tries >= most {
            return Decision::Answer(final_answer(attempt, Spent::Tries));
        }
        match verdict {
            Verdict::Pass => Decision::Answer(final_answer(attempt, Spent::Tries)),
            Verdict::Unwritten => self.place(call, now),
            Verdict::Denied if is_repaired => {
                call.denied = true;
                self.elsewhere(&call, &copy, now, attempt, Some(DENIAL))
            }
            Verdict::Denied => Decision::Answer(final_answer(attempt, Spent::Tries)),
            // Nobody was reached, and what is gone is not asked again: the call waits for a copy as one that has just come.
            Verdict::DidNotRun if attempt.cause == Cause::Connect && !copy.is_usable(now) => self.place(call, now),
            Verdict::DidNotRun => self.elsewhere(&call, &copy, now, attempt, Some(UNREACHED)),
            Verdict::Elsewhere => {
                call.exhausted |= attempt.code == Some(RESOURCE_EXHAUSTED);
                self.elsewhere(&call, &copy, now, attempt, None)
            }
        }
    }

    /// The server denies the model: tells its agent, once per READY. Whether it is worth routing the call anew: it is news,
    /// or the agent is looking at this moment and the call was not denied `before`.
    fn denied(&self, copy: &Arc<Copy>, now: Time, before: bool) -> bool {
        let missing = match copy.deny(now) {
            Denial::News(missing) => missing,
            Denial::Since(time) => return time < DENIAL && !before,
        };
        self.0.metrics.denied();
        tracing::warn!(model = %copy.model, instance = %copy.host.id, "model server denies a model that should be ready");
        if let Some(peer) = self.0.fleet.peer(copy.host.id.as_str()) {
            peer.missing(missing);
        }
        true
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
            return Decision::Answer(final_answer(attempt, Spent::Tries));
        }
        if !self.0.retries.retry(now) {
            self.0.metrics.retry_refused();
            return Decision::Answer(final_answer(attempt, Spent::Budget));
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

fn verdict(attempt: &Attempt, unary: bool, exhausted: bool) -> Verdict {
    match (attempt.cause, attempt.ran, attempt.code) {
        (Cause::Unusable, ..) => Verdict::Unwritten,
        (Cause::Status, _, Some(code)) if denies(code, &attempt.text) => Verdict::Denied,
        (Cause::Status, _, Some(14)) if unary => Verdict::Elsewhere,
        (Cause::Status, _, Some(RESOURCE_EXHAUSTED)) if !exhausted => Verdict::Elsewhere,
        (Cause::Status, ..) => Verdict::Pass,
        (_, Ran::No, _) => Verdict::DidNotRun,
        _ => Verdict::Pass,
    }
}

/// Whether a status says that the server has not the model: NOT_FOUND, and what Triton (UNAVAILABLE, before NOT_FOUND),
/// MLServer (INVALID_ARGUMENT, before NOT_FOUND) and TorchServe (INTERNAL) say in its place.
fn denies(code: u32, text: &str) -> bool {
    match code {
        5 => true,
        14 => {
            text.starts_with("Request for unknown model")
                && (text.contains("is not found") || text.contains("has no available versions"))
        }
        3 => text.strip_prefix("Model ").is_some_and(|rest| rest.contains("not found")),
        13 => text.starts_with("Model not found: ") && text.contains(".ModelNotFoundException"),
        _ => false,
    }
}

/// What the caller is told when the call is not sent again.
fn final_answer(attempt: &Attempt, spent: Spent) -> Answer {
    if let (Cause::Status, Some(code)) = (attempt.cause, attempt.code) {
        return Answer::status(code, attempt.text.clone());
    }
    let said = if attempt.text.is_empty() { "" } else { ": " };
    let told = |reason, what: &str| Answer::new(reason, format!("{what}{said}{}", attempt.text));
    match attempt.ran {
        Ran::Maybe => told(Reason::UR, "connection to the model server was lost, the call may have run"),
        Ran::No if spent == Spent::Budget => told(Reason::RB, "retry budget spent"),
        Ran::No if attempt.cause == Cause::Connect => told(Reason::UC, "no connection to the model server"),
        Ran::No if !attempt.replayable => {
            told(Reason::RB, "the request is larger than what is kept of it to be sent again")
        }
        Ran::No => told(Reason::RB, "retries spent"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(code: u32, text: &str) -> Attempt {
        let (ran, cause) = (Ran::Maybe, Cause::Status);
        Attempt { ran, cause, code: Some(code), text: text.into(), replayable: true, whole: true, tries: 1 }
    }

    #[test]
    fn what_triton_mlserver_and_torchserve_say_of_an_unknown_model_counts_as_not_found() {
        let denied = |code, text: &str| verdict(&status(code, text), true, false) == Verdict::Denied;
        assert!(denied(5, "anything"));
        assert!(denied(14, "Request for unknown model: 'm' is not found"));
        assert!(denied(14, "Request for unknown model: 'm' has no available versions"));
        assert!(denied(3, "Model m with version  not found"));
        assert!(denied(13, "Model not found: m\norg.pytorch.serve.archive.model.ModelNotFoundException"));
        assert!(!denied(13, "Model not found: in the cupboard"));
        assert!(!denied(14, "server is busy"));
        assert!(!denied(3, "shape is wrong"));
    }

    #[test]
    fn unavailable_is_tried_elsewhere_only_for_unary_calls() {
        assert_eq!(verdict(&status(14, "busy"), true, false), Verdict::Elsewhere);
        assert_eq!(verdict(&status(14, "busy"), false, false), Verdict::Pass);
    }

    #[test]
    fn resource_exhausted_is_tried_elsewhere_once() {
        assert_eq!(verdict(&status(8, "full"), true, false), Verdict::Elsewhere);
        assert_eq!(verdict(&status(8, "full"), true, true), Verdict::Pass);
    }

    #[test]
    fn what_may_have_run_is_not_sent_again() {
        let attempt = |ran, cause| Attempt { ran, cause, code: None, ..status(0, "gone") };
        assert_eq!(verdict(&attempt(Ran::Maybe, Cause::Lost), true, false), Verdict::Pass);
        assert_eq!(verdict(&attempt(Ran::No, Cause::Refused), true, false), Verdict::DidNotRun);
        assert_eq!(verdict(&attempt(Ran::No, Cause::Connect), false, false), Verdict::DidNotRun);
        assert_eq!(final_answer(&attempt(Ran::Maybe, Cause::Lost), Spent::Tries).reason, Some(Reason::UR));
        assert_eq!(final_answer(&attempt(Ran::No, Cause::Connect), Spent::Tries).reason, Some(Reason::UC));
        assert_eq!(final_answer(&attempt(Ran::No, Cause::Connect), Spent::Budget).reason, Some(Reason::RB));
        assert_eq!(final_answer(&status(13, "odd"), Spent::Tries), Answer::status(13, "odd"));
    }
}
