//! How many pods a runtime should have: a pure function of whether models need it, and since when none does.

use std::time::Duration;

/// What the settings say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScaleSettings {
    /// `podsPerRuntime`, for runtimes that say nothing themselves.
    pub pods_per_runtime: u16,
    /// `scaleToZero.enabled`.
    pub to_zero: bool,
    /// `scaleToZero.gracePeriodSeconds`.
    pub grace: Duration,
}

/// What there is to a runtime in a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    /// `spec.replicas` of the runtime.
    pub replicas: Option<u16>,
    /// Whether a model may need it: as what answers now, or as what shall answer. Both count, so that an update never takes
    /// away the pods of what still answers.
    pub needed: bool,
    /// How long no model has needed it; `None` = since before control started.
    pub idle: Option<Duration>,
}

/// Pods that a runtime should have, and when to look again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pods {
    /// How many.
    pub replicas: u16,
    /// Time until it may be another number with nothing else changed.
    pub again: Option<Duration>,
}

/// Pods that a runtime should have.
#[must_use]
pub fn pods(need: Need, settings: ScaleSettings) -> Pods {
    let full = need.replicas.unwrap_or(settings.pods_per_runtime);
    if need.needed || !settings.to_zero {
        return Pods { replicas: full, again: None };
    }
    match need.idle {
        Some(idle) if idle < settings.grace => Pods { replicas: full, again: Some(settings.grace - idle) },
        _ => Pods { replicas: 0, again: None },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: ScaleSettings =
        ScaleSettings { pods_per_runtime: 2, to_zero: true, grace: Duration::from_secs(60) };

    fn need(needed: bool, idle: Option<u64>) -> Need {
        Need { replicas: None, needed, idle: idle.map(Duration::from_secs) }
    }

    #[test]
    fn a_runtime_without_models_has_no_pods_when_the_grace_is_over() {
        assert_eq!(pods(need(true, None), SETTINGS), Pods { replicas: 2, again: None });
        assert_eq!(pods(need(false, Some(0)), SETTINGS), Pods { replicas: 2, again: Some(Duration::from_secs(60)) });
        assert_eq!(pods(need(false, Some(59)), SETTINGS), Pods { replicas: 2, again: Some(Duration::from_secs(1)) });
        assert_eq!(pods(need(false, Some(60)), SETTINGS), Pods { replicas: 0, again: None });
    }

    #[test]
    fn at_the_start_of_control_an_unneeded_runtime_has_no_pods_at_once() {
        assert_eq!(pods(need(false, None), SETTINGS).replicas, 0);
    }

    #[test]
    fn a_runtime_may_say_its_own_number_and_none_is_a_number() {
        assert_eq!(pods(Need { replicas: Some(5), ..need(true, None) }, SETTINGS).replicas, 5);
        assert_eq!(pods(Need { replicas: Some(0), ..need(true, None) }, SETTINGS).replicas, 0);
    }

    #[test]
    fn where_scale_to_zero_is_off_pods_stay() {
        assert_eq!(pods(need(false, None), ScaleSettings { to_zero: false, ..SETTINGS }).replicas, 2);
    }
}
