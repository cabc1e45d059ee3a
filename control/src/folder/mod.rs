//! The folder source: the manifests of a folder, watched. A change is seen within a second, by the watch or, where that
//! is silent (network mounts), by the slow look at every file.

mod field;
mod manifest;
mod memory;
mod removals;
mod scan;
mod state;

use std::{path::PathBuf, pin::Pin, sync::Arc, time::Duration};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, mpsc},
    time::{Instant, sleep, timeout, timeout_at},
};

pub use memory::StateFolder;
use removals::Removals;
use scan::Scanner;

use crate::{
    Error,
    source::{ActiveMemory, Desired, Source},
};

/// Changes are taken together: one save is often several events.
const QUIET: Duration = Duration::from_millis(100);
/// A change waits no longer than this for the others.
const LONGEST_WAIT: Duration = Duration::from_millis(500);
/// Between two looks at every file.
const SLOW_LOOK: Duration = Duration::from_secs(5);

/// The manifests of a folder.
#[derive(Debug)]
pub struct FolderSource {
    dir: PathBuf,
    namespace: String,
    state: StateFolder,
}

// === impl FolderSource ===

impl FolderSource {
    /// The manifests of `dir`, which stands for `namespace`.
    pub fn open(dir: PathBuf, namespace: String) -> Result<Self, Error> {
        std::fs::read_dir(&dir).map_err(|source| Error::Folder { path: dir.clone(), source })?;
        let state = StateFolder::open(&dir)?;
        Ok(Self { dir, namespace, state })
    }

    /// The folder of control's own files.
    #[must_use]
    pub fn state(&self) -> StateFolder {
        self.state.clone()
    }

    async fn watch(self, states: mpsc::Sender<Desired>) -> Result<(), Error> {
        let changed = Arc::new(Notify::new());
        let mut watcher = None;
        let removals = Arc::new(Mutex::new(Removals::default()));
        let mut scanner = Scanner::new(self.dir.clone(), &self.namespace, self.state.clone(), removals.clone());
        loop {
            // The watch is set before the files are looked at, so that no change falls between.
            if scanner.folder_changed() || watcher.is_none() {
                watcher = self.watcher(changed.clone(), removals.clone());
            }
            let seen = tokio::task::spawn_blocking(move || {
                let desired = scanner.scan();
                (scanner, desired)
            });
            let (back, desired) = seen.await.map_err(|_| Error::Stopped("the look at the folder"))?;
            scanner = back;
            if let Some(desired) = desired
                && states.send(desired).await.is_err()
            {
                return Ok(());
            }
            tokio::select! {
                () = states.closed() => return Ok(()),
                _ = timeout(SLOW_LOOK, changed.notified()) => {}
            }
            let end = Instant::now() + LONGEST_WAIT;
            while timeout_at(end.min(Instant::now() + QUIET), changed.notified()).await.is_ok() {
                if Instant::now() >= end {
                    break;
                }
            }
            if watcher.is_none() {
                sleep(QUIET).await;
            }
        }
    }

    /// Watches the folder. Where that cannot be, the slow look is what is left.
    fn watcher(&self, changed: Arc<Notify>, removals: Arc<Mutex<Removals>>) -> Option<RecommendedWatcher> {
        let notice = move |event: notify::Result<notify::Event>| {
            if let Some(event) = event.ok().filter(|event| !event.kind.is_access()) {
                removals.lock().note(&event);
                changed.notify_one();
            }
        };
        let watch = || -> notify::Result<RecommendedWatcher> {
            let mut watcher = notify::recommended_watcher(notice)?;
            watcher.watch(&self.dir, RecursiveMode::NonRecursive)?;
            Ok(watcher)
        };
        watch()
            .inspect_err(|error| {
                tracing::warn!(folder = %self.dir.display(), %error, "the folder cannot be watched, changes are seen every 5 s");
            })
            .ok()
    }
}

impl Source for FolderSource {
    fn run(self: Box<Self>, states: mpsc::Sender<Desired>) -> Pin<Box<dyn Future<Output = Result<(), Error>> + Send>> {
        Box::pin(self.watch(states))
    }

    fn memory(&self) -> Arc<dyn ActiveMemory> {
        Arc::new(self.state.clone())
    }
}
