//! The bounded pool of threads for work that blocks.
//!
//! A permit is a thread, a place is room to wait for one. A caller that goes away while it waits gives its place back at
//! once, with its input; work that has begun is finished, as nothing can interrupt it.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use tokio::sync::Semaphore;

use crate::error::{Error, Result};

/// A bounded pool with a bounded queue, first come, first served.
#[derive(Debug)]
pub(crate) struct Pool {
    threads: Arc<Semaphore>,
    places: Semaphore,
    queue: usize,
}

// === impl Pool ===

impl Pool {
    /// A pool of `threads` threads for which at most `queue` calls wait.
    pub(crate) fn new(threads: usize, queue: usize) -> Self {
        Self { threads: Arc::new(Semaphore::new(threads)), places: Semaphore::new(queue), queue }
    }

    /// Runs `work` on a thread of the pool.
    pub(crate) async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
        let thread = match Arc::clone(&self.threads).try_acquire_owned() {
            Ok(thread) => thread,
            Err(_) => {
                let _place = self.places.try_acquire().map_err(|_| Error::Busy(self.queue))?;
                Arc::clone(&self.threads).acquire_owned().await.expect("the semaphore is never closed")
            }
        };
        blocking(move || {
            let _thread = thread;
            work()
        })
        .await
    }
}

/// Runs work that blocks on a thread that may. A panic becomes [`Error::Internal`]. The work is finished even if the
/// caller goes away.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let caught = move || {
        catch_unwind(AssertUnwindSafe(work))
            .unwrap_or_else(|panic| Err(Error::Internal(format!("panic: {}", text(panic.as_ref())))))
    };
    tokio::task::spawn_blocking(caught)
        .await
        .unwrap_or_else(|_| Err(Error::Internal("the server is stopping".to_owned())))
}

fn text(panic: &(dyn Any + Send)) -> &str {
    let owned = panic.downcast_ref::<String>().map(String::as_str);
    owned.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no text")
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Work that says that it began, then blocks until it is told to go on.
    fn held() -> (impl FnOnce() -> Result<u32> + Send, mpsc::Receiver<()>, mpsc::Sender<()>) {
        let (began, beginning) = mpsc::channel();
        let (go, gate) = mpsc::channel::<()>();
        let work = move || {
            began.send(()).expect("the test waits for it");
            gate.recv().expect("the test lets it go");
            Ok(1)
        };
        (work, beginning, go)
    }

    async fn begun(beginning: mpsc::Receiver<()>) {
        tokio::task::spawn_blocking(move || beginning.recv()).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn work_beyond_threads_and_queue_is_refused_and_the_rest_is_done() {
        let pool = Arc::new(Pool::new(1, 1));
        let (work, beginning, go) = held();
        let first = tokio::spawn({
            let pool = Arc::clone(&pool);
            async move { pool.run(work).await }
        });
        begun(beginning).await;
        let mut second = Box::pin(pool.run(|| Ok(2)));
        assert!(poll_once(&mut second).await.is_none(), "it waits for the thread");
        assert!(matches!(pool.run(|| Ok(3)).await, Err(Error::Busy(1))));
        go.send(()).unwrap();
        assert_eq!(first.await.unwrap().unwrap(), 1);
        assert_eq!(second.await.unwrap(), 2);
    }

    #[tokio::test]
    async fn a_caller_that_goes_away_gives_its_place_back_and_its_work_is_not_done() {
        let pool = Arc::new(Pool::new(1, 1));
        let (work, beginning, go) = held();
        let first = tokio::spawn({
            let pool = Arc::clone(&pool);
            async move { pool.run(work).await }
        });
        begun(beginning).await;
        let (ran, has_run) = mpsc::channel();
        let mut given_up = Box::pin(pool.run(move || Ok(ran.send(()).is_ok())));
        assert!(poll_once(&mut given_up).await.is_none());
        drop(given_up);
        assert!(has_run.try_recv().is_err_and(|error| error == mpsc::TryRecvError::Disconnected), "its work is gone");
        let mut third = Box::pin(pool.run(|| Ok(3)));
        assert!(poll_once(&mut third).await.is_none(), "the place is free again");
        go.send(()).unwrap();
        assert_eq!(first.await.unwrap().unwrap(), 1);
        assert_eq!(third.await.unwrap(), 3);
    }

    #[tokio::test]
    async fn a_panic_is_an_error_and_its_thread_is_not_lost() {
        let pool = Pool::new(1, 1);
        for _ in 0..3 {
            let error = pool.run::<()>(|| panic!("no such axis")).await.unwrap_err();
            assert_eq!(error.to_string(), "panic: no such axis");
        }
        assert_eq!(pool.run(|| Ok(4)).await.unwrap(), 4);
    }

    /// Polls once.
    async fn poll_once<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
        tokio::select! {
            biased;
            output = future => Some(output),
            () = std::future::ready(()) => None,
        }
    }
}
