//! What another kind of model would implement: the seam between the server and what it serves.

use std::path::PathBuf;

use crate::{
    error::{Error, Result},
    tensor::{Signature, Tensor},
};

/// What the agent says of a model to be loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelFiles {
    /// Its id. Ids are never reused for other content.
    pub id: String,
    /// Its type, e.g. `mt:onnx`.
    pub model_type: String,
    /// Where its files are: a file, or a folder.
    pub path: PathBuf,
    /// JSON with `model_type`, `disk_size_bytes` and, where there is one, `schema_path`.
    pub key: String,
}

/// Makes models of files. Its methods may block; they are called on threads that may.
pub trait Loader: Send + Sync + 'static {
    /// Loads a model. What it answers can be called at once.
    ///
    /// # Errors
    /// [`Error::NoFile`] and [`Error::InvalidModel`] where another try will not help; a panic becomes
    /// [`Error::Internal`].
    fn load(&self, files: &ModelFiles) -> Result<Box<dyn Servable>>;

    /// Predicts the bytes that a model will take. The files may not be there yet. Must be fast: the caller waits 500 ms.
    ///
    /// # Errors
    /// Any error means: not known.
    fn predict(&self, files: &ModelFiles) -> Result<u64>;

    /// An unload of the model has arrived; calls of it may still be running. The model itself is dropped when they are
    /// done.
    fn unloading(&self, id: &str) {
        let _ = id;
    }
}

/// A loaded model. Dropping it gives its memory back.
pub trait Servable: Send + Sync + 'static {
    /// What it takes and gives. Does not change.
    fn signature(&self) -> &Signature;

    /// Bytes that it takes in memory.
    fn size(&self) -> u64;

    /// Most calls at once, 0 = no limit of its own.
    fn max_concurrency(&self) -> u32 {
        0
    }

    /// Runs the model: inputs in the order of the signature and fitting it, outputs in the order of the signature, all
    /// of them. Called from several threads at once; may block.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] where the values of the inputs are at fault; a panic becomes [`Error::Internal`].
    fn infer(&self, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, Error>;
}
