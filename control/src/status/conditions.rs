//! Conditions, as KServe has them.

/// A condition of an InferenceService.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// `PredictorReady` or `Ready`.
    pub kind: &'static str,
    /// Whether it holds.
    pub holds: bool,
    /// Why it does not, one word; empty where it holds.
    pub reason: String,
    /// The same in words.
    pub message: String,
    /// Since when, as RFC 3339.
    pub since: String,
}

/// Our two conditions. The time of one changes with its truth alone.
#[must_use]
pub fn conditions(
    available: bool,
    proxy_ready: bool,
    why: (&str, &str),
    before: &[Condition],
    now: &str,
) -> Vec<Condition> {
    let make = |kind: &'static str, holds: bool, reason: &str, message: &str| {
        let since = before.iter().find(|before| before.kind == kind && before.holds == holds);
        let (reason, message) = if holds { ("", "") } else { (reason, message) };
        Condition {
            kind,
            holds,
            reason: reason.to_owned(),
            message: message.to_owned(),
            since: since.map_or_else(|| now.to_owned(), |before| before.since.clone()),
        }
    };
    let ready = if available {
        make("Ready", proxy_ready, "NoReadyProxy", "No proxy of the namespace is ready")
    } else {
        make("Ready", false, why.0, why.1)
    };
    vec![make("PredictorReady", available, why.0, why.1), ready]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_condition_changes_with_its_truth_alone() {
        let first = conditions(false, true, ("ModelLoadFailed", "broken"), &[], "1");
        assert_eq!(
            (first[0].holds, first[0].reason.as_str(), first[0].since.as_str()),
            (false, "ModelLoadFailed", "1")
        );
        let other_text = conditions(false, true, ("ModelLoadFailed", "other"), &first, "2");
        assert_eq!((other_text[0].message.as_str(), other_text[0].since.as_str()), ("other", "1"));
        let well = conditions(true, true, ("", ""), &other_text, "3");
        assert_eq!((well[1].holds, well[1].since.as_str()), (true, "3"));
    }

    #[test]
    fn a_model_is_ready_only_behind_a_ready_proxy() {
        let conditions = conditions(true, false, ("", ""), &[], "1");
        assert!(conditions[0].holds);
        assert!(!conditions[1].holds);
        assert_eq!(conditions[1].reason, "NoReadyProxy");
    }
}
