//! Which file of a path is the model, and how large it is.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::error::{Error, Result};

/// Folders below the path that are looked into, so that `model/1/model.onnx` is found.
const DEPTH: usize = 2;

/// Entries of a folder that are looked at.
const MOST_ENTRIES: usize = 1000;

/// The model file of a path: the file itself, or the one `.onnx` file of the folder.
pub(super) fn find(path: &Path) -> Result<PathBuf> {
    if metadata(path)?.is_file() {
        return Ok(path.to_owned());
    }
    let mut found = vec![];
    walk(path, DEPTH, &mut |file, _| {
        if file.extension().is_some_and(|extension| extension == "onnx") {
            found.push(file.to_owned());
        }
    })?;
    match found.as_slice() {
        [file] => Ok(file.clone()),
        [] => Err(no_file(path, "the folder has no .onnx file")),
        many => Err(no_file(path, format!("the folder has {} .onnx files, one is needed", many.len()))),
    }
}

/// Bytes of all files of a path: a model may keep its weights in files beside it.
pub(super) fn bytes(path: &Path) -> Result<u64> {
    let metadata = metadata(path)?;
    if metadata.is_file() {
        return Ok(metadata.len());
    }
    let mut bytes = 0;
    walk(path, DEPTH, &mut |_, size| bytes += size)?;
    Ok(bytes)
}

/// The `disk_size_bytes` of a model key, where it says one.
pub(super) fn bytes_by_key(key: &str) -> Option<u64> {
    let key: serde_json::Value = serde_json::from_str(key).ok()?;
    key.get("disk_size_bytes")?.as_u64().filter(|bytes| *bytes > 0)
}

fn walk(folder: &Path, depth: usize, visit: &mut dyn FnMut(&Path, u64)) -> Result<()> {
    let entries = fs::read_dir(folder).map_err(|error| no_file(folder, error))?;
    for entry in entries.take(MOST_ENTRIES) {
        let path = entry.map_err(|error| no_file(folder, error))?.path();
        let metadata = metadata(&path)?;
        if metadata.is_file() {
            visit(&path, metadata.len());
        } else if metadata.is_dir() && depth > 0 {
            walk(&path, depth - 1, visit)?;
        }
    }
    Ok(())
}

/// Follows links: the agent links what lies on the same disk.
fn metadata(path: &Path) -> Result<fs::Metadata> {
    fs::metadata(path).map_err(|error| no_file(path, error))
}

fn no_file(path: &Path, why: impl ToString) -> Error {
    Error::NoFile { path: path.to_owned(), why: why.to_string() }
}
