//! What is known of the files that lie in a model's folder: `<model_dir>/_modelring/kept/<model id>`, one JSON object.
//!
//! Files are used again only for the same reference (type, path, key, and where the storage entry points to) and, where the
//! storage can be asked, the same objects (keys, sizes, etags). They were not forced to disk, so they count only until the
//! machine restarts.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use modelring_placement::id::{ModelId, ModelRef};
use serde::{Deserialize, Serialize};
use sha1::{Digest, Sha1};

/// What is known of the files of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// Sum over the reference.
    pub(super) reference: String,
    /// Sum over the objects.
    pub(super) fingerprint: String,
    /// Bytes on disk, all files.
    pub(super) bytes: u64,
    /// Start of the machine since which they lie there.
    machine: String,
}

/// The records of a model directory.
#[derive(Debug)]
pub(super) struct Records {
    dir: PathBuf,
    machine: String,
}

/// Sum over what must be the same for files to be used again.
pub(super) fn reference(model: &ModelRef, origin: &str) -> String {
    let mut sum = Sha1::new();
    for text in [&model.model_type, &model.path, &model.key, origin] {
        sum.update((text.len() as u64).to_le_bytes());
        sum.update(text);
    }
    format!("{:x}", sum.finalize())
}

// === impl Records ===

impl Records {
    /// The records in a folder, which is made.
    pub(super) fn open(dir: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&dir)?;
        // Where the kernel does not tell, nothing is known again after a restart of the agent.
        let machine = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned();
        Ok(Self { dir, machine })
    }

    /// A record of files that have just been brought.
    pub(super) fn new_record(&self, reference: String, fingerprint: String, bytes: u64) -> Record {
        Record { reference, fingerprint, bytes, machine: self.machine.clone() }
    }

    /// Every record that still counts, with the time of the last use. The others are removed.
    pub(super) fn read(&self) -> io::Result<Vec<(ModelId, Record, SystemTime)>> {
        let mut records = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            match (entry.file_name().into_string(), self.read_one(&entry.path())) {
                (Ok(model), Some((record, used))) => records.push((model.into(), record, used)),
                _ => super::aside::remove(&entry.path())?,
            }
        }
        Ok(records)
    }

    fn read_one(&self, path: &Path) -> Option<(Record, SystemTime)> {
        let used = fs::metadata(path).and_then(|found| found.modified()).ok()?;
        let record: Record = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
        (record.machine == self.machine && !self.machine.is_empty()).then_some((record, used))
    }

    /// Writes a record, aside and renamed.
    pub(super) fn write(&self, model: &ModelId, record: &Record) -> io::Result<()> {
        // No model's name begins so.
        let aside = self.dir.join(format!(".{}", record.reference));
        fs::write(&aside, serde_json::to_vec(record)?)?;
        fs::rename(aside, self.dir.join(model.as_str()))
    }

    /// Notes that the files were used now.
    pub(super) fn touch(&self, model: &ModelId) -> io::Result<()> {
        fs::File::options().write(true).open(self.dir.join(model.as_str()))?.set_modified(SystemTime::now())
    }

    /// Removes a record; none is fine.
    pub(super) fn remove(&self, model: &ModelId) -> io::Result<()> {
        super::aside::remove(&self.dir.join(model.as_str()))
    }
}
