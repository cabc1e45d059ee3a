//! Where model files come from.
//!
//! A load goes through here in this order: the model key says which entry of `storage-config` counts and overlays it
//! with the model's parameters; the entry's type names the [`Storage`]; the store has it bring the files aside and
//! moves them to `<model_dir>/<model id>/` when they are whole.

pub(crate) mod entry;
mod join;
pub(crate) mod key;
mod local;
pub(crate) mod store;
pub(crate) mod watch;

use std::path::PathBuf;

use modelring_placement::pod::LoadError;

use crate::server::BoxFuture;

/// One file or folder to bring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Path in the storage.
    pub remote: String,
    /// Where to put it.
    pub local: PathBuf,
}

/// Tells how far a pull is: bytes done, bytes in all (0 = unknown).
pub type OnProgress<'a> = &'a (dyn Fn(u64, u64) + Send + Sync);

/// A kind of storage. Configured by the merged entry of `storage-config` and the model's parameters.
pub trait Storage: Send + Sync {
    /// Bytes that a pull of these targets would bring; the basis of the reservation where the server predicts nothing.
    fn size<'a>(&'a self, targets: &'a [Target]) -> BoxFuture<'a, Result<u64, LoadError>>;
    /// Brings the targets. They are whole when it returns; nothing outside their `local` paths is written. Dropping the
    /// future gives the pull up and leaves nothing behind that a later pull would take for whole.
    fn pull<'a>(&'a self, targets: &'a [Target], on_progress: OnProgress<'a>) -> BoxFuture<'a, Result<(), LoadError>>;
}

/// Joins a relative path below a root and refuses whatever would leave it: absolute parts, `..`, links that lead out.
pub trait SafeJoin {
    /// The joined path with all links resolved, or an error that names the path and the root. What does not exist yet
    /// may be named; what exists must lie below the root.
    fn safe_join(&self, relative: &str) -> Result<PathBuf, LoadError>;
}
