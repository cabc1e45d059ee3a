//! The search for a copy of one model: shows [`Seek`] what the view shows, and does what it says.
//!
//! It runs once per model on the background threads, whatever the number of callers, and looks at the newest table: an
//! instance that comes while callers are held is asked too.

use std::{pin::Pin, sync::Arc, time::Duration};

use futures_util::{Stream, StreamExt};
use modelring_placement::{
    id::{InstanceId, ModelId},
    pod::{LoadError, Refusal},
    seek::{Heard, Step},
};
use modelring_proto::v1::{self, agent_client::AgentClient, load_event::Event, refused::Reason};

use super::Call;
use crate::{
    fleet::{Fleet, Load, Phase, Waiter},
    table::{Table, reference},
};

/// An open `EnsureLoaded`.
type Open = Pin<Box<dyn Stream<Item = Heard> + Send>>;

/// Joins the search for the model of a call, or begins it.
pub(super) fn join(fleet: &Arc<Fleet>, call: &Call) -> Waiter {
    fleet.loads.join(&call.model, |load| {
        let task = run(fleet.clone(), load, call.table.clone());
        fleet.runtime.spawn(task).abort_handle()
    })
}

async fn run(fleet: Arc<Fleet>, load: Arc<Load>, first: Arc<Table>) {
    let id = load.model.id().clone();
    let mut open: Option<(InstanceId, Open)> = None;
    loop {
        let changed = load.changed.notified();
        let now = fleet.clock.now();
        let newest = fleet.table().filter(|table| table.model(id.as_str()).is_some()).unwrap_or_else(|| first.clone());
        let model = newest.model(id.as_str()).unwrap_or(&load.model);
        let sights = fleet.sights(now, model, &newest);
        let (step, asked, accepted) = {
            let mut seek = load.seek.lock();
            let step = seek.next(now, &sights.candidates, &sights.elsewhere);
            (step, seek.asked().cloned(), seek.accepted())
        };
        open = open.filter(|(instance, _)| asked.as_ref() == Some(instance));
        match step {
            Step::Use => return fleet.loads.finish(&load, Phase::Use),
            Step::GiveUp(ending) => return fleet.loads.finish(&load, Phase::Ended(ending)),
            Step::Ask(instance) => {
                tracing::debug!(model = %id, %instance, "asking for a load");
                let request = v1::LoadRequest {
                    model: Some(reference(&model.reference)),
                    why: v1::load_request::Why::Waiter.into(),
                    replaces: String::new(),
                    table: Some(newest.version.to_proto()),
                };
                open = Some((instance.clone(), ensure_loaded(fleet.clone(), instance, id.clone(), request)));
            }
            Step::Wait { until } => {
                let load_timeout = asked.filter(|_| accepted).map(|at| fleet.load_timeout(&at, &model.reference));
                load.seeking(load_timeout);
                tokio::select! {
                    () = changed => {}
                    () = tokio::time::sleep(fleet.clock.until(until)) => {}
                    heard = hear(&mut open) => {
                        if let Some((instance, _)) = &open {
                            load.seek.lock().heard(fleet.clock.now(), instance, heard);
                        }
                    }
                }
            }
        }
    }
}

/// What the open call says next; one that has ended says `Lost`.
async fn hear(open: &mut Option<(InstanceId, Open)>) -> Heard {
    match open {
        Some((_, events)) => events.next().await.unwrap_or(Heard::Lost),
        None => std::future::pending().await,
    }
}

/// Asks an agent. What it says of a loaded copy is told to the view before it is told to the search.
fn ensure_loaded(fleet: Arc<Fleet>, instance: InstanceId, model: ModelId, request: v1::LoadRequest) -> Open {
    Box::pin(async_stream::stream! {
        let Some(peer) = fleet.peer(instance.as_str()) else { return };
        let Some(channel) = peer.channel() else { return };
        let mut events = match AgentClient::new(channel).ensure_loaded(request).await {
            Ok(events) => events.into_inner(),
            Err(status) => {
                tracing::debug!(%model, %instance, code = %status.code(), text = status.message(), "load was not taken");
                return;
            }
        };
        while let Ok(Some(event)) = events.message().await {
            match event.event {
                Some(Event::Accepted(_)) => yield Heard::Accepted,
                Some(Event::Loaded(loaded)) => {
                    peer.loaded(loaded.boot_id, loaded.seq, &model);
                    yield Heard::Loaded;
                }
                Some(Event::Failed(failed)) => {
                    yield Heard::Failed(LoadError { code: failed.code, text: failed.text, passing: false });
                }
                Some(Event::Refused(refused)) => yield refusal(refused),
                Some(Event::Progress(_)) | None => {}
            }
        }
    })
}

fn refusal(refused: v1::Refused) -> Heard {
    let refusal = match refused.reason() {
        Reason::Unspecified | Reason::Full => Refusal::Full,
        Reason::Churn => Refusal::Churn,
        Reason::Pinned => Refusal::Pinned,
        Reason::Failing => Refusal::Failing,
        Reason::Leaving => Refusal::Leaving,
        Reason::Disk => Refusal::Disk,
    };
    let after = refused.retry_after_millis;
    Heard::Refused { refusal, retry_after: (after > 0).then(|| Duration::from_millis(after)), text: refused.text }
}
