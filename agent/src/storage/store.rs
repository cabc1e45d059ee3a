//! The model directory, and the step that fills it: `<model_dir>/<model id>/<last part of the path>`.
//!
//! Files are brought aside and moved to their place when they are whole, so whatever lies in a model's folder is whole,
//! and a pull that failed or was given up leaves nothing. After an unload they stay for as long as their room is not needed
//! (`tier`), and a load of the same reference finds them there, after a restart of the agent too.

mod disk;
mod kept;
mod plan;

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use modelring_placement::{
    id::{ModelId, ModelRef},
    pod::LoadError,
};
use parking_lot::Mutex;
use tokio::{sync::Semaphore, time::timeout};
use tonic::Code;

use super::{
    Aside, OnProgress, Storage,
    aside::remove,
    download::Download,
    entry::{Entry, is_plain_name},
    local::Local,
    record::{self, Records},
    s3::{Clients, S3},
    tier::{NoRoom, Tier},
};
use crate::{
    failure::{file, passing, permanent, prefixed},
    identity::OWN_DIR,
};
use disk::{bytes_on_disk, no_room, volume};

/// Said before each failure of a storage.
const PULL_FAILED: &str = "Failed to pull model from storage due to error: ";
/// Requests to object stores that are open at once, of all pulls: bounds their memory.
const REQUESTS: usize = 16;
/// How long a storage may take to say whether the files that are there are still the model's. A storage that is away does
/// not keep a model from serving that is on disk.
const STILL_THE_SAME: Duration = Duration::from_secs(2);
/// Part of the volume that files take at most where nothing is set, percent: above it a kubelet would evict the pod.
const SHARE: u64 = 80;

/// Where the store finds things, and how much it may hold.
#[derive(Clone, Debug, Default)]
pub(crate) struct Places {
    /// Folder of storage entries.
    pub(crate) config_dir: Option<PathBuf>,
    /// Root of `local` entries.
    pub(crate) local_root: Option<PathBuf>,
    /// Most bytes of all files; `None` = 80 % of the volume.
    pub(crate) disk_limit: Option<u64>,
}

/// The model directory and where models come from.
#[derive(Debug)]
pub(crate) struct Store {
    model_dir: PathBuf,
    places: Places,
    pulls: AtomicU64,
    tier: Arc<Mutex<Tier>>,
    records: Records,
    clients: Clients,
    permits: Arc<Semaphore>,
    /// Held by whoever puts files to a model's folder or removes them: work that nobody waits for any more does not meddle.
    settling: Mutex<()>,
}

/// Files that are used, and stay for as long as this value lives.
#[derive(Debug)]
pub(crate) struct Pin {
    tier: Arc<Mutex<Tier>>,
    model: ModelId,
}

/// Files of a model as the model server is told of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Files {
    /// Absolute path of the model.
    pub(crate) path: PathBuf,
    /// Model key for the server.
    pub(crate) key: String,
    /// Bytes on disk, or listed in the storage before the pull.
    pub(crate) bytes: u64,
    /// They were on disk already.
    pub(crate) kept: bool,
}

// === impl Store ===

impl Store {
    /// The store of a model directory that this agent has taken. What earlier pulls left unfinished is removed.
    pub(crate) fn open(model_dir: &Path, places: Places) -> io::Result<Self> {
        let model_dir = model_dir.canonicalize()?;
        let own = model_dir.join(OWN_DIR);
        let limit = match places.disk_limit {
            Some(limit) => limit,
            None => volume(&model_dir)?.size / 100 * SHARE,
        };
        let store = Self {
            records: Records::open(own.join("kept"))?,
            model_dir,
            places,
            pulls: AtomicU64::new(0),
            tier: Arc::new(Mutex::new(Tier::new(limit))),
            clients: Clients::default(),
            permits: Arc::new(Semaphore::new(REQUESTS)),
            settling: Mutex::new(()),
        };
        remove(&store.aside())?;
        fs::create_dir_all(store.aside())?;
        store.take_up_kept()?;
        Ok(store)
    }

    /// Looks up what a pull would bring. `path` and `key` are what they will be after it. Files that are there and are not
    /// the model's any more are forgotten.
    pub(crate) async fn look_up(self: &Arc<Self>, model: &ModelRef) -> Result<Files, LoadError> {
        let plan = self.plan(model).await?;
        let dir = self.dir(&model.id);
        let kept = self.kept(model, &plan);
        let finding = plan.find();
        let found = match &kept {
            None => finding.await?,
            Some(kept) => match timeout(STILL_THE_SAME, finding).await {
                Ok(Err(error)) if !error.passing => return Err(error),
                Ok(Ok(found)) => found,
                late => {
                    let error = late.map_or_else(
                        |_| "no answer yet".to_owned(),
                        |failed| failed.map_or_else(|error| error.text, |_| String::new()),
                    );
                    tracing::warn!(model = %model.id, error, "storage is not reached, the files on disk are used");
                    return Ok(plan.files(&dir, kept.bytes));
                }
            },
        };
        if kept.is_some_and(|kept| found.fingerprint().as_ref() != Some(&kept.fingerprint)) {
            tracing::info!(model = %model.id, "files on disk are not the model's any more");
            self.remove(&model.id).await?;
        }
        let limit = self.tier.lock().limit();
        if found.fingerprint().is_some() && found.bytes() > limit {
            return Err(prefixed(PULL_FAILED, no_room(found.bytes(), NoRoom { limit, in_use: 0, available: limit })));
        }
        Ok(plan.files(&dir, found.bytes()))
    }

    /// Brings the files of a model, in place of those that are there; or finds that they are there.
    pub(crate) async fn pull(
        self: &Arc<Self>,
        model: &ModelRef,
        on_progress: OnProgress<'_>,
    ) -> Result<(Files, Pin), LoadError> {
        let plan = self.plan(model).await?;
        let pin = self.pin(&model.id);
        let dir = self.dir(&model.id);
        if let Some(kept) = self.kept(model, &plan)
            && let Some(bytes) = self.use_again(&model.id, &plan.name, kept.bytes).await
        {
            tracing::debug!(model = %model.id, bytes, "files are on disk");
            on_progress(kept.bytes, kept.bytes);
            return Ok((Files { kept: true, ..plan.files(&dir, bytes) }, pin));
        }
        let found = plan.find().await?;
        let fingerprint = found.fingerprint();
        let bytes = if fingerprint.is_some() { found.bytes() } else { 0 };
        self.make_room(&model.id, bytes).await?;
        let aside = self.fresh();
        if let Err(error) = found.bring(&aside, on_progress).await {
            let _ = blocking(move || Ok(remove(aside.path()))).await;
            return Err(prefixed(PULL_FAILED, error));
        }
        let (store, id) = (self.clone(), model.id.clone());
        let reference = record::reference(model, &plan.origin());
        // Dropped with this call: files of a pull that was given up at this moment are not put over those of the next.
        let wanted = Arc::new(());
        let still_wanted = Arc::downgrade(&wanted);
        let settled = blocking(move || {
            let _settling = store.settling.lock();
            if still_wanted.strong_count() == 0 {
                return Err(passing(Code::Cancelled, "the pull was given up"));
            }
            let settled = || -> io::Result<u64> {
                store.records.remove(&id)?;
                remove(&dir)?;
                fs::rename(aside.path(), &dir)?;
                if let Some(fingerprint) = fingerprint {
                    let record = store.records.new_record(reference, fingerprint, bytes_on_disk(&dir)?);
                    store.records.write(&id, &record)?;
                    store.tier.lock().keep(&id, record);
                }
                bytes_on_disk(&dir.join(&plan.name))
            };
            let bytes = settled().map_err(|error| prefixed(PULL_FAILED, file("put the files to", &dir, &error)))?;
            Ok((plan.files(&dir, bytes), pin))
        })
        .await;
        drop(wanted);
        settled
    }

    /// Removes the files of a model; none are fine.
    pub(crate) async fn remove(self: &Arc<Self>, model: &ModelId) -> Result<(), LoadError> {
        check_id(model)?;
        let (store, model) = (self.clone(), model.clone());
        blocking(move || {
            let dir = store.dir(&model);
            let _settling = store.settling.lock();
            store.tier.lock().forget(&model);
            let removed = store.records.remove(&model).and_then(|()| remove(&dir));
            removed.map_err(|error| file("remove", &dir, &error))
        })
        .await
    }

    /// The models whose files are there.
    pub(crate) async fn models(&self) -> Result<Vec<ModelId>, LoadError> {
        let dir = self.model_dir.clone();
        let list = move || -> io::Result<Vec<ModelId>> {
            let mut models = Vec::new();
            for entry in fs::read_dir(&dir)? {
                if let Ok(name) = entry?.file_name().into_string()
                    && !name.starts_with('_')
                {
                    models.push(name.into());
                }
            }
            Ok(models)
        };
        let dir = self.model_dir.clone();
        blocking(move || list().map_err(|error| file("list", &dir, &error))).await
    }

    fn dir(&self, model: &ModelId) -> PathBuf {
        self.model_dir.join(model.as_str())
    }

    fn aside(&self) -> PathBuf {
        self.model_dir.join(OWN_DIR).join("pulls")
    }

    /// A folder of its own for a pull.
    fn fresh(&self) -> Aside {
        Aside::at(self.aside().join(self.pulls.fetch_add(1, Ordering::Relaxed).to_string()))
    }

    fn pin(&self, model: &ModelId) -> Pin {
        self.tier.lock().pin(model);
        Pin { tier: self.tier.clone(), model: model.clone() }
    }

    fn storage(&self, entry: &Entry) -> Result<Box<dyn Storage>, LoadError> {
        match (entry.kind.as_str(), &self.places.local_root) {
            ("local", Some(root)) => Ok(Box::new(Local::new(root, entry)?)),
            ("s3", _) => Ok(Box::new(Download::new(S3::new(entry, &self.clients)?, self.permits.clone()))),
            (kind, _) => {
                let text =
                    format!("could not process pull command: no provider registered for repositories of type '{kind}'");
                Err(permanent(Code::InvalidArgument, text))
            }
        }
    }
}

// === impl Pin ===

impl Drop for Pin {
    fn drop(&mut self) {
        self.tier.lock().unpin(&self.model);
    }
}

/// Refuses an id that would be more than one folder of the model directory, or a folder that is no model's.
pub(crate) fn check_id(model: &ModelId) -> Result<(), LoadError> {
    let id = model.as_str();
    if is_plain_name(id) && !id.starts_with(['_', '.']) && id.len() <= 255 {
        return Ok(());
    }
    let shown: String = id.chars().take(300).collect();
    Err(permanent(
        Code::InvalidArgument,
        format!(
            "invalid model id '{shown}': it names a folder, so it has 1 to 255 bytes, no '/', and begins with neither '_' nor '.'"
        ),
    ))
}

/// Does work with files off the threads that answer.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LoadError> + Send + 'static,
) -> Result<T, LoadError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(passing(Code::Internal, format!("the work with files ended: {error}"))),
    }
}

#[cfg(test)]
mod tests;
