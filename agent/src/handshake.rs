//! Waiting for a model server, whatever its kind: looks at it, again and again, until one look finds it ready and empty.

use std::{sync::Arc, time::Duration};

use modelring_placement::pod::LoadError;
use tokio::time::{Instant, sleep, timeout_at};
use tonic::{Code, transport::Channel};

use crate::{
    connection::{self, Address, Held},
    failure::passing,
    server::Session,
};

/// How long a server may take until it is ready.
const PATIENCE: Duration = Duration::from_secs(180);
/// Time between looks at a server that is not ready; the first ones come faster.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Time before the second look.
const LOOK_FIRST: Duration = Duration::from_millis(50);
/// How long a proxy may go on believing in a copy that it has not been told is gone.
const BELIEF: Duration = Duration::from_secs(3);
/// Smallest size of a model, and unit of sizes in ModelMesh.
pub(crate) const UNIT: u64 = 8192;
/// Above this a server of any default size has room enough.
const ROOM: u64 = 512 << 20;

/// Why a look at a server did not find it ready.
pub(crate) enum NotReady {
    /// It is not there: nothing listens.
    Absent(String),
    /// It is there, and not ready.
    Yet(String),
    /// It will never be ready.
    Ever(LoadError),
}

/// How a kind of server is looked at.
pub(crate) trait Look: Send + Sync {
    /// One try to find a process of the server that is ready, and to make it empty. It is over at `deadline` at the
    /// latest and unloads nothing before `purge_at`.
    fn look(
        &self,
        deadline: Instant,
        purge_at: Instant,
    ) -> impl Future<Output = Result<Arc<dyn Session>, NotReady>> + Send;
}

/// Looks until the server is ready, at most 3 minutes.
///
/// # Errors
///
/// Passing where the time is over, with what the last look saw; permanent where the server will never be ready.
pub(crate) async fn wait(server: &impl Look, believed: bool) -> Result<Arc<dyn Session>, LoadError> {
    let began = Instant::now();
    let deadline = began + PATIENCE;
    let mut purge_at = if believed { began + BELIEF } else { began };
    let mut pause = LOOK_FIRST;
    loop {
        let last = match server.look(deadline, purge_at).await {
            Ok(found) => return Ok(found),
            Err(NotReady::Ever(error)) => return Err(error),
            Err(NotReady::Absent(text)) => {
                // The process that anyone believes in is surely gone, and all that it held.
                purge_at = began;
                text
            }
            Err(NotReady::Yet(text)) => text,
        };
        if Instant::now() + pause >= deadline {
            let text = format!("not ready after {} s: {last}", PATIENCE.as_secs());
            return Err(passing(Code::DeadlineExceeded, text));
        }
        tracing::debug!(reason = last, "model server is not ready");
        sleep(pause).await;
        pause = (pause * 2).min(LOOK_EVERY);
    }
}

/// The first step of a look.
pub(crate) async fn connect(address: &Address, deadline: Instant) -> Result<(Channel, Held), NotReady> {
    let connecting = timeout_at(deadline, connection::connect(address)).await;
    connecting.map_err(|_| NotReady::Yet("connecting takes too long".to_owned()))?.map_err(NotReady::Absent)
}

/// The least capacity that a server with models of this default size makes sense with, as ModelMesh asks for.
pub(crate) fn least_capacity(default_size: u64) -> u64 {
    default_size.saturating_mul(2).max(ROOM.min(default_size.saturating_mul(10)))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// A server that is there and never ready.
    #[derive(Default)]
    struct Never(AtomicU32);

    impl Look for Never {
        async fn look(&self, _: Instant, _: Instant) -> Result<Arc<dyn Session>, NotReady> {
            let looks = self.0.fetch_add(1, Ordering::Relaxed);
            Err(if looks.is_multiple_of(2) {
                NotReady::Yet("it says STARTING".to_owned())
            } else {
                NotReady::Absent("UNAVAILABLE".to_owned())
            })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_is_not_ready_is_looked_at_every_two_seconds_for_three_minutes() {
        let (server, began) = (Never::default(), Instant::now());
        let waiting = wait(&server, false);
        let counting = async {
            sleep(Duration::from_secs(100)).await;
            let then = server.0.load(Ordering::Relaxed);
            sleep(Duration::from_secs(20)).await;
            server.0.load(Ordering::Relaxed) - then
        };
        let (ended, in_twenty_seconds) = tokio::join!(waiting, counting);
        let error = ended.err().expect("it was never ready");
        assert_eq!(in_twenty_seconds, 10);
        assert!(began.elapsed() > Duration::from_secs(177) && began.elapsed() <= Duration::from_secs(180));
        assert!(error.text.starts_with("not ready after 180 s: "), "{}", error.text);
    }
}
