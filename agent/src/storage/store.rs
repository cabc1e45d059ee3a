//! The model directory, and the step that fills it: `<model_dir>/<model id>/<last part of the path>`.
//!
//! Files are brought aside and moved to their place when they are whole, so whatever lies in a model's folder is whole,
//! and a pull that failed or was given up leaves nothing. After an unload they stay for as long as their room is not needed
//! (`tier`), and a load of the same reference finds them there, after a restart of the agent too.

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
    Aside, Found, OnProgress, Storage, Target,
    aside::remove,
    download::Download,
    entry::{Entry, is_plain_name},
    key::ModelKey,
    local::Local,
    record::{self, Records},
    s3::{Clients, S3},
    tier::{NoRoom, Tier},
};
use crate::{
    failure::{file, passing, permanent, prefixed},
    identity::OWN_DIR,
};

/// What a model without a last path part is called.
const NAMELESS: &str = "_model";
/// What a schema is called whose name is the model's.
const NAMELESS_SCHEMA: &str = "_schema.json";
/// Said before each failure of a storage.
const PULL_FAILED: &str = "Failed to pull model from storage due to error: ";
/// Deepest folder that is looked into for the size on disk.
const DEEPEST: usize = 64;
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

/// What is to be brought for a model.
struct Plan {
    storage: Box<dyn Storage>,
    key: ModelKey,
    /// Path in the storage.
    remote: String,
    /// Name of the model in its folder.
    name: String,
    /// Path in the storage and name in the folder of the schema.
    schema: Option<(String, String)>,
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
        };
        remove(&store.aside())?;
        fs::create_dir_all(store.aside())?;
        store.take_up_kept()?;
        Ok(store)
    }

    /// Takes up what an earlier agent kept, as much as may stay.
    fn take_up_kept(&self) -> io::Result<()> {
        let mut kept = self.records.read()?;
        kept.sort_by_key(|(.., used)| *used);
        let mut tier = self.tier.lock();
        for (model, record, _) in kept {
            if check_id(&model).is_ok() && self.dir(&model).is_dir() {
                tier.add(model, record);
            } else {
                self.records.remove(&model)?;
            }
        }
        for model in tier.trim() {
            self.move_away(&model)?;
        }
        tracing::info!(kept_bytes = tier.used(), limit_bytes = tier.limit(), "disk for model files");
        Ok(())
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
            self.tier.lock().forget(&model.id);
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
        blocking(move || {
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
        .await
    }

    /// The files of a model that was unloaded: kept, if bringing them again would cost something.
    pub(crate) async fn let_go(self: &Arc<Self>, model: &ModelId) -> Result<(), LoadError> {
        if self.tier.lock().record(model).is_none() {
            return self.remove(model).await;
        }
        let (store, model) = (self.clone(), model.clone());
        let touched =
            move || store.records.touch(&model).map_err(|error| file("note the use of", &store.dir(&model), &error));
        blocking(touched).await
    }

    /// Removes the files of a model; none are fine.
    pub(crate) async fn remove(self: &Arc<Self>, model: &ModelId) -> Result<(), LoadError> {
        check_id(model)?;
        let (store, model) = (self.clone(), model.clone());
        blocking(move || {
            let dir = store.dir(&model);
            store.tier.lock().forget(&model);
            let removed = store.records.remove(&model).and_then(|()| remove(&dir));
            removed.map_err(|error| file("remove", &dir, &error))
        })
        .await
    }

    /// Removes the files of every model that is neither kept nor used.
    pub(crate) async fn sweep(self: &Arc<Self>) -> Result<(), LoadError> {
        for model in self.models().await? {
            let stays = {
                let tier = self.tier.lock();
                tier.record(&model).is_some() || tier.is_pinned(&model)
            };
            if !stays && let Err(error) = self.remove(&model).await {
                tracing::warn!(%model, error = error.text, "leftover not removed");
            }
        }
        Ok(())
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

    /// What is known of files that are there and are of this reference.
    fn kept(&self, model: &ModelRef, plan: &Plan) -> Option<record::Record> {
        let kept = self.tier.lock().record(&model.id).cloned()?;
        (kept.reference == record::reference(model, &plan.origin())).then_some(kept)
    }

    /// The bytes of a model whose files are there and have all the bytes that they should have; they were used now.
    async fn use_again(self: &Arc<Self>, model: &ModelId, name: &str, bytes: u64) -> Option<u64> {
        let (store, model, name) = (self.clone(), model.clone(), name.to_owned());
        let looking = blocking(move || {
            let dir = store.dir(&model);
            let read = |error| file("read", &dir, &error);
            if bytes_on_disk(&dir).map_err(read)? != bytes {
                return Ok(None);
            }
            store.records.touch(&model).map_err(read)?;
            bytes_on_disk(&dir.join(name)).map(Some).map_err(read)
        });
        looking.await.ok().flatten()
    }

    /// Makes room on the disk for a pull.
    async fn make_room(self: &Arc<Self>, model: &ModelId, bytes: u64) -> Result<(), LoadError> {
        let (store, model) = (self.clone(), model.clone());
        blocking(move || {
            let dir = &store.model_dir;
            let free =
                volume(dir).map_err(|error| prefixed(PULL_FAILED, file("look at the volume of", dir, &error)))?.free;
            // Under the lock, so that nobody finds files that are about to go.
            let mut tier = store.tier.lock();
            let victims =
                tier.reserve(&model, bytes, free).map_err(|short| prefixed(PULL_FAILED, no_room(bytes, short)))?;
            let mut going = Vec::new();
            for victim in victims {
                tracing::info!(model = %victim, "files of an unloaded model go for others");
                match store.move_away(&victim) {
                    Ok(aside) => going.push(aside),
                    Err(error) => tracing::warn!(model = %victim, %error, "files of an unloaded model stay"),
                }
            }
            drop(tier);
            for aside in going {
                remove(aside.path()).map_err(|error| prefixed(PULL_FAILED, file("remove", aside.path(), &error)))?;
            }
            Ok(())
        })
        .await
    }

    /// Takes the files of a model out of its folder; they go with what is returned.
    fn move_away(&self, model: &ModelId) -> io::Result<Aside> {
        let aside = self.fresh();
        self.records.remove(model)?;
        fs::rename(self.dir(model), aside.path())?;
        Ok(aside)
    }

    async fn plan(self: &Arc<Self>, model: &ModelRef) -> Result<Plan, LoadError> {
        check_id(&model.id)?;
        let (store, model) = (self.clone(), model.clone());
        blocking(move || {
            let key = ModelKey::parse(&model.key)?;
            let entry = Entry::choose(store.places.config_dir.as_deref(), &key)?;
            let storage = store.storage(&entry).map_err(|error| prefixed(PULL_FAILED, error))?;
            let name = last_part(&model.path).unwrap_or(NAMELESS).to_owned();
            let schema = key.schema_path.as_ref().map(|path| {
                let named = last_part(path).filter(|schema| *schema != name).unwrap_or(NAMELESS_SCHEMA);
                (path.clone(), named.to_owned())
            });
            Ok(Plan { storage, key, remote: model.path, name, schema })
        })
        .await
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

// === impl Plan ===

impl Plan {
    /// Finds the files in the storage.
    async fn find(&self) -> Result<Box<dyn Found>, LoadError> {
        let model = Target { remote: self.remote.clone(), local: self.name.clone() };
        let schema = self.schema.iter().map(|(path, name)| Target { remote: path.clone(), local: name.clone() });
        let targets: Vec<_> = std::iter::once(model).chain(schema).collect();
        self.storage.find(&targets).await.map_err(|error| prefixed(PULL_FAILED, error))
    }

    fn origin(&self) -> String {
        self.storage.origin()
    }

    fn files(&self, dir: &Path, bytes: u64) -> Files {
        let schema = self.schema.as_ref().map(|(_, name)| dir.join(name).display().to_string());
        Files { path: dir.join(&self.name), key: self.key.for_server(bytes, schema.as_deref()), bytes, kept: false }
    }
}

// === impl Pin ===

impl Drop for Pin {
    fn drop(&mut self) {
        self.tier.lock().unpin(&self.model);
    }
}

/// A refusal for want of disk; the code says so to the pod.
fn no_room(bytes: u64, NoRoom { limit, in_use, available }: NoRoom) -> LoadError {
    let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
    let text = format!(
        "needs {} on disk; files may take {} in all (agent.diskLimit), loaded models use {}, the volume has {} for others",
        mib(bytes),
        mib(limit),
        mib(in_use),
        mib(available)
    );
    passing(Code::ResourceExhausted, text)
}

/// A volume.
struct Volume {
    /// Bytes in all.
    size: u64,
    /// Bytes that may be written.
    free: u64,
}

fn volume(path: &Path) -> io::Result<Volume> {
    let found = rustix::fs::statvfs(path)?;
    Ok(Volume {
        size: found.f_blocks.saturating_mul(found.f_frsize),
        free: found.f_bavail.saturating_mul(found.f_frsize),
    })
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

/// The last part of a path; none for an empty path, `/`, `.` and `..`.
fn last_part(path: &str) -> Option<&str> {
    path.trim_end_matches('/').rsplit('/').next().filter(|name| is_plain_name(name))
}

/// Sums the regular files below a path, those behind links too.
fn bytes_on_disk(path: &Path) -> io::Result<u64> {
    let mut sum = 0;
    let mut todo = vec![(path.to_owned(), 0)];
    while let Some((path, depth)) = todo.pop() {
        let found = fs::metadata(&path)?;
        if found.is_file() {
            sum += found.len();
        } else if found.is_dir() && depth < DEEPEST {
            for child in fs::read_dir(&path)? {
                todo.push((child?.path(), depth + 1));
            }
        }
    }
    Ok(sum)
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
