//! Between the words of the decisions and those of the wire, at the agent's end.

use std::time::Duration;

use modelring_placement::{
    id::{BootId, ModelRef},
    pod::{Change, CopyState, Hints, LedgerState, Refusal, Told, Touch, Why},
    time::Time,
};
use modelring_proto::v1;

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

pub(crate) fn reference(model: v1::ModelRef) -> ModelRef {
    let known = |number: u64| (number > 0).then_some(number);
    ModelRef {
        id: model.id.into(),
        model_type: model.r#type,
        path: model.path,
        key: model.key,
        size_hint: known(model.size_hint),
        load_timeout: known(model.load_timeout_millis).map(Duration::from_millis),
    }
}

pub(crate) fn why(request: &v1::LoadRequest) -> Option<Why> {
    match request.why() {
        v1::load_request::Why::Waiter => Some(Why::Waiter),
        v1::load_request::Why::Keep => Some(Why::Keep),
        v1::load_request::Why::Scale => Some(Why::Scale),
        v1::load_request::Why::Ahead => Some(Why::Ahead),
        v1::load_request::Why::Unspecified => None,
    }
}

pub(crate) fn touches(touches: v1::Touches, now: Time) -> Vec<Touch> {
    let touch = |touch: v1::Touch| Touch {
        model: touch.model.into(),
        last_used: now - Duration::from_millis(touch.age_millis),
        count: touch.count,
        in_flight: touch.in_flight,
    };
    touches.touches.into_iter().map(touch).collect()
}

pub(crate) fn hints(hints: v1::Hints) -> Hints {
    let ids = |ids: Vec<String>| ids.into_iter().map(Into::into).collect();
    Hints { epoch: hints.epoch, keep: ids(hints.keep), surplus: ids(hints.surplus), gone: ids(hints.gone) }
}

pub(crate) fn change(change: &Change, now: Time) -> v1::AgentEvent {
    use v1::copy_state::{Drain, State};
    let mut copy = v1::CopyState { model: change.model.to_string(), ..Default::default() };
    let state = match &change.state {
        CopyState::Queued => State::Queued,
        CopyState::Loading { bytes } => {
            copy.bytes = *bytes;
            State::Loading
        }
        CopyState::Ready { bytes, concurrency_limit } => {
            (copy.bytes, copy.concurrency_limit) = (*bytes, *concurrency_limit);
            State::Ready
        }
        CopyState::Draining { bytes, evict } => {
            copy.bytes = *bytes;
            copy.set_drain(if *evict { Drain::Evict } else { Drain::Leave });
            State::Draining
        }
        CopyState::Failed { error, until } => {
            (copy.code, copy.text) = (error.code, error.text.clone());
            copy.retry_after_millis = millis(until.since(now));
            State::Failed
        }
        CopyState::Gone => State::Gone,
    };
    copy.set_state(state);
    v1::AgentEvent { seq: change.seq, event: Some(v1::agent_event::Event::Copy(copy)) }
}

pub(crate) fn ledger(ledger: &LedgerState) -> v1::LedgerState {
    let number = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    v1::LedgerState {
        capacity: ledger.capacity,
        loaded: ledger.loaded,
        reserved: ledger.reserved,
        unloading: ledger.unloading,
        overrun: ledger.overrun,
        queue: number(ledger.queue),
        hung: number(ledger.hung),
        next_victim_age_millis: ledger.next_victim_age.map(millis),
    }
}

pub(crate) fn load_event(told: Told, boot: BootId) -> v1::LoadEvent {
    use v1::{load_event::Event, refused::Reason};
    let event = match told {
        Told::Accepted { place } => Event::Accepted(v1::Accepted { place: u32::try_from(place).unwrap_or(u32::MAX) }),
        Told::Loaded { seq } => Event::Loaded(v1::Loaded { boot_id: boot, seq }),
        Told::Failed(error) => Event::Failed(v1::Failed { code: error.code, text: error.text }),
        Told::Refused { refusal, retry_after, text } => {
            let reason = match refusal {
                Refusal::Full => Reason::Full,
                Refusal::Churn => Reason::Churn,
                Refusal::Pinned => Reason::Pinned,
                Refusal::Failing => Reason::Failing,
                Refusal::Leaving => Reason::Leaving,
                Refusal::Disk => Reason::Disk,
            };
            let retry_after_millis = retry_after.map_or(0, millis);
            Event::Refused(v1::Refused { reason: reason.into(), retry_after_millis, text })
        }
    };
    v1::LoadEvent { event: Some(event) }
}
