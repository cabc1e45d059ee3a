//! One look at the folder: which files are new, changed or gone.

use std::{
    collections::BTreeMap,
    fs::{self, Metadata},
    io,
    os::unix::fs::MetadataExt,
    path::PathBuf,
};

use super::{
    memory::StateFolder,
    state::{Files, Merged},
};
use crate::source::{Desired, Notice};

const EXTENSIONS: [&str; 3] = ["yaml", "yml", "json"];
/// A file larger than this is no manifest.
const LARGEST: u64 = 64 << 20;

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
    pub(super) fn new(dir: PathBuf, namespace: &str, state: StateFolder) -> Self {
        Self {
            dir,
            state,
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
        let (changed, frozen) = match self.look() {
            Ok(changed) => (changed, None),
            Err(notice) => (false, Some(notice)),
        };
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
        desired.storage_changes = self.storage_changes;
        desired.notices.extend(self.storage_problems.iter().chain(&frozen).cloned());
        self.frozen = frozen;
        self.first = false;
        Some(desired)
    }

    /// Reads what is new or changed. Whether anything is; or why the last state is kept.
    fn look(&mut self) -> Result<bool, Notice> {
        let frozen = |text: String| Notice { subject: self.dir.display().to_string(), text };
        let read = |error: io::Error| frozen(format!("cannot be read ({error}): the last state stays"));
        let folder = Folder::at(&self.dir).map_err(read)?;
        let listed = self.list().map_err(read)?;
        let other_mount = self.folder.is_some_and(|last| last.device != folder.device);
        let other_empty = self.folder.is_some_and(|last| last != folder) && listed.is_empty();
        if (other_mount || other_empty) && !self.seen.is_empty() {
            return Err(frozen(
                "is another folder than before, and not of the same mount: the last state stays".to_owned(),
            ));
        }
        self.folder = Some(folder);

        let mut changed = false;
        let gone: Vec<String> = self.seen.keys().filter(|name| !listed.contains_key(*name)).cloned().collect();
        for name in gone {
            changed = true;
            self.seen.remove(&name);
            self.files.removed(&name);
        }
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
        Ok(changed)
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
