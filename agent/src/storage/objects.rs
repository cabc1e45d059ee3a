//! What an object store must be able to do. Everything else about a pull is the same for all of them.

use std::{ops::Range, pin::Pin};

use bytes::Bytes;
use futures_util::Stream;
use modelring_placement::pod::LoadError;

use crate::server::BoxFuture;

/// An object as it was listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Object {
    /// Its key, whole.
    pub(super) key: String,
    /// Its size.
    pub(super) bytes: u64,
    /// Tells one content from another, as the store writes it; empty = the store tells none.
    pub(super) etag: String,
}

/// A part of a listing.
#[derive(Debug, Default)]
pub(super) struct Page {
    /// In the order of their keys.
    pub(super) objects: Vec<Object>,
    /// What to ask for the next part with; none = this was the last.
    pub(super) next: Option<String>,
}

/// Why a request failed, and whether the same request may succeed in a moment.
#[derive(Debug)]
pub(super) struct Trouble {
    /// What the load fails with if nothing helps.
    pub(super) error: LoadError,
    /// Whether it is worth asking again.
    pub(super) again: bool,
}

/// Bytes of an object, as they come.
pub(super) type Body = Pin<Box<dyn Stream<Item = Result<Bytes, Trouble>> + Send>>;

/// An object store at one place: a bucket at an endpoint, with credentials. Neither method asks twice; both have time
/// limits, but for the body, which the reader watches.
pub(super) trait Objects: Send + Sync + 'static {
    /// Where this is, without secrets.
    fn origin(&self) -> String;
    /// For people, as `bucket 'models'`.
    fn name(&self) -> String;
    /// For people, as `minio:9000`.
    fn host(&self) -> &str;
    /// Lists objects whose keys begin with `prefix`.
    fn list<'a>(&'a self, prefix: &'a str, from: Option<&'a str>) -> BoxFuture<'a, Result<Page, Trouble>>;
    /// Reads a range of an object, if the object is still what was listed.
    fn read<'a>(&'a self, object: &'a Object, range: Range<u64>) -> BoxFuture<'a, Result<Body, Trouble>>;
}

// === impl Trouble ===

impl Trouble {
    /// A failure that asking again does not mend.
    pub(super) fn lasting(error: LoadError) -> Self {
        Self { error, again: false }
    }

    /// A failure that may be over in a moment.
    pub(super) fn momentary(error: LoadError) -> Self {
        Self { error, again: true }
    }
}
