//! The folder that one pull fills.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

/// A fresh folder, which goes when the last who works in it has let go of it; moved away before that, it stays. Whoever
/// works with files on another thread holds a clone, so that nothing is written behind the removal.
#[derive(Clone, Debug)]
pub(crate) struct Aside(Arc<Folder>);

#[derive(Debug)]
struct Folder(PathBuf);

// === impl Aside ===

impl Aside {
    /// A folder at this path, made by whoever fills it.
    pub(crate) fn at(path: PathBuf) -> Self {
        Self(Arc::new(Folder(path)))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let path = std::mem::take(&mut self.0);
        let remove = move || {
            if let Err(error) = remove(&path) {
                tracing::warn!(path = %path.display(), %error, "unfinished pull not removed");
            }
        };
        // Thousands of files take a while: not on a thread that serves.
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(remove)),
            Err(_) => remove(),
        }
    }
}

/// Removes a folder or file; none is fine.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    let gone = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    gone.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}
