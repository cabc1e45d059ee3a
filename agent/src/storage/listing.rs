//! Which objects are a model's, and where each of them goes.
//!
//! A path names one object, or a folder: all objects whose keys begin with the path and a slash. An empty path is the whole
//! bucket. Objects without content and markers of folders (keys that end in a slash) are left out, as ModelMesh did
//! (runtime-adapter, `util/cloudstorage`).

use std::path::{Path, PathBuf};

use modelring_placement::pod::LoadError;
use tonic::Code;

use super::{
    download::persist,
    objects::{Object, Objects, Page},
};
use crate::failure::{permanent, prefixed};

/// Most objects of a model.
const MOST_OBJECTS: usize = 100_000;
/// Most pages of a listing, so that a store that never ends does not hold a load for ever.
const MOST_PAGES: usize = 10_000;
/// Longest part of a path that file systems take, bytes.
const LONGEST_NAME: usize = 255;
/// Longest path of a file below the model's folder, bytes: with the folder's own path it stays below the system's 4,096.
const LONGEST_PATH: usize = 3_072;

/// An object and its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Placed {
    pub(super) object: Object,
    /// Below the model's folder.
    pub(super) file: PathBuf,
}

/// What was found so far.
struct Search<'a> {
    store: &'a dyn Objects,
    remote: &'a str,
    local: &'a str,
    placed: Vec<Placed>,
    /// Objects that are the model's and are left out.
    left_out: usize,
    pages: usize,
}

/// Finds the objects of a path and places them at `local` in the model's folder.
pub(super) async fn find(store: &dyn Objects, remote: &str, local: &str) -> Result<Vec<Placed>, LoadError> {
    // A path of slashes only is an empty one, written by hand.
    let remote = if remote.trim_matches('/').is_empty() { "" } else { remote };
    let mut search = Search { store, remote, local, placed: Vec::new(), left_out: 0, pages: 0 };
    let mut prefix = remote.to_owned();
    let mut from = search.take(&prefix, None).await?;
    if from.is_some() && !remote.is_empty() && !remote.ends_with('/') {
        // The object of this very key is the first of all that begin with it. What follows may be others by the thousand
        // (`path_with_more`), so the folder is listed anew.
        search.placed.retain(|placed| placed.object.key == remote);
        prefix.push('/');
        from = search.take(&prefix, None).await?;
    }
    while from.is_some() {
        from = search.take(&prefix, from.as_deref()).await?;
    }
    search.end()
}

// === impl Search ===

impl Search<'_> {
    /// Takes one part of the listing, and says where the next begins.
    async fn take(&mut self, prefix: &str, from: Option<&str>) -> Result<Option<String>, LoadError> {
        self.pages += 1;
        if self.pages > MOST_PAGES {
            let text = format!("the listing of '{}' in {} does not end", self.remote, self.store.name());
            return Err(permanent(Code::OutOfRange, text));
        }
        let Page { objects, next } = page(self.store, prefix, from).await?;
        for object in objects {
            let Some(relative) = relative(self.remote, &object.key) else { continue };
            if object.bytes == 0 || object.key.ends_with('/') {
                self.left_out += 1;
                continue;
            }
            let file = place(self.local, relative).map_err(|what| unusable(self.store, &object.key, what))?;
            self.placed.push(Placed { object, file });
            if self.placed.len() > MOST_OBJECTS {
                let text = format!("'{}' in {} has more than {MOST_OBJECTS} objects", self.remote, self.store.name());
                return Err(permanent(Code::InvalidArgument, text));
            }
        }
        Ok(next)
    }

    fn end(mut self) -> Result<Vec<Placed>, LoadError> {
        let (store, remote) = (self.store, self.remote);
        if self.placed.is_empty() {
            let content = if self.left_out > 0 { " with any content" } else { "" };
            let text = format!(
                "no object{content} at '{remote}' in {} ({}); check the model's path",
                store.name(),
                store.host()
            );
            return Err(permanent(Code::NotFound, text));
        }
        self.placed.sort_by(|a, b| a.file.cmp(&b.file));
        check_for_conflicts(store, &self.placed)?;
        Ok(self.placed)
    }
}

/// One part of a listing.
async fn page(store: &dyn Objects, prefix: &str, from: Option<&str>) -> Result<Page, LoadError> {
    let listed = persist(|| store.list(prefix, from)).await;
    listed.map_err(|error| prefixed(&format!("unable to list objects in {}: ", store.name()), error))
}

/// What is left of a key below the path; none where the key is another's.
fn relative<'a>(remote: &str, key: &'a str) -> Option<&'a str> {
    let rest = key.strip_prefix(remote)?;
    (remote.is_empty() || remote.ends_with('/') || rest.is_empty() || rest.starts_with('/')).then_some(rest)
}

/// The file of a key, which lies below `local` whatever the key says.
fn place(local: &str, relative: &str) -> Result<PathBuf, &'static str> {
    let mut file = PathBuf::from(local);
    if relative.contains('\0') {
        return Err("holds a NUL");
    }
    for part in relative.split('/') {
        match part {
            "" | "." => {}
            ".." => return Err("climbs by '..'"),
            part if part.len() > LONGEST_NAME => return Err("has a part of more than 255 bytes"),
            part => file.push(part),
        }
    }
    if file.as_os_str().len() > LONGEST_PATH {
        return Err("is too long for a path");
    }
    Ok(file)
}

/// Two keys that would be one file, or a file and a folder at once.
fn check_for_conflicts(store: &dyn Objects, sorted: &[Placed]) -> Result<(), LoadError> {
    for pair in sorted.windows(2) {
        let [one, other] = pair else { continue };
        // Sorted by their parts, a file is followed at once by whatever would lie below it.
        if other.file.starts_with(&one.file) {
            let what = if one.file == other.file { "would be the same file as" } else { "would lie below the file of" };
            return Err(unusable(store, &other.object.key, &format!("{what} '{}'", shown(&one.object.key))));
        }
    }
    Ok(())
}

fn unusable(store: &dyn Objects, key: &str, what: &str) -> LoadError {
    let text = format!("key '{}' in {} cannot be a file: it {what}; rename the object", shown(key), store.name());
    permanent(Code::InvalidArgument, text)
}

/// A key for a text: short, and without what a terminal would take for itself.
fn shown(key: &str) -> String {
    key.chars().take(300).flat_map(char::escape_debug).collect()
}

/// All folders of the files, each behind its parent.
pub(super) fn folders(placed: &[Placed]) -> Vec<&Path> {
    let mut folders: Vec<&Path> = placed
        .iter()
        .flat_map(|placed| placed.file.ancestors().skip(1))
        .filter(|path| *path != Path::new(""))
        .collect();
    folders.sort_unstable();
    folders.dedup();
    folders
}

#[cfg(test)]
#[path = "listing/tests.rs"]
mod tests;
