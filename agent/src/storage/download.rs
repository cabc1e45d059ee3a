//! Brings objects: big ones in ranges, small ones side by side, a broken range from the byte that it had reached.

use std::{
    fs::{self, File},
    ops::Range,
    os::unix::fs::FileExt,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt, future::try_join_all};
use modelring_placement::pod::LoadError;
use parking_lot::Mutex;
use rand::Rng;
use sha1::{Digest, Sha1};
use tokio::{sync::Semaphore, time::timeout};
use tonic::Code;

use super::{
    Aside, Found, OnProgress, Storage, Target,
    listing::{self, Placed},
    objects::{Objects, Trouble},
    store::blocking,
};
use crate::{
    failure::{file, passing, permanent, prefixed},
    server::BoxFuture,
};

/// Bytes that are asked for at once: large enough that a request costs nothing beside it, small enough that eight of them
/// share a model of some hundred megabytes.
const PART: u64 = 16 << 20;
/// Requests of one pull that are open at once.
const AT_ONCE: usize = 8;
/// Bytes that are gathered before they are written.
const BUFFER: usize = 1 << 20;
/// After this long without a byte a range is asked for anew.
const STALLED: Duration = Duration::from_secs(10);
/// Tries of a request without progress.
const TRIES: u32 = 4;
/// Progress that makes a further failure a first one.
const PROGRESS: u64 = 64 << 10;
/// Pause before the second try, doubled before each further one.
const PAUSE: Duration = Duration::from_millis(200);

/// A storage over an object store.
pub(super) struct Download {
    objects: Arc<dyn Objects>,
    /// Requests of all pulls.
    permits: Arc<Semaphore>,
}

/// Objects that are to be brought.
struct Listed {
    objects: Arc<dyn Objects>,
    permits: Arc<Semaphore>,
    placed: Vec<Placed>,
}

/// A range of an object on its way to a file.
struct Part<'a> {
    objects: &'a dyn Objects,
    placed: &'a Placed,
    range: Range<u64>,
    path: PathBuf,
    /// The folder stays for as long as anyone may write to it.
    aside: Aside,
    done: &'a (dyn Fn(u64) + Send + Sync),
}

/// Parts that nobody fetches yet.
type Parts<'a> = Box<dyn Iterator<Item = Part<'a>> + Send + 'a>;

/// Asks until it is answered, the failure is of the lasting kind, or four tries were in vain.
pub(super) async fn persist<'a, T>(mut ask: impl FnMut() -> BoxFuture<'a, Result<T, Trouble>>) -> Result<T, LoadError> {
    let mut tries = 0;
    loop {
        match ask().await {
            Ok(answer) => return Ok(answer),
            Err(trouble) => {
                tries += 1;
                if !trouble.again || tries == TRIES {
                    return Err(trouble.error);
                }
                pause(tries).await;
            }
        }
    }
}

/// Waits a little longer each time, and not in step with others.
async fn pause(tries: u32) {
    let most = PAUSE * 2_u32.pow(tries.clamp(1, TRIES) - 1);
    let some = most.mul_f64(rand::rng().random_range(0.5..1.0));
    tokio::time::sleep(some).await;
}

// === impl Download ===

impl Download {
    pub(super) fn new(objects: impl Objects, permits: Arc<Semaphore>) -> Self {
        Self { objects: Arc::new(objects), permits }
    }
}

impl Storage for Download {
    fn origin(&self) -> String {
        self.objects.origin()
    }

    fn find<'a>(&'a self, targets: &'a [Target]) -> BoxFuture<'a, Result<Box<dyn Found>, LoadError>> {
        Box::pin(async move {
            let mut placed = Vec::new();
            for target in targets {
                placed.extend(listing::find(&*self.objects, &target.remote, &target.local).await?);
            }
            let found = Listed { objects: self.objects.clone(), permits: self.permits.clone(), placed };
            Ok(Box::new(found) as Box<dyn Found>)
        })
    }
}

// === impl Listed ===

impl Found for Listed {
    fn bytes(&self) -> u64 {
        self.placed.iter().map(|placed| placed.object.bytes).fold(0, u64::saturating_add)
    }

    fn fingerprint(&self) -> Option<String> {
        let mut sum = Sha1::new();
        for Placed { object, file } in &self.placed {
            for text in [file.as_os_str().as_encoded_bytes(), object.key.as_bytes(), object.etag.as_bytes()] {
                sum.update((text.len() as u64).to_le_bytes());
                sum.update(text);
            }
            sum.update(object.bytes.to_le_bytes());
        }
        Some(format!("{:x}", sum.finalize()))
    }

    fn bring<'a>(&'a self, into: &'a Aside, on_progress: OnProgress<'a>) -> BoxFuture<'a, Result<(), LoadError>> {
        Box::pin(async move {
            let (all, sum) = (self.bytes(), AtomicU64::new(0));
            let done = |bytes| on_progress(sum.fetch_add(bytes, Ordering::Relaxed) + bytes, all);
            self.make_folders(into).await?;
            let done = &done as &(dyn Fn(u64) + Send + Sync);
            let parts = self.placed.iter().flat_map(|placed| {
                ranges(placed.object.bytes).map(move |range| Part {
                    objects: &*self.objects,
                    placed,
                    range,
                    path: into.path().join(&placed.file),
                    aside: into.clone(),
                    done,
                })
            });
            let parts: Mutex<Parts<'_>> = Mutex::new(Box::new(parts));
            try_join_all((0..AT_ONCE).map(|_| self.fetch(&parts))).await?;
            self.check(into).await
        })
    }
}

impl Listed {
    async fn make_folders(&self, into: &Aside) -> Result<(), LoadError> {
        let folders: Vec<_> =
            listing::folders(&self.placed).into_iter().map(|folder| into.path().join(folder)).collect();
        let into = into.clone();
        blocking(move || {
            fs::create_dir_all(into.path()).map_err(|error| file("make", into.path(), &error))?;
            for folder in folders {
                fs::create_dir(&folder).map_err(|error| file("make", &folder, &error))?;
            }
            Ok(())
        })
        .await
    }

    /// Fetches one part after the other, until none is left.
    async fn fetch(&self, parts: &Mutex<Parts<'_>>) -> Result<(), LoadError> {
        loop {
            let next = parts.lock().next();
            let Some(part) = next else { return Ok(()) };
            let _permit = self.permits.acquire().await;
            part.fetch().await?;
        }
    }

    /// Whether every file has the size of its object.
    async fn check(&self, into: &Aside) -> Result<(), LoadError> {
        let expected: Vec<_> =
            self.placed.iter().map(|placed| (into.path().join(&placed.file), placed.object.bytes)).collect();
        let into = into.clone();
        blocking(move || {
            let _into = into;
            for (path, bytes) in expected {
                let found = fs::metadata(&path).map_err(|error| file("read", &path, &error))?.len();
                if found != bytes {
                    let text = format!("'{}' has {found} bytes, its object {bytes}", path.display());
                    return Err(passing(Code::DataLoss, text));
                }
            }
            Ok(())
        })
        .await
    }
}

/// The ranges in which an object of a size is read.
fn ranges(bytes: u64) -> impl Iterator<Item = Range<u64>> {
    (0..bytes.div_ceil(PART)).map(move |part| part * PART..bytes.min((part + 1) * PART))
}

// === impl Part ===

impl Part<'_> {
    async fn fetch(&self) -> Result<(), LoadError> {
        let (path, aside) = (self.path.clone(), self.aside.clone());
        let opened = blocking(move || {
            let _aside = aside;
            let opened = File::options().write(true).create(true).truncate(false).open(&path);
            opened.map_err(|error| file("write", &path, &error))
        });
        let target = Arc::new(opened.await?);
        let mut at = self.range.start;
        let mut tries = 0;
        while at < self.range.end {
            let before = at;
            let Err(trouble) = self.read_on(&target, &mut at).await else { break };
            tries = if at - before >= PROGRESS { 1 } else { tries + 1 };
            if !trouble.again || tries == TRIES {
                return Err(self.told(trouble.error));
            }
            tracing::debug!(key = self.placed.object.key, at, error = trouble.error.text, "download is resumed");
            pause(tries).await;
        }
        Ok(())
    }

    /// Reads from `at`, which goes on with the bytes that are written, to the end of the range.
    async fn read_on(&self, target: &Arc<File>, at: &mut u64) -> Result<(), Trouble> {
        let mut body = self.objects.read(&self.placed.object, *at..self.range.end).await?;
        let mut buffer = Vec::new();
        let ended = loop {
            let left = self.range.end - *at - buffer.len() as u64;
            let chunk = match timeout(STALLED, body.next()).await {
                Ok(Some(Ok(chunk))) => chunk,
                Ok(Some(Err(trouble))) => break Err(trouble),
                Ok(None) if left == 0 => break Ok(()),
                Ok(None) => {
                    let text = format!("{} ended its answer {left} bytes early", self.objects.host());
                    break Err(Trouble::momentary(passing(Code::Unavailable, text)));
                }
                Err(_) => {
                    let text = format!("{} sent no byte for {} s", self.objects.host(), STALLED.as_secs());
                    break Err(Trouble::momentary(passing(Code::DeadlineExceeded, text)));
                }
            };
            if chunk.len() as u64 > left {
                let text =
                    format!("{} answers with more than it was asked for: it reads no ranges", self.objects.host());
                return Err(Trouble::lasting(permanent(Code::FailedPrecondition, text)));
            }
            buffer.extend_from_slice(&chunk);
            if buffer.len() >= BUFFER {
                buffer = self.write(target, buffer, at).await.map_err(Trouble::lasting)?;
            }
        };
        // What came before a failure need not come again.
        if !buffer.is_empty() {
            self.write(target, buffer, at).await.map_err(Trouble::lasting)?;
        }
        ended
    }

    /// Writes what was gathered and gives the empty buffer back.
    async fn write(&self, target: &Arc<File>, mut buffer: Vec<u8>, at: &mut u64) -> Result<Vec<u8>, LoadError> {
        let bytes = buffer.len() as u64;
        let (target, aside, path, offset) = (target.clone(), self.aside.clone(), self.path.clone(), *at);
        let written = blocking(move || {
            let _aside = aside;
            target.write_all_at(&buffer, offset).map_err(|error| file("write", &path, &error))?;
            buffer.clear();
            Ok(buffer)
        });
        let buffer = written.await?;
        *at += bytes;
        (self.done)(bytes);
        Ok(buffer)
    }

    fn told(&self, error: LoadError) -> LoadError {
        let (name, key) = (self.objects.name(), &self.placed.object.key);
        prefixed(&format!("unable to download objects in {name}: object '{key}': "), error)
    }
}

#[cfg(test)]
#[path = "download/tests.rs"]
mod tests;
