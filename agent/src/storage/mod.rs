//! Where model files come from, and where they lie.
//!
//! A load goes through here in this order: the model key says which entry of `storage-config` counts and overlays it with
//! the model's parameters; the entry's type names the [`Storage`], which finds the files; the disk tier makes room for them;
//! they are brought aside, and moved to `<model_dir>/<model id>/` when they are whole. There they stay after an unload, for
//! as long as their room is not needed.
//!
//! | file | does |
//! |---|---|
//! | `key`, `entry` | which storage, configured how |
//! | `local` | folders of this machine: links |
//! | `objects` | what an object store must be able to do: the seam for S3 and its like |
//! | `listing`, `download` | what is common to all object stores: which objects are a model's, and how they are brought |
//! | `s3` | the S3 API |
//! | `store` | the model directory |
//! | `tier`, `record` | which files are kept after an unload, and how they are known again |

pub(crate) mod aside;
mod download;
pub(crate) mod entry;
mod join;
pub(crate) mod key;
mod listing;
mod local;
mod objects;
mod record;
mod s3;
pub(crate) mod store;
mod tier;
pub(crate) mod watch;

use std::path::PathBuf;

use modelring_placement::pod::LoadError;

use crate::server::BoxFuture;
use aside::Aside;

/// One file or folder to bring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// Path in the storage.
    pub(crate) remote: String,
    /// Name of it in the model's folder: one part, checked.
    pub(crate) local: String,
}

/// Tells how far a pull is: bytes done, bytes in all (0 = unknown).
pub(crate) type OnProgress<'a> = &'a (dyn Fn(u64, u64) + Send + Sync);

/// A kind of storage. Configured by the merged entry of `storage-config` and the model's parameters.
pub(crate) trait Storage: Send + Sync {
    /// Where the files come from, without secrets: files of the same path and another origin are other files.
    fn origin(&self) -> String;
    /// Finds the files of the targets; an error if there are none.
    fn find<'a>(&'a self, targets: &'a [Target]) -> BoxFuture<'a, Result<Box<dyn Found>, LoadError>>;
}

/// The files of a model, as they were found in a storage.
pub(crate) trait Found: Send + Sync {
    /// Bytes of all files; the basis of the reservation where the server predicts nothing.
    fn bytes(&self) -> u64;
    /// Tells one state of the files from another; none where bringing them costs nothing, so that they need not be kept.
    fn fingerprint(&self) -> Option<String>;
    /// Brings the files. They are whole when it returns; nothing outside the folder is written. Dropping the future gives
    /// the pull up.
    fn bring<'a>(&'a self, into: &'a Aside, on_progress: OnProgress<'a>) -> BoxFuture<'a, Result<(), LoadError>>;
}

/// Joins a relative path below a root and refuses whatever would leave it: absolute parts, `..`, links that lead out.
pub(crate) trait SafeJoin {
    /// The joined path with all links resolved, or an error that names the path and the root. What does not exist yet
    /// may be named; what exists must lie below the root.
    fn safe_join(&self, relative: &str) -> Result<PathBuf, LoadError>;
}
