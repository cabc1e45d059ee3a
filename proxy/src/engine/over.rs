//! The end of a thread's calls: its grace is over, and whoever is still on is told so.

use std::{cell::Cell, future::Future, pin::pin};

use tokio::sync::Notify;

/// Whether the calls of a thread are to end. One thread's own.
#[derive(Debug, Default)]
pub(super) struct Over {
    is_over: Cell<bool>,
    told: Notify,
}

// === impl Over ===

impl Over {
    /// Ends the calls that are on, and those that come.
    pub(super) fn end(&self) {
        self.is_over.set(true);
        self.told.notify_waiters();
    }

    /// What `call` comes to, or `None` if the end comes first; `call` is dropped then.
    pub(super) async fn before<T>(&self, call: impl Future<Output = T>) -> Option<T> {
        // Before the look, so that an end after it is heard.
        let mut told = pin!(self.told.notified());
        told.as_mut().enable();
        if self.is_over.get() {
            return None;
        }
        tokio::select! {
            biased;
            done = call => Some(done),
            () = told => None,
        }
    }
}
