//! The join that no name can climb out of.

use std::{
    io,
    path::{Component, Path, PathBuf},
};

use modelring_placement::pod::LoadError;
use tonic::Code;

use super::SafeJoin;
use crate::failure::{file, permanent};

impl SafeJoin for Path {
    fn safe_join(&self, relative: &str) -> Result<PathBuf, LoadError> {
        let refuse = |what: &str| {
            let text = format!("path '{relative}' {what} '{}'", self.display());
            Err(permanent(Code::InvalidArgument, text))
        };
        let root = self.canonicalize().map_err(|error| file("use", self, &error))?;
        let mut depth = 0_usize;
        let mut joined = root.clone();
        for part in Path::new(relative).components() {
            match part {
                Component::CurDir => continue,
                Component::Normal(name) => {
                    depth += 1;
                    joined.push(name);
                }
                Component::ParentDir if depth > 0 => {
                    depth -= 1;
                    joined.pop();
                }
                Component::ParentDir => return refuse("climbs out of"),
                Component::RootDir | Component::Prefix(_) => return refuse("is absolute, and not relative to"),
            }
            // Links are resolved at each step, so that `..` goes up from where a link led, as the kernel would.
            joined = match joined.symlink_metadata() {
                Ok(found) if found.is_symlink() => {
                    joined.canonicalize().map_err(|error| file("follow", &joined, &error))?
                }
                Ok(_) => joined,
                Err(error) if error.kind() == io::ErrorKind::NotFound => joined,
                Err(error) => return Err(file("read", &joined, &error)),
            };
            if !joined.starts_with(&root) {
                return refuse("leads by a link out of");
            }
        }
        Ok(joined)
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_path_inside_is_joined_and_may_name_what_is_not_there_yet() {
        let root = tempfile::tempdir().unwrap();
        let real = root.path().canonicalize().unwrap();
        fs::create_dir(real.join("a")).unwrap();
        for (relative, expected) in
            [("", ""), (".", ""), ("a", "a"), ("./a//b.txt", "a/b.txt"), ("a/../c", "c"), ("x/y", "x/y")]
        {
            assert_eq!(root.path().safe_join(relative).unwrap(), real.join(expected), "{relative}");
        }
    }

    #[test]
    fn climbing_out_absolute_paths_and_links_out_are_refused_with_path_and_root() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("sub")).unwrap();
        fs::write(dir.path().join("secret"), "s").unwrap();
        symlink(dir.path(), root.join("out")).unwrap();
        symlink("../../secret", root.join("sub/up")).unwrap();
        for relative in [
            "..",
            "../secret",
            "sub/../../secret",
            "../root/sub",
            "/etc/passwd",
            "out",
            "out/secret",
            "sub/up",
            "out/root/sub/../..",
        ] {
            let error = root.safe_join(relative).unwrap_err();
            assert_eq!(error.code, Code::InvalidArgument as u32, "{relative}");
            assert!(!error.passing);
            assert!(error.text.contains(relative) && error.text.contains("root"), "{}", error.text);
        }
    }

    #[test]
    fn links_that_stay_inside_are_followed_and_loops_end() {
        let root = tempfile::tempdir().unwrap();
        let real = root.path().canonicalize().unwrap();
        fs::create_dir(real.join("a")).unwrap();
        fs::write(real.join("a/f"), "f").unwrap();
        symlink("a", real.join("b")).unwrap();
        symlink(real.join("a/f"), real.join("absolute")).unwrap();
        symlink("loop", real.join("loop")).unwrap();
        assert_eq!(real.safe_join("b/f").unwrap(), real.join("a/f"));
        assert_eq!(real.safe_join("absolute").unwrap(), real.join("a/f"));
        assert!(real.safe_join("loop").unwrap_err().text.contains("loop"));
    }

    proptest! {
        #[test]
        fn no_path_leads_out_of_the_root(relative in "([a-c./]|\\.\\./){0,24}") {
            let dir = tempfile::tempdir().unwrap();
            let root = dir.path().join("root");
            fs::create_dir_all(root.join("a/b")).unwrap();
            symlink("..", root.join("a/c")).unwrap();
            symlink("../..", root.join("c")).unwrap();
            if let Ok(joined) = root.safe_join(&relative) {
                prop_assert!(joined.starts_with(root.canonicalize().unwrap()));
                if let Ok(real) = joined.canonicalize() {
                    prop_assert!(real.starts_with(root.canonicalize().unwrap()), "{}", real.display());
                }
            }
        }
    }
}
