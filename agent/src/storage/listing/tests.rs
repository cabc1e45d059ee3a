use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::{
    server::BoxFuture,
    storage::objects::{Body, Trouble},
};

/// A listing in memory, in pages.
struct Keys {
    objects: BTreeMap<String, u64>,
    page: usize,
}

impl Objects for Keys {
    fn origin(&self) -> String {
        "keys".to_owned()
    }

    fn name(&self) -> String {
        "bucket 'b'".to_owned()
    }

    fn host(&self) -> &str {
        "host"
    }

    fn list<'a>(&'a self, prefix: &'a str, from: Option<&'a str>) -> BoxFuture<'a, Result<Page, Trouble>> {
        let all = self.objects.iter().filter(|(key, _)| key.starts_with(prefix));
        let mut rest = all.filter(|(key, _)| from.is_none_or(|from| key.as_str() > from));
        let objects: Vec<_> = rest
            .by_ref()
            .take(self.page)
            .map(|(key, bytes)| Object { key: key.clone(), bytes: *bytes, etag: String::new() })
            .collect();
        let next = rest.next().and(objects.last()).map(|last| last.key.clone());
        Box::pin(std::future::ready(Ok(Page { objects, next })))
    }

    fn read<'a>(&'a self, _: &'a Object, _: std::ops::Range<u64>) -> BoxFuture<'a, Result<Body, Trouble>> {
        unreachable!("nothing is read here")
    }
}

async fn find_in(keys: &[&str], page: usize, remote: &str) -> Result<Vec<String>, LoadError> {
    let objects = keys.iter().map(|key| ((*key).to_owned(), 1)).collect();
    let placed = find(&Keys { objects, page }, remote, "m").await?;
    Ok(placed.into_iter().map(|placed| placed.file.display().to_string()).collect())
}

#[tokio::test]
async fn a_path_takes_its_object_and_its_folder_and_no_neighbour_whatever_the_pages() {
    let keys = ["a", "p", "p-x", "p.json", "p/1", "p/2/3", "p0", "path_with_more/x"];
    for page in 1..10 {
        assert_eq!(find_in(&keys[2..], page, "p").await.unwrap(), ["m/1", "m/2/3"]);
        assert_eq!(find_in(&keys, page, "p/").await.unwrap(), ["m/1", "m/2/3"]);
        assert_eq!(find_in(&keys, page, "p.json").await.unwrap(), ["m"]);
        assert_eq!(find_in(&keys[..1], page, "").await.unwrap(), ["m/a"]);
        assert_eq!(find_in(&keys[..1], page, "//").await.unwrap(), ["m/a"]);
    }
}

#[tokio::test]
async fn keys_that_cannot_be_files_together_are_refused_and_named() {
    let long = format!("p/{}", "x".repeat(256));
    let longer = format!("p/{}", "x/".repeat(2000));
    for (keys, text) in [
        (&["p", "p/1"][..], "key 'p/1' in bucket 'b' cannot be a file: it would lie below the file of 'p'"),
        (&["p/1", "p/1/2", "p/1-x"], "would lie below the file of 'p/1'"),
        (&["p/1", "p//1"], "would be the same file as"),
        (&["p/1", "p/./1"], "would be the same file as"),
        (&["p/../x"], "climbs by '..'"),
        (&["p/a/../../../x"], "climbs by '..'"),
        (&["p/a\0b"], "holds a NUL"),
        (&[&long], "has a part of more than 255 bytes"),
        (&[&longer[..longer.len() - 1]], "is too long for a path"),
        (&["q"], "no object at 'p' in bucket 'b' (host)"),
    ] {
        let error = find_in(keys, 1000, "p").await.unwrap_err();
        assert!(error.text.contains(text), "{}", error.text);
        assert!(!error.passing, "{}", error.text);
    }
}

#[tokio::test]
async fn empty_objects_and_markers_are_left_out_and_are_no_model_alone() {
    let objects = [("p/a", 0), ("p/dir/", 0), ("p/dir2/", 5), ("p/b", 1)].map(|(key, bytes)| (key.to_owned(), bytes));
    let mut keys = Keys { objects: objects.into(), page: 10 };
    assert_eq!(find(&keys, "p", "m").await.unwrap().len(), 1);
    keys.objects.remove("p/b");
    assert!(find(&keys, "p", "m").await.unwrap_err().text.contains("no object with any content at 'p'"));
}

proptest! {
    #[test]
    fn no_key_leaves_its_folder(relative in "([a-b./\\\\\0~ ]|\\.\\./|//|é){0,24}") {
        if let Ok(file) = place("m", &relative) {
            prop_assert!(file.starts_with("m"));
            prop_assert!(file.components().all(|part| matches!(part, std::path::Component::Normal(_))), "{}", file.display());
            prop_assert!(!file.as_os_str().as_encoded_bytes().contains(&0));
        }
    }

    #[test]
    fn files_that_are_found_can_all_be_made(keys in proptest::collection::btree_set("p(/[ab.]{0,2}){0,4}", 1..8)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let keys = Keys { objects: keys.into_iter().map(|key| (key, 1)).collect(), page: 3 };
        if let Ok(placed) = runtime.block_on(find(&keys, "p", "m")) {
            let dir = tempfile::tempdir().unwrap();
            for folder in folders(&placed) {
                std::fs::create_dir(dir.path().join(folder)).unwrap();
            }
            for placed in &placed {
                std::fs::File::create_new(dir.path().join(&placed.file)).unwrap();
            }
        }
    }
}
