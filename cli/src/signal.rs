//! The end, as asked for from outside: the first signal asks for an orderly one, the second for one at once.

use anyhow::{Context, Result, bail};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGINT and SIGTERM.
pub(crate) struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

// === impl Stop ===

impl Stop {
    /// Listens from now on.
    pub(crate) fn listen() -> Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    /// Waits for the next one.
    pub(crate) async fn asked(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }

    /// Lets `end` come to its end, unless a further signal cuts it short: that is an error.
    pub(crate) async fn orderly(&mut self, end: impl Future<Output = ()>) -> Result<()> {
        tracing::info!("asked to stop");
        tokio::select! {
            () = end => {
                tracing::info!("stopped");
                Ok(())
            }
            () = self.asked() => bail!("a second signal ended it at once"),
        }
    }
}
