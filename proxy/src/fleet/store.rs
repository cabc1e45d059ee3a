//! The last table on disk: a proxy whose container restarts while control is away starts from it.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use modelring_proto::v1;
use prost::Message;
use tokio::time::sleep;

use super::Fleet;
use crate::table::{Inbox, Table, Version};

const FILE: &str = "table.pb";
/// Least time between two writes.
const WRITE_EVERY: Duration = Duration::from_secs(1);

/// Reads the last table. A file that is not there, or cannot be used, is as none.
pub(super) fn read(dir: &Path) -> Option<Table> {
    let path = dir.join(FILE);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "kept table cannot be read");
            return None;
        }
    };
    let update = v1::RoutesUpdate::decode(&*bytes).map_err(|error| error.to_string());
    let table = update.and_then(|update| Inbox::default().receive(None, update).map_err(|error| error.to_string()));
    match table {
        Ok(table) => table,
        Err(error) => {
            tracing::warn!(path = %path.display(), error, "kept table cannot be used");
            None
        }
    }
}

/// Writes a table aside and renames it, so that a reader sees the old one or the new one.
///
/// # Errors
///
/// The folder cannot be written.
pub(super) fn write(dir: &Path, table: &Table) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    let aside = dir.join(format!("{FILE}.new"));
    fs::write(&aside, table.to_snapshot().encode_to_vec())?;
    fs::rename(aside, dir.join(FILE))
}

/// Keeps each new table, for as long as the task runs.
pub(super) async fn keep(fleet: Arc<Fleet>, dir: PathBuf) {
    let mut kept = fleet.table().map(|table| table.version);
    let mut tables = fleet.versions();
    loop {
        let Ok(version) = tables.wait_for(|version| *version != kept).await.map(|version| *version) else { return };
        let Some(table) = fleet.table() else { continue };
        let into = dir.clone();
        let written = tokio::task::spawn_blocking(move || write(&into, &table)).await;
        if let Ok(Err(error)) = written {
            tracing::warn!(dir = %dir.display(), %error, "table cannot be kept on disk");
        }
        kept = version;
        sleep(WRITE_EVERY).await;
    }
}

/// Version of a table, for those who wait for the next one.
pub(super) type Seen = Option<Version>;
