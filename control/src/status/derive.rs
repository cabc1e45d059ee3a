//! From what is seen to what is written.

use super::{Class, Copies, FailureInfo, ModelSeen, Reason, Seen, State, Status, Transition};

/// The status of a stable name.
#[must_use]
pub fn derive(seen: &Seen) -> Status {
    let target = seen.target.as_ref().filter(|target| seen.active.as_ref().is_none_or(|active| active.id != target.id));
    let active_state = seen.active.as_ref().map_or(State::Pending, state);
    let target_state = target.map(state);
    let newest = target.or(seen.active.as_ref());
    let failure = match (&seen.invalid, newest) {
        (Some(text), newest) => Some(FailureInfo {
            reason: Reason::InvalidPredictorSpec,
            message: text.clone(),
            location: String::new(),
            model: newest.map(|model| model.id.clone()).unwrap_or_default(),
            time: String::new(),
        }),
        (None, Some(model)) => failure(model),
        (None, None) => None,
    };
    let transition = match target_state {
        _ if seen.invalid.is_some() => Transition::InvalidSpec,
        None => Transition::UpToDate,
        // A target that is tried again is on its way again.
        Some(State::Loading) => Transition::InProgress,
        Some(_) if seen.blocked => Transition::BlockedByFailedLoad,
        Some(_) => Transition::InProgress,
    };
    let copies =
        [seen.active.as_ref(), target].into_iter().flatten().filter(|model| counts(model)).map(|model| model.copies);
    let (failed_copies, total_copies) = copies.fold((0, 0), |(failed, total), copies| {
        (failed + copies.failed, total + copies.loading + copies.ready + copies.failed)
    });
    // A model that is in no memory is available all the same: the next call loads it.
    let healthy = seen.active.as_ref().is_some_and(|active| active.class == Class::Served || active.copies.ready > 0);
    Status {
        active: active_state,
        target: target_state,
        transition,
        failure,
        failed_copies,
        total_copies,
        available: healthy && active_state != State::FailedToLoad,
    }
}

fn state(model: &ModelSeen) -> State {
    let Copies { loading, ready, failed } = model.copies;
    match model.class {
        _ if ready > 0 => State::Loaded,
        Class::NotRecognized | Class::NotSupported => State::FailedToLoad,
        Class::Waiting => State::Loading,
        Class::Served if loading > 0 => State::Loading,
        Class::Served if failed > 0 => State::FailedToLoad,
        Class::Served => State::Standby,
    }
}

/// What is wrong with a model; nothing once it is ready anywhere.
fn failure(model: &ModelSeen) -> Option<FailureInfo> {
    if model.copies.ready > 0 {
        return None;
    }
    let said = |reason, message: &str| {
        Some(FailureInfo {
            reason,
            message: message.to_owned(),
            location: String::new(),
            model: model.id.clone(),
            time: String::new(),
        })
    };
    match model.class {
        Class::NotRecognized => said(Reason::RuntimeNotRecognized, "Specified runtime name not recognized"),
        Class::NotSupported => {
            said(Reason::NoSupportingRuntime, "No ServingRuntime supports specified model type and/or protocol")
        }
        Class::Waiting => said(Reason::RuntimeUnhealthy, "Waiting for supporting runtime Pod to become available"),
        Class::Served => model.failure.as_ref().map(|failure| FailureInfo {
            reason: Reason::ModelLoadFailed,
            message: failure.message.clone(),
            location: failure.location.clone(),
            model: model.id.clone(),
            time: failure.time.clone(),
        }),
    }
}

/// Whether a model's copies say anything: not where it has no runtime.
fn counts(model: &ModelSeen) -> bool {
    model.class == Class::Served || model.copies.ready > 0
}

#[cfg(test)]
mod tests {
    use super::{super::Failure, *};

    fn model(id: &str, loading: u32, ready: u32, failed: u32) -> ModelSeen {
        let failure =
            (failed > 0).then(|| Failure { location: "pod".into(), message: "broken".into(), time: "t".into() });
        ModelSeen { id: id.into(), copies: Copies { loading, ready, failed }, failure, class: Class::Served }
    }

    fn seen(active: Option<ModelSeen>, target: Option<ModelSeen>) -> Seen {
        Seen { active, target, ..Seen::default() }
    }

    #[test]
    fn a_new_model_is_pending_then_loading_then_loaded() {
        assert_eq!(derive(&seen(None, None)).active, State::Pending);
        assert!(!derive(&seen(None, None)).available);
        let standby = derive(&seen(Some(model("a", 0, 0, 0)), None));
        assert_eq!((standby.active, standby.available), (State::Standby, true));
        assert_eq!(derive(&seen(Some(model("a", 1, 0, 0)), None)).active, State::Loading);
        let loaded = derive(&seen(Some(model("a", 0, 1, 0)), None));
        assert_eq!((loaded.active, loaded.transition, loaded.total_copies), (State::Loaded, Transition::UpToDate, 1));
    }

    #[test]
    fn a_failed_first_load_is_up_to_date_and_not_available() {
        let status = derive(&seen(Some(model("a", 0, 0, 1)), None));
        assert_eq!(status.active, State::FailedToLoad);
        assert_eq!((status.transition, status.available), (Transition::UpToDate, false));
        let failure = status.failure.unwrap();
        assert_eq!(
            (failure.reason, failure.message.as_str(), failure.location.as_str()),
            (Reason::ModelLoadFailed, "broken", "pod")
        );
        assert_eq!(status.failed_copies, 1);
    }

    #[test]
    fn a_failed_update_is_blocked_while_the_old_model_answers() {
        let mut update = seen(Some(model("a", 0, 1, 0)), Some(model("b", 1, 0, 0)));
        let on_its_way = derive(&update);
        assert_eq!((on_its_way.target, on_its_way.transition), (Some(State::Loading), Transition::InProgress));
        update.target = Some(model("b", 0, 0, 1));
        update.blocked = true;
        let blocked = derive(&update);
        assert_eq!((blocked.active, blocked.target), (State::Loaded, Some(State::FailedToLoad)));
        assert_eq!((blocked.transition, blocked.available), (Transition::BlockedByFailedLoad, true));
        assert_eq!(blocked.failure.unwrap().model, "b");
        update.target = Some(model("b", 1, 0, 0));
        assert_eq!(derive(&update).transition, Transition::InProgress, "it is tried again");
    }

    #[test]
    fn a_target_that_is_the_active_model_is_no_change() {
        let status = derive(&seen(Some(model("a", 0, 1, 0)), Some(model("a", 0, 1, 0))));
        assert_eq!((status.target, status.transition, status.total_copies), (None, Transition::UpToDate, 1));
    }

    #[test]
    fn without_a_runtime_the_status_says_which_is_missing() {
        for (class, state, reason, text) in [
            (
                Class::Waiting,
                State::Loading,
                Reason::RuntimeUnhealthy,
                "Waiting for supporting runtime Pod to become available",
            ),
            (
                Class::NotRecognized,
                State::FailedToLoad,
                Reason::RuntimeNotRecognized,
                "Specified runtime name not recognized",
            ),
            (
                Class::NotSupported,
                State::FailedToLoad,
                Reason::NoSupportingRuntime,
                "No ServingRuntime supports specified model type and/or protocol",
            ),
        ] {
            let status = derive(&seen(Some(ModelSeen { class, ..model("a", 0, 0, 0) }), None));
            let failure = status.failure.clone().unwrap();
            assert_eq!((status.active, failure.reason, failure.message.as_str()), (state, reason, text));
            assert!(!status.available);
        }
    }

    #[test]
    fn an_invalid_spec_says_so_and_leaves_what_answers_alone() {
        let status = derive(&Seen { invalid: Some("both forms".into()), ..seen(Some(model("a", 0, 1, 0)), None) });
        assert_eq!(
            (status.transition, status.active, status.available),
            (Transition::InvalidSpec, State::Loaded, true)
        );
        assert_eq!(status.failure.unwrap().reason, Reason::InvalidPredictorSpec);
    }
}
