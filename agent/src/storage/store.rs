//! The model directory, and the step that fills it: `<model_dir>/<model id>/<last part of the path>`.
//!
//! Files are brought aside and moved to their place when they are whole, so whatever lies in a model's folder is whole,
//! and a pull that failed or was given up leaves nothing.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use modelring_placement::{
    id::{ModelId, ModelRef},
    pod::LoadError,
};
use tonic::Code;

use super::{
    OnProgress, Storage, Target,
    entry::{Entry, is_plain_name},
    key::ModelKey,
    local::Local,
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

/// The model directory and where models come from.
#[derive(Debug)]
pub(crate) struct Store {
    model_dir: PathBuf,
    config_dir: Option<PathBuf>,
    local_root: Option<PathBuf>,
    pulls: AtomicU64,
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

/// A folder that goes with this value, unless it was moved away.
struct Aside(PathBuf);

// === impl Store ===

impl Store {
    /// The store of a model directory that this agent has taken. What earlier pulls left unfinished is removed.
    pub(crate) fn open(model_dir: &Path, config_dir: Option<PathBuf>, local_root: Option<PathBuf>) -> io::Result<Self> {
        let model_dir = model_dir.canonicalize()?;
        let store = Self { model_dir, config_dir, local_root, pulls: AtomicU64::new(0) };
        remove(&store.aside())?;
        fs::create_dir_all(store.aside())?;
        Ok(store)
    }

    /// Looks up what a pull would bring. `path` and `key` are what they will be after it.
    pub(crate) async fn look_up(self: &Arc<Self>, model: &ModelRef) -> Result<Files, LoadError> {
        let plan = self.plan(model).await?;
        let dir = self.dir(&model.id);
        let bytes = plan.storage.size(&plan.targets(&dir)).await.map_err(|error| prefixed(PULL_FAILED, error))?;
        Ok(plan.files(&dir, bytes))
    }

    /// Brings the files of a model, in place of those that are there.
    pub(crate) async fn pull(
        self: &Arc<Self>,
        model: &ModelRef,
        on_progress: OnProgress<'_>,
    ) -> Result<Files, LoadError> {
        let plan = self.plan(model).await?;
        let aside = Aside(self.aside().join(self.pulls.fetch_add(1, Ordering::Relaxed).to_string()));
        let targets = plan.targets(&aside.0);
        plan.storage.pull(&targets, on_progress).await.map_err(|error| prefixed(PULL_FAILED, error))?;
        let dir = self.dir(&model.id);
        blocking(move || {
            let moved = remove(&dir).and_then(|()| fs::rename(&aside.0, &dir));
            moved.map_err(|error| prefixed(PULL_FAILED, file("put the files to", &dir, &error)))?;
            let bytes = bytes_on_disk(&dir.join(&plan.name))
                .map_err(|error| prefixed(PULL_FAILED, file("read", &dir, &error)))?;
            Ok(plan.files(&dir, bytes))
        })
        .await
    }

    /// Removes the files of a model; none are fine.
    pub(crate) async fn remove(&self, model: &ModelId) -> Result<(), LoadError> {
        check_id(model)?;
        let dir = self.dir(model);
        blocking(move || remove(&dir).map_err(|error| file("remove", &dir, &error))).await
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

    async fn plan(self: &Arc<Self>, model: &ModelRef) -> Result<Plan, LoadError> {
        check_id(&model.id)?;
        let (store, model) = (self.clone(), model.clone());
        blocking(move || {
            let key = ModelKey::parse(&model.key)?;
            let entry = Entry::choose(store.config_dir.as_deref(), &key)?;
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
        match (entry.kind.as_str(), &self.local_root) {
            ("local", Some(root)) => Ok(Box::new(Local::new(root, entry)?)),
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
    fn targets(&self, dir: &Path) -> Vec<Target> {
        let model = Target { remote: self.remote.clone(), local: dir.join(&self.name) };
        let schema = self.schema.iter().map(|(path, name)| Target { remote: path.clone(), local: dir.join(name) });
        std::iter::once(model).chain(schema).collect()
    }

    fn files(&self, dir: &Path, bytes: u64) -> Files {
        let schema = self.schema.as_ref().map(|(_, name)| dir.join(name).display().to_string());
        Files { path: dir.join(&self.name), key: self.key.for_server(bytes, schema.as_deref()), bytes }
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "unfinished pull not removed");
        }
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

/// The last part of a path; none for an empty path, `/`, `.` and `..`.
fn last_part(path: &str) -> Option<&str> {
    path.trim_end_matches('/').rsplit('/').next().filter(|name| is_plain_name(name))
}

/// Removes a folder or file; none is fine.
fn remove(path: &Path) -> io::Result<()> {
    let gone = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    gone.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
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

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LoadError> + Send + 'static,
) -> Result<T, LoadError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(passing(Code::Internal, format!("the work with files ended: {error}"))),
    }
}

#[cfg(test)]
mod tests;
