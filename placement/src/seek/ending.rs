//! How a held call ends without a copy.

use std::time::Duration;

use crate::{id::ModelId, pod::Refusal};

/// Why; the two letters of the contract, section 9.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EndReason {
    /// No running instance of the class within the place budget.
    NI,
    /// No place within the place budget.
    NP,
    /// The load failed.
    LF,
    /// The load did not finish within its budget.
    LT,
    /// The deadline is shorter than the load may be expected to take; the load goes on.
    DH,
    /// The caller's deadline passed.
    DE,
}

/// The answer of a held call that got no copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// Why.
    pub reason: EndReason,
    /// For people.
    pub text: String,
    /// When it is worth trying again, where that is known.
    pub retry_after: Option<Duration>,
}

// === impl Ending ===

impl Ending {
    /// No instance of the class runs. The wording is ModelMesh's, so that what people search for is found.
    #[must_use]
    pub fn no_instance(model_type: &str) -> Self {
        let text = format!("There are no running instances that meet the label requirements of type {model_type}");
        Self::new(EndReason::NI, text, None)
    }

    /// No instance has a place; `said` is the newest refusal. The wording is ModelMesh's, what the agent said follows.
    #[must_use]
    pub fn no_place(said: Option<(Refusal, &str)>, retry_after: Option<Duration>) -> Self {
        let what = match said {
            Some((Refusal::Churn, _)) => "Cache churn threshold exceeded",
            _ => "Nowhere available to load",
        };
        let why = said.map_or("no agent has answered", |(_, text)| text);
        Self::new(EndReason::NP, with_detail(what, why), retry_after)
    }

    /// The load failed with this gRPC code; ends with the text of the storage or the model server. One that ran into its
    /// timeout is DEADLINE_EXCEEDED to the caller too, whoever noticed it.
    #[must_use]
    pub fn failed(model: &ModelId, code: u32, said: &str) -> Self {
        const DEADLINE_EXCEEDED: u32 = 4;
        let reason = if code == DEADLINE_EXCEEDED { EndReason::LT } else { EndReason::LF };
        Self::new(reason, with_detail(&format!("load of model `{model}` failed"), said), None)
    }

    /// The load has not finished. `refused`: what the last agent said that would not have it.
    #[must_use]
    pub fn not_loaded(model: &ModelId, within: Duration, refused: Option<&str>) -> Self {
        let text = format!("load of model `{model}` has not finished within {within:?}; it may still go on");
        let text = match refused {
            Some(refused) if !refused.is_empty() => {
                format!("{text}; an instance refused it before: {refused}")
            }
            _ => text,
        };
        Self::new(EndReason::LT, text, None)
    }

    /// The deadline is too short to wait for the load.
    #[must_use]
    pub fn hopeless(model: &ModelId, expected: Duration) -> Self {
        let text = format!(
            "model `{model}` is not loaded and may need {:.1} s, longer than the deadline allows; its load goes on",
            expected.as_secs_f64()
        );
        Self::new(EndReason::DH, text, Some(expected))
    }

    /// The deadline passed.
    #[must_use]
    pub fn deadline(model: &ModelId) -> Self {
        Self::new(EndReason::DE, format!("deadline passed while waiting for model `{model}` to be loaded"), None)
    }

    fn new(reason: EndReason, text: String, retry_after: Option<Duration>) -> Self {
        Self { reason, text, retry_after }
    }
}

fn with_detail(what: &str, detail: &str) -> String {
    if detail.is_empty() { what.to_owned() } else { format!("{what}: {detail}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_that_ran_into_its_timeout_is_told_as_such_whoever_noticed_it() {
        let model = ModelId::from("m");
        assert_eq!(Ending::failed(&model, 4, "took too long").reason, EndReason::LT);
        assert_eq!(Ending::failed(&model, 13, "broken").reason, EndReason::LF);
        assert_eq!(Ending::failed(&model, 13, "broken").text, "load of model `m` failed: broken");
    }
}
