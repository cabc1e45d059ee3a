//! The folder in which models are laid out as the server wants them: `<model_dir>/<sub>/<model id>/`, made of small files
//! of its own and of absolute links to what was pulled.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use modelring_placement::{id::ModelId, pod::LoadError};
use tonic::Code;

use crate::{
    error::Error,
    failure::{file, permanent},
    storage::{
        aside::remove,
        store::{blocking, check_id},
    },
};

/// The layout folder of a server.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    dir: PathBuf,
}

// === impl Layout ===

impl Layout {
    /// The folder `<model_dir>/<sub>`, made if it is not there. `sub` begins with `_`, so it is no model's.
    pub(crate) fn open(model_dir: &Path, sub: &str) -> Result<Self, Error> {
        let dir = model_dir.canonicalize().map(|dir| dir.join(sub)).and_then(|dir| {
            fs::DirBuilder::new().recursive(true).mode(0o755).create(&dir)?;
            Ok(dir)
        });
        let dir = dir.map_err(|source| Error::ModelDir { verb: "make", path: model_dir.join(sub), source })?;
        Ok(Self { dir })
    }

    /// Where it is.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// An empty folder for a model, in place of what was there.
    pub(crate) fn fresh(&self, model: &ModelId) -> Result<PathBuf, LoadError> {
        check_id(model)?;
        let dir = self.dir.join(model.as_str());
        let made = remove(&dir).and_then(|()| fs::DirBuilder::new().mode(0o755).create(&dir));
        made.map_err(|error| file("make", &dir, &error))?;
        Ok(dir)
    }

    /// Removes the folder of a model; none is fine.
    pub(crate) async fn remove(&self, model: &ModelId) -> Result<(), LoadError> {
        check_id(model)?;
        let dir = self.dir.join(model.as_str());
        blocking(move || remove(&dir).map_err(|error| file("remove", &dir, &error))).await
    }

    /// Removes the folders of all models.
    pub(crate) async fn clear(&self) -> Result<(), LoadError> {
        let dir = self.dir.clone();
        blocking(move || {
            let clear = || -> io::Result<()> { fs::read_dir(&dir)?.try_for_each(|entry| remove(&entry?.path())) };
            clear().map_err(|error| file("clear", &dir, &error))
        })
        .await
    }
}

/// Links `<dir>/<name of the target>` to the target.
pub(crate) fn link(dir: &Path, target: &Path) -> Result<PathBuf, LoadError> {
    let name = target
        .file_name()
        .ok_or_else(|| permanent(Code::InvalidArgument, format!("'{}' has no name to link it by", target.display())))?;
    let link = dir.join(name);
    symlink(target, &link).map_err(|error| file("make the link", &link, &error))?;
    Ok(link)
}

/// Writes a file of the layout, whole or not at all: the server may list the folder at any moment.
pub(crate) fn write(path: &Path, content: &[u8], mode: u32) -> Result<(), LoadError> {
    let aside = path.with_extension("new~");
    let written = fs::write(&aside, content)
        .and_then(|()| fs::set_permissions(&aside, fs::Permissions::from_mode(mode)))
        .and_then(|()| fs::rename(&aside, path));
    written.map_err(|error| file("write", path, &error))
}
