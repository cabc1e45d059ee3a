//! The open `EnsureLoaded` calls, and how far their loads are.

use std::collections::HashMap;

use modelring_placement::{
    id::{BootId, ModelId},
    pod::{Told, WaiterId},
};
use modelring_proto::v1::{LoadEvent, Progress, load_event::Event};
use tokio::sync::mpsc::Sender;

use crate::wire;

/// Events of one call that its caller may leave unread. The last of them is never taken by a mere progress.
pub(crate) const UNREAD: usize = 8;

/// All open calls.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    open: HashMap<WaiterId, Waiter>,
    stages: HashMap<ModelId, Progress>,
}

#[derive(Debug)]
struct Waiter {
    model: ModelId,
    events: Sender<LoadEvent>,
}

// === impl Waiters ===

impl Waiters {
    pub(super) fn add(&mut self, waiter: WaiterId, model: ModelId, events: Sender<LoadEvent>) {
        self.open.insert(waiter, Waiter { model, events });
    }

    /// Open calls.
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    /// Forgets a call; false if it had ended.
    pub(super) fn remove(&mut self, waiter: WaiterId) -> bool {
        self.open.remove(&waiter).is_some()
    }

    /// Tells one call. False where its caller does not read: then it is no longer there, and the pod must know.
    pub(super) fn tell(&mut self, id: WaiterId, told: Told, boot: BootId) -> bool {
        let Some(waiter) = self.open.get(&id) else { return true };
        let ends = !matches!(told, Told::Accepted { .. });
        let sent = waiter.events.try_send(wire::load_event(told, boot)).is_ok();
        if sent
            && !ends
            && let Some(stage) = self.stages.get(&waiter.model)
        {
            waiter.progress(stage);
        }
        if ends || !sent {
            self.open.remove(&id);
        }
        sent || ends
    }

    /// A load is this far: its callers are told, and those who join it.
    pub(super) fn progress(&mut self, model: &ModelId, stage: &str, bytes: u64, of_bytes: u64) {
        let stage = Progress { stage: stage.to_owned(), bytes, of_bytes };
        for waiter in self.open.values().filter(|waiter| waiter.model == *model) {
            waiter.progress(&stage);
        }
        self.stages.insert(model.clone(), stage);
    }

    /// A load is over, or back in the queue.
    pub(super) fn no_progress(&mut self, model: &ModelId) {
        self.stages.remove(model);
    }
}

impl Waiter {
    fn progress(&self, stage: &Progress) {
        // Lost where the caller reads slowly: the next one says more.
        if self.events.capacity() > UNREAD / 2 {
            let _ = self.events.try_send(LoadEvent { event: Some(Event::Progress(stage.clone())) });
        }
    }
}
