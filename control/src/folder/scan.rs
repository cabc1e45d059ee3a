//! One look at the folder: which files are new, changed or gone.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, Metadata},
    io,
    os::unix::fs::MetadataExt,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::{
    memory::StateFolder,
    removals::Removals,
    state::{Files, Merged},
};
use crate::source::{ActiveMemory, Desired, Notice};

const EXTENSIONS: [&str; 3] = ["yaml", "yml", "json"];
/// A file larger than this is no manifest.
const LARGEST: u64 = 64 << 20;
/// What is gone and was not seen to go is believed after it was gone at every look for this long.
const BELIEVED_AFTER: Duration = Duration::from_secs(10 * 60);

/// Looks at a folder again and again.
#[derive(Debug)]
pub(super) struct Scanner {
    dir: PathBuf,
    state: StateFolder,
    files: Files,
    seen: BTreeMap<String, Stamp>,
    /// The folder as it was at the last look.
    folder: Option<Folder>,
    /// The storage entries as they were last written.
    storage: Option<BTreeMap<String, Vec<u8>>>,
    storage_changes: u64,
    storage_problems: Vec<Notice>,
    retry_storage: bool,
    /// Why the last state is kept.
    frozen: Option<Notice>,
    removals: Arc<Mutex<Removals>>,
    believed_after: Duration,
    /// Since when each look could read everything, and showed what is not believed yet.
    doubted_since: Option<Instant>,
    /// A control before this one had services, and no look has shown one yet.
    missed: bool,
    first: bool,
}

/// What tells that a file is the same as before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    /// Whether it is a file, or a link.
    readable: bool,
    inode: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// What tells that the folder is the same as before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Folder {
    device: u64,
    inode: u64,
}

// === impl Scanner ===

impl Scanner {
    pub(super) fn new(dir: PathBuf, namespace: &str, state: StateFolder, removals: Arc<Mutex<Removals>>) -> Self {
        Self {
            dir,
            // A record that cannot be read ends control elsewhere.
            missed: state.read().is_ok_and(|records| !records.is_empty()),
            state,
            removals,
            believed_after: BELIEVED_AFTER,
            doubted_since: None,
            files: Files::new(namespace),
            seen: BTreeMap::new(),
            folder: None,
            storage: None,
            storage_changes: 0,
            storage_problems: Vec::new(),
            retry_storage: false,
            frozen: None,
            first: true,
        }
    }

    /// Whether another folder stands at the path, or none.
    pub(super) fn folder_changed(&self) -> bool {
        self.folder != Folder::at(&self.dir).ok()
    }

    /// Looks at the folder. The state that it says, if that is another than before.
    pub(super) fn scan(&mut self) -> Option<Desired> {
        let (changed, mut frozen) = match self.look() {
            Ok(changed) => (changed, None),
            Err(notice) => (false, Some(notice)),
        };
        if self.missed && frozen.is_none() {
            frozen = self.miss();
        }
        if !changed && !self.first && !self.retry_storage && frozen == self.frozen {
            return None;
        }
        let Merged { mut desired, storage } = self.files.merge();
        if self.storage.as_ref() != Some(&storage) {
            let written = self.state.write_storage(&storage);
            self.retry_storage = written.is_err();
            self.storage_problems = written.unwrap_or_else(|error| {
                vec![Notice { subject: "Secret/storage-config".to_owned(), text: error.to_string() }]
            });
            self.storage = Some(storage).filter(|_| !self.retry_storage);
            self.storage_changes += 1;
        }
        desired.incomplete |= self.missed;
        desired.storage_changes = self.storage_changes;
        desired.frozen = frozen.is_some();
        desired.notices.extend(self.storage_problems.iter().chain(&frozen).cloned());
        self.frozen = frozen;
        self.first = false;
        Some(desired)
    }

    /// Services that a control before this one left, of which the folder says none: they were not seen to go.
    fn miss(&mut self) -> Option<Notice> {
        // What cannot be read may be they.
        if self.files.has_services() || self.first && self.files.is_incomplete() {
            (self.missed, self.doubted_since) = (false, None);
            return None;
        }
        let doubt = self
            .doubt("has no InferenceService and no Predictor, but there were some when control last ran: they stay");
        self.missed = doubt.is_some();
        doubt
    }

    /// Reads what is new or changed. Whether anything is; or why the last state is kept.
    fn look(&mut self) -> Result<bool, Notice> {
        let read = self.list().and_then(|listed| Ok((Folder::at(&self.dir)?, listed)));
        let (folder, listed) = read.map_err(|error| {
            self.doubted_since = None;
            self.notice(format!("cannot be read ({error}): the last state stays"))
        })?;
        let gone: BTreeSet<String> = self.seen.keys().filter(|name| !listed.contains_key(*name)).cloned().collect();
        let other_mount = self.folder.is_some_and(|last| last.device != folder.device);
        let other_empty = self.folder.is_some_and(|last| last != folder) && listed.is_empty();
        let unseen = {
            let mut removals = self.removals.lock();
            removals.forget(|name| listed.contains_key(name));
            gone.iter().any(|name| !removals.saw(name))
        };
        let doubt = if (other_mount || other_empty) && !self.seen.is_empty() {
            self.doubt("is another folder than before, and not of the same mount: the last state stays")
        } else {
            None
        };
        if let Some(doubt) = doubt {
            return Err(doubt);
        }
        self.folder = Some(folder);
        let changed = self.read_changed(listed);
        if let Some(kind) = self.files.would_vanish(&gone).filter(|_| unseen) {
            let text = format!("has no {kind} any more, and nobody was seen to remove them: the last state stays");
            if let Some(doubt) = self.doubt(&text) {
                return Err(doubt);
            }
        } else if !self.missed {
            self.doubted_since = None;
        }
        self.removals.lock().forget(|name| gone.contains(name));
        for name in &gone {
            self.seen.remove(name);
            self.files.removed(name);
        }
        Ok(changed || !gone.is_empty())
    }

    /// Reads what is new or changed; whether anything is.
    fn read_changed(&mut self, listed: BTreeMap<String, Stamp>) -> bool {
        let mut changed = false;
        for (name, stamp) in listed {
            if self.seen.get(&name) == Some(&stamp) {
                continue;
            }
            changed = true;
            match self.read_file(&name, stamp) {
                Ok(text) => {
                    self.files.read(&name, &text);
                    self.seen.insert(name, stamp);
                }
                // It went between the two steps: the next look sees it gone.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    self.files.unreadable(&name, &error);
                    self.seen.insert(name, stamp);
                }
            }
        }
        changed
    }

    /// What is doubted is said, until it was so at every look for long enough; then it is believed.
    fn doubt(&mut self, text: &str) -> Option<Notice> {
        let since = *self.doubted_since.get_or_insert_with(Instant::now);
        if since.elapsed() >= self.believed_after {
            self.doubted_since = None;
            return None;
        }
        let minutes = self.believed_after.as_secs() / 60;
        Some(self.notice(format!("{text}, until it has been so for {minutes} min")))
    }

    fn notice(&self, text: String) -> Notice {
        Notice { subject: self.dir.display().to_string(), text }
    }

    fn list(&self) -> io::Result<BTreeMap<String, Stamp>> {
        let mut listed = BTreeMap::new();
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            let is_manifest =
                path.extension().is_some_and(|extension| EXTENSIONS.iter().any(|known| extension == *known));
            if name.starts_with('.') || !is_manifest {
                continue;
            }
            // Links are followed: a mounted ConfigMap is made of them.
            match fs::metadata(&path) {
                Ok(metadata) => drop(listed.insert(name.to_owned(), Stamp::of(&metadata))),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                // A link that leads nowhere is one file's problem, said when that file is read.
                Err(_) => drop(listed.insert(name.to_owned(), Stamp::of(&fs::symlink_metadata(&path)?))),
            }
        }
        Ok(listed)
    }

    fn read_file(&self, name: &str, stamp: Stamp) -> io::Result<String> {
        // A pipe would block whoever reads it.
        if !stamp.readable {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is a folder or another thing than a file"));
        }
        if stamp.length > LARGEST {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is larger than 64 MiB"));
        }
        fs::read_to_string(self.dir.join(name))
    }
}

// === impl Stamp ===

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            readable: metadata.is_file() || metadata.is_symlink(),
            inode: metadata.ino(),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

// === impl Folder ===

impl Folder {
    fn at(dir: &std::path::Path) -> io::Result<Self> {
        let metadata = fs::metadata(dir)?;
        Ok(Self { device: metadata.dev(), inode: metadata.ino() })
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    const SERVICE: &str = "apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata: {name: NAME}
spec: {predictor: {model: {modelFormat: {name: onnx}, storage: {key: k, path: p}}}}
";

    fn scanner(dir: &TempDir) -> (Scanner, Arc<Mutex<Removals>>) {
        let removals = Arc::new(Mutex::new(Removals::default()));
        let state = StateFolder::open(dir.path()).unwrap();
        (Scanner::new(dir.path().to_owned(), "default", state, removals.clone()), removals)
    }

    fn write(dir: &TempDir, name: &str) {
        fs::write(dir.path().join(format!("{name}.yaml")), SERVICE.replace("NAME", name)).unwrap();
    }

    fn remove(dir: &TempDir, removals: Option<&Mutex<Removals>>, name: &str) {
        let path = dir.path().join(format!("{name}.yaml"));
        fs::remove_file(&path).unwrap();
        if let Some(removals) = removals {
            let kind = notify::EventKind::Remove(notify::event::RemoveKind::File);
            removals.lock().note(&notify::Event::new(kind).add_path(path));
        }
    }

    #[test]
    fn the_last_service_goes_when_it_was_seen_to_go() {
        let dir = TempDir::new().unwrap();
        let (mut scanner, removals) = scanner(&dir);
        ["a", "b"].iter().for_each(|name| write(&dir, name));
        assert_eq!(scanner.scan().unwrap().inference_services.len(), 2);
        remove(&dir, None, "a");
        assert_eq!(scanner.scan().unwrap().inference_services.len(), 1, "one of several is believed as it is");
        remove(&dir, Some(&removals), "b");
        let desired = scanner.scan().unwrap();
        assert!(desired.inference_services.is_empty() && desired.notices.is_empty());
    }

    #[test]
    fn services_that_are_all_gone_unseen_freeze_the_last_state_until_that_was_so_for_long_enough() {
        let dir = TempDir::new().unwrap();
        let (mut scanner, removals) = scanner(&dir);
        ["a", "b"].iter().for_each(|name| write(&dir, name));
        scanner.scan().unwrap();
        remove(&dir, Some(&removals), "a");
        remove(&dir, None, "b");
        let desired = scanner.scan().unwrap();
        assert_eq!(desired.inference_services.len(), 2);
        assert!(desired.notices[0].text.contains("has no InferenceService any more"), "{:?}", desired.notices);
        write(&dir, "c");
        let desired = scanner.scan().unwrap();
        assert_eq!(desired.inference_services.keys().collect::<Vec<_>>(), ["c"], "they are not all gone any more");
        assert!(desired.notices.is_empty());

        remove(&dir, None, "c");
        assert!(!scanner.scan().unwrap().inference_services.is_empty());
        scanner.believed_after = Duration::ZERO;
        assert!(scanner.scan().unwrap().inference_services.is_empty());
    }

    #[test]
    fn services_that_are_gone_when_control_starts_are_missed_for_as_long() {
        let dir = TempDir::new().unwrap();
        let state = StateFolder::open(dir.path()).unwrap();
        let kept = crate::source::KeptModel {
            id: "a__isvc-1".into(),
            model_type: "mt:onnx".into(),
            path: "p".into(),
            key: "{}".into(),
        };
        let record = crate::source::ActiveRecord { active: kept, before: None, tried: None, epoch: 1 };
        state.write("a", &record, false).unwrap();
        let (mut first, _) = scanner(&dir);
        let desired = first.scan().unwrap();
        assert!(
            desired.incomplete && desired.notices[0].text.contains("when control last ran"),
            "{:?}",
            desired.notices
        );
        first.believed_after = Duration::ZERO;
        let desired = first.scan().unwrap();
        assert!(!desired.incomplete && desired.notices.is_empty());
        let (mut second, _) = scanner(&dir);
        second.scan().unwrap();
        write(&dir, "b");
        assert!(!second.scan().unwrap().incomplete, "a folder that says some says all");
    }
}
