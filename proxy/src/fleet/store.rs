//! The last table on disk: a proxy whose container restarts while control is away starts from it. With it its epoch is
//! kept, so that an older control is refused after a restart too.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use modelring_proto::v1;
use prost::Message;
use tokio::time::sleep;

use super::{Fleet, backoff::Backoff};
use crate::table::{Inbox, Table, Version};

const FILE: &str = "table.pb";
/// Format of the file. One that cannot be read by what was read before gets another number.
const FORMAT: u32 = 2;
/// Least time between two writes.
const WRITE_EVERY: Duration = Duration::from_secs(1);
/// Longest time until a write that failed is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(30);

/// What the file says.
#[derive(Clone, PartialEq, Message)]
struct Kept {
    #[prost(uint32, tag = "1")]
    format: u32,
    /// The namespace whose table it is.
    #[prost(string, tag = "2")]
    namespace: String,
    #[prost(message, optional, tag = "3")]
    table: Option<v1::RoutesUpdate>,
}

/// Where the last table of a namespace is kept.
#[derive(Clone, Debug)]
pub(super) struct Store {
    dir: PathBuf,
    namespace: String,
}

/// Version of a table, for those who wait for the next one.
pub(super) type Seen = Option<Version>;

// === impl Store ===

impl Store {
    pub(super) fn new(dir: PathBuf, namespace: String) -> Self {
        Self { dir, namespace }
    }

    /// Reads the last table. A file that is not there, or cannot be used, is as none.
    pub(super) fn read(&self) -> Option<Table> {
        let path = self.dir.join(FILE);
        match fs::read(&path) {
            Ok(bytes) => self
                .table(&bytes)
                .inspect_err(|error| tracing::warn!(path = %path.display(), error, "kept table is not used"))
                .ok(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "kept table cannot be read");
                None
            }
        }
    }

    fn table(&self, bytes: &[u8]) -> Result<Table, String> {
        let Kept { format, namespace, table } = Kept::decode(bytes).map_err(|error| error.to_string())?;
        if format != FORMAT {
            return Err(format!("it is of format {format}, this proxy reads {FORMAT}"));
        }
        if namespace != self.namespace {
            return Err(format!("it is of namespace `{namespace}`, this proxy serves `{}`", self.namespace));
        }
        let table = Inbox::default().receive(None, table.unwrap_or_default()).map_err(|error| error.to_string())?;
        table.ok_or_else(|| "it is not whole".to_owned())
    }

    /// Writes a table aside and renames it once it has reached the disk, so that a reader sees the old one or the new one,
    /// also after a crash of the machine.
    ///
    /// # Errors
    ///
    /// The folder cannot be written.
    fn write(&self, table: &Table) -> io::Result<()> {
        let kept = Kept { format: FORMAT, namespace: self.namespace.clone(), table: Some(table.to_snapshot()) };
        fs::create_dir_all(&self.dir)?;
        let aside = self.dir.join(format!("{FILE}.new"));
        let mut file = File::create(&aside)?;
        file.write_all(&kept.encode_to_vec())?;
        file.sync_all()?;
        fs::rename(aside, self.dir.join(FILE))?;
        File::open(&self.dir)?.sync_all()
    }

    /// Keeps each new table, for as long as the task runs. One that cannot be written is tried again.
    pub(super) async fn keep(self, fleet: Arc<Fleet>) {
        let mut kept = fleet.table().map(|table| table.version);
        let mut tables = fleet.versions();
        let mut backoff = Backoff::new(WRITE_EVERY, TRY_AGAIN);
        let mut said = String::new();
        loop {
            if tables.wait_for(|version| *version != kept).await.is_err() {
                return;
            }
            let Some(table) = fleet.table() else { continue };
            let (store, version) = (self.clone(), table.version);
            let written = tokio::task::spawn_blocking(move || store.write(&table)).await;
            let problem = match written {
                Ok(Ok(())) => {
                    kept = Some(version);
                    backoff.reset();
                    said.clear();
                    sleep(WRITE_EVERY).await;
                    continue;
                }
                Ok(Err(error)) => error.to_string(),
                Err(error) => error.to_string(),
            };
            if problem != said {
                tracing::warn!(dir = %self.dir.display(), error = problem, "table cannot be kept on disk, it is tried again");
                said = problem;
            }
            backoff.wait().await;
        }
    }
}
