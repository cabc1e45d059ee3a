//! Messages of agents, as the decisions read them.

use std::time::Duration;

use modelring_placement::{
    id::ModelId,
    pod::{CopyState, LedgerState, LoadError},
    time::Time,
    view::ViewEvent,
};
use modelring_proto::v1::{self, agent_event::Event, copy_state};

/// gRPC codes of failures that pass by themselves.
const PASSING: [i32; 5] = [
    tonic::Code::Cancelled as i32,
    tonic::Code::DeadlineExceeded as i32,
    tonic::Code::ResourceExhausted as i32,
    tonic::Code::Aborted as i32,
    tonic::Code::Unavailable as i32,
];

/// What an agent's event says.
pub(super) enum Said {
    /// Something that changes the view.
    View(ViewEvent),
    /// Who it is.
    Hello(Box<v1::Hello>),
    /// Its memory.
    Ledger(LedgerState),
    /// Nothing that is known here.
    Unknown,
}

pub(super) fn said(now: Time, event: v1::AgentEvent) -> Said {
    let seq = event.seq;
    match event.event {
        Some(Event::Hello(hello)) => Said::Hello(Box::new(hello)),
        Some(Event::Copy(copy)) => match copy_state(now, &copy) {
            Some(state) => Said::View(ViewEvent::Copy { seq, model: ModelId::from(copy.model), state }),
            None => Said::Unknown,
        },
        Some(Event::Ledger(ledger)) => Said::Ledger(LedgerState {
            capacity: ledger.capacity,
            loaded: ledger.loaded,
            reserved: ledger.reserved,
            unloading: ledger.unloading,
            overrun: ledger.overrun,
            queue: ledger.queue as usize,
            hung: ledger.hung as usize,
            next_victim_age: ledger.next_victim_age_millis.map(Duration::from_millis),
        }),
        Some(Event::SnapshotEnd(_)) => Said::View(ViewEvent::SnapshotEnd { seq }),
        Some(Event::Pong(pong)) => Said::View(ViewEvent::Pong(pong.n)),
        Some(Event::Leaving(_)) => Said::View(ViewEvent::Leaving),
        None => Said::Unknown,
    }
}

fn copy_state(now: Time, copy: &v1::CopyState) -> Option<CopyState> {
    let bytes = copy.bytes;
    match copy_state::State::try_from(copy.state).ok()? {
        copy_state::State::Unspecified => None,
        copy_state::State::Queued => Some(CopyState::Queued),
        copy_state::State::Loading => Some(CopyState::Loading { bytes }),
        copy_state::State::Ready => Some(CopyState::Ready { bytes, concurrency_limit: copy.concurrency_limit }),
        copy_state::State::Draining => {
            Some(CopyState::Draining { bytes, evict: copy.drain == copy_state::Drain::Evict as i32 })
        }
        copy_state::State::Failed => Some(CopyState::Failed {
            error: load_error(copy.code, copy.text.clone()),
            until: now + Duration::from_millis(copy.retry_after_millis),
        }),
        copy_state::State::Gone => Some(CopyState::Gone),
    }
}

/// A failure of a load; whether it passes is known by its code.
pub(super) fn load_error(code: u32, text: String) -> LoadError {
    let passing = i32::try_from(code).is_ok_and(|code| PASSING.contains(&code));
    LoadError { code, text, passing }
}
