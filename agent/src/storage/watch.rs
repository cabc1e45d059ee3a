//! Notices that the storage Secret has changed, so that failures which it may have caused are forgotten.

use std::{fs, path::Path, time::SystemTime};

/// What the folder of entries looked like; differs after any change.
pub(crate) type Look = Vec<(std::ffi::OsString, Option<SystemTime>, u64)>;

/// Looks at the folder of entries. One that cannot be read looks empty.
pub(crate) fn look(config_dir: &Path) -> Look {
    let Ok(entries) = fs::read_dir(config_dir) else { return Look::new() };
    let mut look: Look = entries
        .flatten()
        .map(|entry| {
            // A mounted Secret is a folder of links; the target changes.
            let found = fs::metadata(entry.path());
            let (modified, bytes) = found.map_or((None, 0), |found| (found.modified().ok(), found.len()));
            (entry.file_name(), modified, bytes)
        })
        .collect();
    look.sort();
    look
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_added_a_changed_and_a_removed_entry_are_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let mut looks = vec![look(dir.path())];
        fs::write(dir.path().join("k"), "{}").unwrap();
        looks.push(look(dir.path()));
        fs::write(dir.path().join("k"), r#"{"type":"s3"}"#).unwrap();
        looks.push(look(dir.path()));
        fs::remove_file(dir.path().join("k")).unwrap();
        assert!(looks.windows(2).all(|pair| pair[0] != pair[1]));
        assert_ne!(looks.last(), Some(&look(dir.path())));
        assert_eq!(look(dir.path()), look(dir.path()));
    }
}
