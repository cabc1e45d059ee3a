//! Looks at the disk.

use std::{fs, io, path::Path};

use modelring_placement::pod::LoadError;
use tonic::Code;

use crate::{failure::passing, storage::tier::NoRoom};

/// Deepest folder that is looked into for the size on disk.
const DEEPEST: usize = 64;
/// A volume.
pub(super) struct Volume {
    /// Bytes in all.
    pub(super) size: u64,
    /// Bytes that may be written.
    pub(super) free: u64,
}

/// The volume of a path.
pub(super) fn volume(path: &Path) -> io::Result<Volume> {
    let found = rustix::fs::statvfs(path)?;
    Ok(Volume {
        size: found.f_blocks.saturating_mul(found.f_frsize),
        free: found.f_bavail.saturating_mul(found.f_frsize),
    })
}

/// A refusal for want of disk; the code says so to the pod.
pub(super) fn no_room(bytes: u64, NoRoom { limit, in_use, available }: NoRoom) -> LoadError {
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

/// Sums the regular files below a path, those behind links too.
pub(super) fn bytes_on_disk(path: &Path) -> io::Result<u64> {
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
