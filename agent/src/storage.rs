//! Where model files come from.

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
    /// The joined path, or an error that names the path and the root.
    fn safe_join(&self, relative: &str) -> Result<PathBuf, LoadError>;
}
