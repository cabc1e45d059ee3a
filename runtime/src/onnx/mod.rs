//! ONNX models, run by tract.

mod convert;
mod files;
mod inspect;
mod model;
mod plans;
mod size;

use model::OnnxModel;

use crate::{
    error::{Error, Result},
    servable::{Loader, ModelFiles, Servable},
};

/// Loads ONNX models.
#[derive(Clone, Copy, Debug, Default)]
pub struct OnnxLoader;

// === impl OnnxLoader ===

impl Loader for OnnxLoader {
    fn load(&self, files: &ModelFiles) -> Result<Box<dyn Servable>> {
        let file = files::find(&files.path)?;
        Ok(Box::new(OnnxModel::load(&file)?))
    }

    /// From the files, or, before they are there, from the `disk_size_bytes` of the key.
    fn predict(&self, files: &ModelFiles) -> Result<u64> {
        files::bytes(&files.path).or_else(|error| files::bytes_by_key(&files.key).ok_or(error)).map(size::predicted)
    }
}

/// What tract says, with all its causes: the last of them name the node and its operator.
fn invalid(what: &str, error: &tract_onnx::prelude::TractError) -> Error {
    Error::InvalidModel(format!("{what}: {error:#}"))
}
