//! Turns the updates of control into tables.

use std::fmt;

use modelring_proto::v1::{self, routes_update::Kind};

use super::{Table, draft::Draft, entry::Version};

/// Takes the updates of one stream in order; keeps the last good table's version and a snapshot that is not whole yet.
#[derive(Default)]
pub struct Inbox {
    snapshot: Option<(Version, Draft)>,
}

/// Why an update was refused. The last good table stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is of an older control than the last table; dial again.
    OlderControl {
        /// Version of the update.
        of: Version,
        /// Version of the last table.
        last: Version,
    },
    /// A delta to another table than the last one.
    OtherBase {
        /// Version of the update.
        of: Version,
        /// Version of the last table, if any.
        last: Option<Version>,
    },
    /// It says something that cannot be.
    Wrong(String),
}

// === impl Inbox ===

impl Inbox {
    /// Takes an update; `last` is the last good table. Returns the next table when one is whole.
    ///
    /// # Errors
    ///
    /// The update does not apply; it is refused whole.
    pub fn receive(&mut self, last: Option<&Table>, update: v1::RoutesUpdate) -> Result<Option<Table>, Refusal> {
        let kind = update.kind();
        let Some(version) = update.version.map(Version::from) else {
            return Err(Refusal::Wrong("an update has no version".into()));
        };
        if let Some(last) = last.map(|last| last.version).filter(|last| version.epoch < last.epoch) {
            self.snapshot = None;
            return Err(Refusal::OlderControl { of: version, last });
        }
        let change = update.change.unwrap_or_default();
        match kind {
            Kind::Unspecified | Kind::Observed => Err(Refusal::Wrong("an update is of no known kind".into())),
            Kind::SnapshotChunk | Kind::SnapshotEnd => {
                let (_, mut draft) = self
                    .snapshot
                    .take()
                    .filter(|(of, _)| *of == version)
                    .unwrap_or_else(|| (version, Draft::snapshot()));
                draft.apply(change);
                if kind == Kind::SnapshotChunk {
                    self.snapshot = Some((version, draft));
                    return Ok(None);
                }
                draft.finish(version).map(Some).map_err(Refusal::Wrong)
            }
            Kind::Delta => {
                self.snapshot = None;
                let follows = |last: &&Table| last.version.epoch == version.epoch && last.version.n + 1 == version.n;
                let Some(base) = last.filter(follows) else {
                    return Err(Refusal::OtherBase { of: version, last: last.map(|last| last.version) });
                };
                let mut draft = Draft::delta(base);
                draft.apply(change);
                draft.finish(version).map(Some).map_err(Refusal::Wrong)
            }
        }
    }
}

// === impl Refusal ===

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OlderControl { of, last } => {
                write!(f, "table {of} is of an older control than table {last}, which is in force")
            }
            Self::OtherBase { of, last: Some(last) } => write!(f, "table {of} does not follow table {last}"),
            Self::OtherBase { of, last: None } => write!(f, "table {of} is a change, but there is no table yet"),
            Self::Wrong(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for Refusal {}
