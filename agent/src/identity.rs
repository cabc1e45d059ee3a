//! Who this agent is, kept in the model directory: `<model_dir>/_modelring/{instance,pod-uid,started,lock}`, beside `sizes` (`core/sizes`). (Names that
//! begin with `_` are no models.)

use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
};

use modelring_placement::id::{BootId, InstanceId};
use rand::Rng;

use crate::error::Error;

/// Folder of the agent's own files in the model directory.
pub(crate) const OWN_DIR: &str = "_modelring";

/// Who this agent is.
#[derive(Debug)]
pub(crate) struct Identity {
    /// Id of the instance.
    pub(crate) instance: InstanceId,
    /// Uid of the pod.
    pub(crate) pod_uid: String,
    /// Random number of this start.
    pub(crate) boot: BootId,
    /// Whether an agent has started on this volume before.
    pub(crate) started_before: bool,
    /// Held for as long as the agent lives: two agents on one model directory would unload each other's models.
    _lock: File,
}

// === impl Identity ===

impl Identity {
    /// Reads who this agent is, makes up what is not known yet, and leaves the mark of a start.
    pub(crate) fn take(model_dir: &Path, instance: Option<&str>, pod_uid: Option<&str>) -> Result<Self, Error> {
        let dir = model_dir.join(OWN_DIR);
        fs::create_dir_all(&dir).map_err(|source| Error::ModelDir { verb: "make", path: dir.clone(), source })?;
        let lock = lock(model_dir, dir.join("lock"))?;
        let instance = match instance {
            Some(name) => name.to_owned(),
            None => kept(&dir.join("instance"), || format!("instance-{}", hex(12)))?,
        };
        let pod_uid = match pod_uid {
            Some(uid) => uid.to_owned(),
            None => kept(&dir.join("pod-uid"), || hex(32))?,
        };
        let mark = dir.join("started");
        let started_before = mark.exists();
        write(&mark, "")?;
        Ok(Self { instance: instance.into(), pod_uid, boot: rand::rng().random(), started_before, _lock: lock })
    }
}

fn lock(model_dir: &Path, path: PathBuf) -> Result<File, Error> {
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|source| Error::ModelDir { verb: "open", path: path.clone(), source })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::ModelDirInUse(model_dir.to_owned())),
        Err(TryLockError::Error(source)) => Err(Error::ModelDir { verb: "lock", path, source }),
    }
}

/// What a file says, made up and written where it says nothing.
fn kept(path: &Path, make: impl FnOnce() -> String) -> Result<String, Error> {
    match fs::read_to_string(path) {
        Ok(text) if !text.trim().is_empty() => return Ok(text.trim().to_owned()),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(Error::ModelDir { verb: "read", path: path.to_owned(), source }),
    }
    let text = make();
    write(path, &text)?;
    Ok(text)
}

/// Written aside and renamed, so that a crash leaves no half name.
fn write(path: &Path, text: &str) -> Result<(), Error> {
    let aside = path.with_extension("new");
    fs::write(&aside, text).and_then(|()| fs::rename(&aside, path)).map_err(|source| Error::ModelDir {
        verb: "write",
        path: path.to_owned(),
        source,
    })
}

fn hex(digits: usize) -> String {
    let mut rng = rand::rng();
    (0..digits).map(|_| char::from(b"0123456789abcdef"[rng.random_range(0..16)])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_once_and_kept_and_the_second_start_sees_the_mark() {
        let dir = tempfile::tempdir().unwrap();
        let first = Identity::take(dir.path(), None, None).unwrap();
        assert!(!first.started_before);
        let (instance, pod_uid, boot) = (first.instance.clone(), first.pod_uid.clone(), first.boot);
        drop(first);
        let second = Identity::take(dir.path(), None, None).unwrap();
        assert_eq!((&second.instance, &second.pod_uid), (&instance, &pod_uid));
        assert!(second.started_before);
        assert_ne!(second.boot, boot);
    }

    #[test]
    fn a_given_name_wins_over_a_kept_one() {
        let dir = tempfile::tempdir().unwrap();
        drop(Identity::take(dir.path(), None, None).unwrap());
        let given = Identity::take(dir.path(), Some("pod-1"), Some("uid-1")).unwrap();
        assert_eq!((given.instance.as_str(), given.pod_uid.as_str()), ("pod-1", "uid-1"));
    }

    #[test]
    fn two_agents_never_share_a_model_directory() {
        let dir = tempfile::tempdir().unwrap();
        let _first = Identity::take(dir.path(), None, None).unwrap();
        assert!(matches!(Identity::take(dir.path(), None, None), Err(Error::ModelDirInUse(_))));
    }
}
