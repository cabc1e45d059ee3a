//! What control keeps beside the manifests, in `DIR/.modelring`. Every file is written aside and renamed, so that a stop
//! at any point leaves the old or the new one.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use super::manifest::STORAGE_SECRET;
use crate::{
    Error,
    source::{ActiveMemory, ActiveRecord, Notice},
};

/// The folder `DIR/.modelring`.
#[derive(Clone, Debug)]
pub struct StateFolder(PathBuf);

/// Whether a file must have reached the disk before what follows from it is done. That costs milliseconds each, too much
/// for the first record of each of many new services, which says no more than their manifests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lasting {
    No,
    Yes,
}

// === impl StateFolder ===

impl StateFolder {
    /// The state folder of a folder of manifests; made if it is not there.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let state = Self(dir.join(".modelring"));
        state.make(&state.0)?;
        state.make(&state.active())?;
        Ok(state)
    }

    /// Writes control's address for the tools.
    pub fn write_address(&self, address: &str) -> Result<(), Error> {
        self.put(&self.0.join("control"), address.as_bytes(), Lasting::No)
    }

    /// Takes control's address away again, if it is still this one.
    pub fn remove_address(&self, address: &str) -> Result<(), Error> {
        let path = self.0.join("control");
        match fs::read_to_string(&path) {
            Ok(written) if written == address => self.unlink(&path),
            _ => Ok(()),
        }
    }

    /// Makes the folder of storage entries say exactly this. Returns what could not be written.
    pub(super) fn write_storage(&self, entries: &BTreeMap<String, Vec<u8>>) -> Result<Vec<Notice>, Error> {
        let folder = self.0.join(STORAGE_SECRET);
        self.make(&folder)?;
        let (good, bad): (Vec<_>, Vec<_>) = entries.iter().partition(|(key, _)| is_file_name(key));
        for (key, value) in &good {
            let path = folder.join(key);
            if fs::read(&path).ok().as_ref() != Some(*value) {
                self.put(&path, value, Lasting::No)?;
            }
        }
        let listed = fs::read_dir(&folder).map_err(state("read", &folder))?;
        for entry in listed {
            let entry = entry.map_err(state("read", &folder))?;
            let stays = entry.file_name().to_str().is_some_and(|name| good.iter().any(|(key, _)| *key == name));
            if !stays {
                self.unlink(&entry.path())?;
            }
        }
        let notices = bad.into_iter().map(|(key, _)| Notice {
            subject: format!("Secret/{STORAGE_SECRET}"),
            text: format!("key `{key}` is no name of a file: letters, digits, `-`, `_` and `.` are"),
        });
        Ok(notices.collect())
    }

    fn active(&self) -> PathBuf {
        self.0.join("active")
    }

    fn record(&self, name: &str) -> PathBuf {
        self.active().join(format!("{name}.json"))
    }

    fn make(&self, folder: &Path) -> Result<(), Error> {
        fs::create_dir_all(folder).map_err(state("write", folder))
    }

    /// Holds the lock that makes reading the epoch and writing one step for all controls of this folder.
    fn lock_epoch(&self) -> Result<File, Error> {
        let path = self.0.join("epoch.lock");
        File::create(&path).and_then(|file| file.lock().map(|()| file)).map_err(state("write", &path))
    }

    fn put(&self, path: &Path, content: &[u8], lasting: Lasting) -> Result<(), Error> {
        // Cut, so that a name of any allowed length has room for what is added.
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let aside = path.with_file_name(format!(".{name:.200}.new"));
        let write = || -> io::Result<()> {
            // A file that a stopped process left aside may have other rights.
            let _ = fs::remove_file(&aside);
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&aside)?;
            file.write_all(content)?;
            if lasting == Lasting::No {
                return fs::rename(&aside, path);
            }
            file.sync_all()?;
            fs::rename(&aside, path)?;
            path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
        };
        write().map_err(state("write", path))
    }

    fn unlink(&self, path: &Path) -> Result<(), Error> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(state("remove", path)(error)),
            _ => Ok(()),
        }
    }
}

impl ActiveMemory for StateFolder {
    fn read(&self) -> Result<BTreeMap<String, ActiveRecord>, Error> {
        let folder = self.active();
        let mut records = BTreeMap::new();
        for entry in fs::read_dir(&folder).map_err(state("read", &folder))? {
            let path = entry.map_err(state("read", &folder))?.path();
            let file_name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let Some(name) = file_name.strip_suffix(".json") else { continue };
            let content = fs::read(&path).map_err(state("read", &path))?;
            let record = serde_json::from_slice(&content)
                .map_err(|error| Error::Damaged { path: path.clone(), text: error.to_string() })?;
            records.insert(name.to_owned(), record);
        }
        Ok(records)
    }

    fn write(&self, name: &str, record: &ActiveRecord, replaces: bool) -> Result<(), Error> {
        let content = serde_json::to_vec_pretty(record).expect("a record has only strings and numbers");
        let _lock = self.lock_epoch()?;
        let theirs = self.epoch()?;
        if theirs > record.epoch {
            return Err(Error::Superseded { theirs, ours: record.epoch });
        }
        self.put(&self.record(name), &content, if replaces { Lasting::Yes } else { Lasting::No })
    }

    fn remove(&self, name: &str) -> Result<(), Error> {
        self.unlink(&self.record(name))
    }

    fn epoch(&self) -> Result<u64, Error> {
        let path = self.0.join("epoch");
        match fs::read_to_string(&path) {
            Ok(text) => text.trim().parse().map_err(|_| Error::Damaged { path, text: "it is not a number".to_owned() }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(state("read", &path)(error)),
        }
    }

    fn next_epoch(&self, above: u64) -> Result<u64, Error> {
        let _lock = self.lock_epoch()?;
        let next = self.epoch()?.max(above) + 1;
        self.put(&self.0.join("epoch"), next.to_string().as_bytes(), Lasting::Yes)?;
        Ok(next)
    }
}

fn state(action: &'static str, path: &Path) -> impl Fn(io::Error) -> Error {
    move |source| Error::State { action, path: path.to_owned(), source }
}

/// A key that is one file name and no hidden one, as Kubernetes allows in a Secret.
fn is_file_name(key: &str) -> bool {
    !key.is_empty()
        && key.len() <= 253
        && !key.starts_with('.')
        && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::source::KeptModel;

    #[test]
    fn controls_that_take_an_epoch_at_once_take_different_ones() {
        let dir = tempfile::tempdir().unwrap();
        let take = |_: usize| {
            let state = StateFolder::open(dir.path()).unwrap();
            (0..20).map(|_| state.next_epoch(0).unwrap()).collect::<Vec<_>>()
        };
        let taken: Vec<u64> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|n| scope.spawn(move || take(n))).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(taken.iter().collect::<BTreeSet<_>>().len(), 80, "each is taken once");
        assert_eq!(StateFolder::open(dir.path()).unwrap().epoch().unwrap(), 80);
    }

    #[test]
    fn a_control_that_was_superseded_writes_no_record() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateFolder::open(dir.path()).unwrap();
        let kept = KeptModel { id: "a__isvc-1".into(), model_type: "mt:x".into(), path: "p".into(), key: "{}".into() };
        let record = |epoch| ActiveRecord { active: kept.clone(), before: None, tried: None, epoch };
        let (old, new) = (state.next_epoch(0).unwrap(), state.next_epoch(0).unwrap());
        state.write("a", &record(new), false).unwrap();
        let refused = state.write("a", &record(old), true);
        assert!(
            matches!(refused, Err(Error::Superseded { theirs, ours }) if (theirs, ours) == (new, old)),
            "{refused:?}"
        );
        assert_eq!(state.read().unwrap()["a"].epoch, new);
    }
}
