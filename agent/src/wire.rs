//! Between the words of the decisions and those of the wire.

use std::time::Duration;

use modelring_placement::{
    id::{BootId, ModelRef, Seq},
    pod::{Change, CopyState, Hints, LedgerState, Refusal, Told, Touch, Why},
    time::Time,
};
use modelring_proto::v1;
use tonic::Status;

use crate::server::ServerInfo;

/// Milliseconds, rounded up: a time that is not over never reads as 0.
fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

/// Bytes and seconds that are 0 on the wire are not known.
fn known(number: u64) -> Option<u64> {
    (number > 0).then_some(number)
}

pub(crate) fn model(model: v1::ModelRef) -> ModelRef {
    ModelRef {
        id: model.id.into(),
        model_type: model.r#type,
        path: model.path,
        key: model.key,
        size_hint: known(model.size_hint),
        load_timeout: known(model.load_timeout_millis).map(Duration::from_millis),
    }
}

pub(crate) fn why(why: i32) -> Result<Why, Status> {
    match v1::load_request::Why::try_from(why) {
        Ok(v1::load_request::Why::Waiter) => Ok(Why::Waiter),
        Ok(v1::load_request::Why::Keep) => Ok(Why::Keep),
        Ok(v1::load_request::Why::Scale) => Ok(Why::Scale),
        Ok(v1::load_request::Why::Ahead) => Ok(Why::Ahead),
        Ok(v1::load_request::Why::Unspecified) | Err(_) => {
            Err(Status::invalid_argument(format!("LoadRequest has why {why}, which says nothing")))
        }
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

/// The parts of `Hello` that depend on the model server.
pub(crate) fn hello(hello: v1::Hello, info: &ServerInfo) -> v1::Hello {
    let methods = info.methods.iter().map(|method| v1::Method {
        name: method.name.clone(),
        request_path: method.request_path.clone(),
        response_path: method.response_path.clone(),
    });
    v1::Hello {
        methods: methods.collect(),
        allow_any_method: info.allow_any_method,
        load_timeout_millis: millis(info.limits.load_timeout),
        loading_concurrency: u32::try_from(info.limits.loading_concurrency).unwrap_or(u32::MAX),
        ..hello
    }
}

pub(crate) fn pong(seq: Seq, n: u64) -> v1::AgentEvent {
    v1::AgentEvent { seq, event: Some(v1::agent_event::Event::Pong(v1::Pong { n })) }
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
            copy.bytes = *bytes;
            copy.concurrency_limit = *concurrency_limit;
            State::Ready
        }
        CopyState::Draining { bytes, evict } => {
            copy.bytes = *bytes;
            copy.set_drain(if *evict { Drain::Evict } else { Drain::Leave });
            State::Draining
        }
        CopyState::Failed { error, until } => {
            copy.code = error.code;
            copy.text = error.text.clone();
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
        Told::Refused { refusal, retry_after, text } => Event::Refused(v1::Refused {
            reason: match refusal {
                Refusal::Full => Reason::Full,
                Refusal::Churn => Reason::Churn,
                Refusal::Pinned => Reason::Pinned,
                Refusal::Failing => Reason::Failing,
                Refusal::Leaving => Reason::Leaving,
                Refusal::Disk => Reason::Disk,
            }
            .into(),
            retry_after_millis: retry_after.map_or(0, millis),
            text,
        }),
    };
    v1::LoadEvent { event: Some(event) }
}
