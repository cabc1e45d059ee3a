//! Type `local`: models from a folder of this machine, for running without a cluster. Files are linked, not copied. Each
//! link's target has been resolved and lies below the entry's folder, which lies below the agent's `--local-root`.

use std::{
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use modelring_placement::pod::LoadError;
use tokio_util::sync::CancellationToken;
use tonic::Code;

use super::{Aside, Found, OnProgress, SafeJoin, Storage, Target, entry::Entry};
use crate::{
    failure::{file, passing, permanent},
    server::BoxFuture,
};

/// Deepest folder of a model: ends the walk where folders are linked in a circle.
const DEEPEST: usize = 32;
/// Most files of a model.
const MOST_FILES: usize = 100_000;

/// A folder of models.
#[derive(Debug)]
pub(crate) struct Local {
    /// The folder, its links resolved.
    root: PathBuf,
}

/// A file of a model.
#[derive(Clone, Debug)]
struct Source {
    /// Where it is in the model; empty for a model of one file.
    relative: PathBuf,
    /// The file itself, no link.
    source: PathBuf,
    bytes: u64,
}

/// The files of a model, each with its place below the model's folder.
struct Links(Vec<(PathBuf, Source)>);

// === impl Local ===

impl Local {
    /// The folder that an entry names, relative to the agent's root.
    pub(crate) fn new(local_root: &Path, entry: &Entry) -> Result<Self, LoadError> {
        let path = entry.required("path")?;
        let root = local_root.safe_join(path)?;
        match fs::metadata(&root) {
            Ok(found) if found.is_dir() => Ok(Self { root }),
            Ok(_) => {
                Err(permanent(Code::FailedPrecondition, format!("storage folder '{}' is not a folder", root.display())))
            }
            Err(error) => Err(file("read storage folder", &root, &error)),
        }
    }

    /// All files of a model.
    fn list(&self, remote: &str, given_up: &CancellationToken) -> Result<Vec<Source>, LoadError> {
        // A trailing slash says "a folder" in object stores; here the disk says what it is.
        let top = self.root.safe_join(remote)?;
        let mut files = Vec::new();
        let mut todo = vec![(PathBuf::new(), top.clone(), 0)];
        while let Some((relative, path, depth)) = todo.pop() {
            if given_up.is_cancelled() {
                return Err(passing(Code::Cancelled, "the pull was given up"));
            }
            let found = fs::metadata(&path).map_err(|error| match error.kind() {
                io::ErrorKind::NotFound if path == top => permanent(
                    Code::NotFound,
                    format!("no file or folder '{remote}' in storage folder '{}'", self.root.display()),
                ),
                _ => file("read", &path, &error),
            })?;
            if found.is_file() {
                files.push(Source { relative, source: path, bytes: found.len() });
            } else if found.is_dir() {
                if depth == DEEPEST {
                    return Err(permanent(
                        Code::InvalidArgument,
                        format!("'{}' is deeper than {DEEPEST} folders", path.display()),
                    ));
                }
                for child in self.children(&path)? {
                    let name = relative.join(&child);
                    todo.push((name, self.inside(&path.join(&child))?, depth + 1));
                }
            }
            if files.len() + todo.len() > MOST_FILES {
                return Err(permanent(Code::InvalidArgument, format!("'{remote}' has more than {MOST_FILES} files")));
            }
        }
        if files.is_empty() {
            return Err(permanent(
                Code::NotFound,
                format!("'{remote}' in storage folder '{}' has no file", self.root.display()),
            ));
        }
        Ok(files)
    }

    fn children(&self, folder: &Path) -> Result<Vec<std::ffi::OsString>, LoadError> {
        let read = |error| file("read", folder, &error);
        fs::read_dir(folder).map_err(read)?.map(|child| Ok(child.map_err(read)?.file_name())).collect()
    }

    /// Where a file of a listed folder really is.
    fn inside(&self, path: &Path) -> Result<PathBuf, LoadError> {
        let real = path.canonicalize().map_err(|error| file("follow", path, &error))?;
        if real.starts_with(&self.root) {
            return Ok(real);
        }
        let text = format!("path '{}' leads by a link out of '{}'", path.display(), self.root.display());
        Err(permanent(Code::InvalidArgument, text))
    }
}

impl Storage for Local {
    fn origin(&self) -> String {
        self.root.display().to_string()
    }

    fn find<'a>(&'a self, targets: &'a [Target]) -> BoxFuture<'a, Result<Box<dyn Found>, LoadError>> {
        let (root, targets) = (self.root.clone(), targets.to_vec());
        blocking(move |given_up| {
            let local = Self { root };
            let mut links = Vec::new();
            for Target { remote, local: name } in targets {
                for source in local.list(&remote, given_up)? {
                    // Joined with nothing, a path would gain a slash.
                    let place = Path::new(&name);
                    let link = if source.relative.as_os_str().is_empty() {
                        place.to_owned()
                    } else {
                        place.join(&source.relative)
                    };
                    links.push((link, source));
                }
            }
            Ok(Box::new(Links(links)) as Box<dyn Found>)
        })
    }
}

// === impl Links ===

impl Found for Links {
    fn bytes(&self) -> u64 {
        self.0.iter().map(|(_, source)| source.bytes).sum()
    }

    fn fingerprint(&self) -> Option<String> {
        None
    }

    fn bring<'a>(&'a self, into: &'a Aside, on_progress: OnProgress<'a>) -> BoxFuture<'a, Result<(), LoadError>> {
        let (links, into) = (self.0.clone(), into.clone());
        let linked = blocking(move |given_up| link(&links, &into, given_up));
        Box::pin(async move {
            linked.await?;
            on_progress(self.bytes(), self.bytes());
            Ok(())
        })
    }
}

fn link(links: &[(PathBuf, Source)], into: &Aside, given_up: &CancellationToken) -> Result<(), LoadError> {
    for (link, Source { source, .. }) in links {
        if given_up.is_cancelled() {
            return Err(passing(Code::Cancelled, "the pull was given up"));
        }
        let link = into.path().join(link);
        if let Some(folder) = link.parent() {
            fs::create_dir_all(folder).map_err(|error| file("make", folder, &error))?;
        }
        symlink(source, &link).map_err(|error| file("link", &link, &error))?;
    }
    Ok(())
}

/// Runs work with files on a thread that may block. Dropping the future tells the work to stop.
fn blocking<T: Send + 'static>(
    work: impl FnOnce(&CancellationToken) -> Result<T, LoadError> + Send + 'static,
) -> BoxFuture<'static, Result<T, LoadError>> {
    Box::pin(async move {
        let given_up = CancellationToken::new();
        let _on_drop = given_up.clone().drop_guard();
        match tokio::task::spawn_blocking(move || work(&given_up)).await {
            Ok(result) => result,
            Err(error) => Err(passing(Code::Internal, format!("the work with files ended: {error}"))),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn new(files: &[(&str, &str)]) -> Self {
            let dir = tempfile::tempdir().unwrap();
            for (name, text) in files {
                let path = dir.path().join("models").join(name);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            Self(dir)
        }

        fn models(&self) -> PathBuf {
            self.0.path().join("models").canonicalize().unwrap()
        }

        async fn pull(&self, remote: &str) -> Result<PathBuf, LoadError> {
            let into = self.0.path().join("pulled");
            let aside = Aside::at(into.clone());
            self.find(remote).await?.bring(&aside, &|_, _| {}).await?;
            let moved = self.0.path().join("moved");
            fs::rename(into, &moved).unwrap();
            Ok(moved.join("m"))
        }

        async fn find(&self, remote: &str) -> Result<Box<dyn Found>, LoadError> {
            let targets = [Target { remote: remote.to_owned(), local: "m".to_owned() }];
            Local { root: self.models() }.find(&targets).await
        }
    }

    #[tokio::test]
    async fn one_file_is_one_link_to_the_file_itself() {
        let folder = Folder::new(&[("onnx/m.onnx", "12345")]);
        symlink("m.onnx", folder.models().join("onnx/alias")).unwrap();
        let link = folder.pull("onnx/alias").await.unwrap();
        assert_eq!(fs::read_link(link).unwrap(), folder.models().join("onnx/m.onnx"));
    }

    #[tokio::test]
    async fn a_folder_becomes_folders_with_a_link_for_each_file() {
        let folder = Folder::new(&[("m/a", "1"), ("m/sub/b", "22"), ("m_more", "no")]);
        symlink("sub", folder.models().join("m/again")).unwrap();
        let pulled = folder.pull("m/").await.unwrap();
        assert_eq!(fs::read_to_string(pulled.join("again/b")).unwrap(), "22");
        assert!(fs::symlink_metadata(pulled.join("sub")).unwrap().is_dir());
        assert!(fs::symlink_metadata(pulled.join("sub/b")).unwrap().is_symlink());
        assert_eq!(folder.find("m").await.unwrap().bytes(), 5);
    }

    #[tokio::test]
    async fn what_is_missing_empty_circular_or_outside_fails_for_good_and_is_named() {
        let folder = Folder::new(&[("m/a", "1"), ("out/a", "1"), ("circle/a", "1")]);
        fs::create_dir(folder.models().join("empty")).unwrap();
        fs::write(folder.0.path().join("secret"), "s").unwrap();
        symlink("../../secret", folder.models().join("out/b")).unwrap();
        symlink(".", folder.models().join("circle/b")).unwrap();
        for (remote, text) in [
            ("m/x.onnx", "no file or folder 'm/x.onnx'"),
            ("empty", "has no file"),
            ("circle", "deeper than"),
            ("out", "leads by a link out of"),
            ("../secret", "climbs out"),
            ("/m/a", "is absolute"),
            ("m/a/b", "m/a/b"),
        ] {
            let error = folder.pull(remote).await.unwrap_err();
            assert!(error.text.contains(text), "{remote}: {}", error.text);
            assert!(!error.passing, "{remote}: {}", error.text);
        }
    }
}
