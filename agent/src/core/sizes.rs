//! How much memory to reserve for a model whose files are known: learned per type from what loaded models turned out to
//! need. Kept in `<model_dir>/_modelring/sizes`, one JSON object of type and factor, so that a restart forgets nothing; what is
//! not that, or no number that could have been learned, is ignored.

use std::{
    collections::HashMap,
    fs, io,
    io::Read,
    path::{Path, PathBuf},
};

use tokio::task::JoinHandle;

/// Bytes in memory per byte on disk, before anything is learned.
const AT_FIRST: f64 = 1.25;
/// Weight of the newest model.
const NEWEST: f64 = 0.2;
/// Memory below the size on disk is believed only in part: the next model may not be compressed.
const LEAST: f64 = 0.5;
const MOST: f64 = 1e3;
/// Most types that are remembered.
const MOST_TYPES: usize = 1024;
/// Most bytes of the name of one.
const MOST_NAME: usize = 256;
/// Most bytes of the file that are read.
const MOST_BYTES: u64 = 1 << 20;

/// What is known of the types of models.
#[derive(Debug, Default)]
pub(super) struct Sizes {
    factors: HashMap<String, f64>,
    /// Whether something of it is not in the file yet.
    is_new: bool,
    path: PathBuf,
    writing: Option<JoinHandle<()>>,
}

// === impl Sizes ===

impl Sizes {
    /// What is in a file; nothing where there is none, or none that can be read.
    pub(super) fn read(path: PathBuf) -> Self {
        let mut text = String::new();
        let read = fs::File::open(&path).and_then(|file| file.take(MOST_BYTES).read_to_string(&mut text));
        let factors: HashMap<String, f64> = match read.map(|_| serde_json::from_str(&text)) {
            Ok(Ok(factors)) => factors,
            Err(error) if error.kind() == io::ErrorKind::NotFound => HashMap::new(),
            Ok(Err(error)) => ignored(&path, &error),
            Err(error) => ignored(&path, &error),
        };
        let known =
            factors.into_iter().filter(|(name, factor)| name.len() <= MOST_NAME && (LEAST..=MOST).contains(factor));
        Self { factors: known.take(MOST_TYPES).collect(), is_new: false, path, writing: None }
    }

    /// Has what is new written, unless that is going on: then at the next time.
    pub(super) fn keep(&mut self) {
        if !self.is_new || self.writing.as_ref().is_some_and(|writing| !writing.is_finished()) {
            return;
        }
        self.is_new = false;
        let Ok(text) = serde_json::to_string(&self.factors) else { return };
        let path = self.path.clone();
        self.writing = Some(tokio::task::spawn_blocking(move || {
            if let Err(error) = write(&path, &text) {
                tracing::warn!(path = %path.display(), %error, "what was learned of sizes is not kept");
            }
        }));
    }

    /// Waits for the last write: the model directory is another's afterwards.
    pub(super) async fn settle(&mut self) {
        if let Some(writing) = self.writing.take() {
            let _ = writing.await;
        }
    }

    /// Bytes to reserve for so many bytes of files.
    pub(super) fn expected(&self, model_type: &str, on_disk: u64) -> u64 {
        let factor = self.factors.get(model_type).copied().unwrap_or(AT_FIRST);
        (on_disk as f64 * factor).ceil() as u64
    }

    /// A model of so many bytes of files needed so many bytes in memory.
    pub(super) fn learn(&mut self, model_type: &str, on_disk: u64, in_memory: u64) {
        if on_disk == 0 || in_memory == 0 {
            return;
        }
        let seen = (in_memory as f64 / on_disk as f64).clamp(LEAST, MOST);
        if let Some(factor) = self.factors.get_mut(model_type) {
            let before = *factor;
            *factor += (seen - *factor) * NEWEST;
            // What changes nothing much is not worth a write.
            self.is_new |= (*factor - before).abs() > before / 1000.0;
        } else if self.factors.len() < MOST_TYPES && model_type.len() <= MOST_NAME {
            self.factors.insert(model_type.to_owned(), seen);
            self.is_new = true;
        }
    }
}

fn ignored(path: &Path, error: &dyn std::error::Error) -> HashMap<String, f64> {
    tracing::warn!(path = %path.display(), %error, "what was learned of sizes is ignored, it is learned anew");
    HashMap::new()
}

/// Aside and renamed.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let aside = path.with_extension("new");
    fs::write(&aside, text)?;
    fs::rename(aside, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_factor_starts_at_five_quarters_and_follows_what_is_seen() {
        let mut sizes = Sizes::default();
        assert_eq!(sizes.expected("mt:onnx", 1000), 1250);
        sizes.learn("mt:onnx", 1000, 2000);
        assert_eq!(sizes.expected("mt:onnx", 1000), 2000);
        assert_eq!(sizes.expected("mt:other", 1000), 1250);
        for _ in 0..50 {
            sizes.learn("mt:onnx", 1000, 3000);
        }
        assert_eq!(sizes.expected("mt:onnx", 1000), 3000);
    }

    #[tokio::test]
    async fn what_was_learned_outlives_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sizes");
        let mut sizes = Sizes::read(path.clone());
        sizes.keep();
        assert!(!path.exists(), "nothing was learned");
        sizes.learn("mt:onnx", 1000, 2000);
        sizes.keep();
        sizes.settle().await;
        let again = Sizes::read(path);
        assert_eq!((again.expected("mt:onnx", 1000), again.expected("mt:other", 1000)), (2000, 1250));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left aside");
    }

    #[test]
    fn garbage_in_the_file_is_ignored() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sizes");
        for garbage in [&b""[..], b"{", b"[1]", b"{\"mt:onnx\": \"much\"}", b"\xff\xfe", b"{\"mt:onnx\": 1e999}"] {
            fs::write(&path, garbage).unwrap();
            assert_eq!(Sizes::read(path.clone()).expected("mt:onnx", 1000), 1250);
        }
        fs::write(&path, r#"{"a": -1, "b": 0, "c": 1e9, "mt:onnx": 2}"#).unwrap();
        let sizes = Sizes::read(path.clone());
        assert_eq!((sizes.factors.len(), sizes.expected("mt:onnx", 1000)), (1, 2000), "and what is none is kept");
        let many: HashMap<_, _> = (0..5000).map(|n| (format!("mt:{n}"), 2.0)).collect();
        fs::write(&path, serde_json::to_string(&many).unwrap()).unwrap();
        assert_eq!(Sizes::read(path).factors.len(), MOST_TYPES);
    }

    #[test]
    fn nothing_is_learned_from_nothing() {
        let mut sizes = Sizes::default();
        sizes.learn("mt:onnx", 0, 5);
        sizes.learn("mt:onnx", 5, 0);
        assert_eq!(sizes.expected("mt:onnx", 1000), 1250);
        assert_eq!(sizes.expected("mt:onnx", 0), 0);
    }
}
