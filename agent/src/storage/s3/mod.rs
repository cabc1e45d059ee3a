//! The S3 API, as the entry of `storage-config` describes the place (ModelMesh's fields: runtime-adapter,
//! `pullman/storageproviders/s3`).

mod client;
mod error;

use std::ops::Range;

use aws_sdk_s3::{
    Client,
    primitives::ByteStream,
    types::{EncodingType, Object as Listed},
};
use futures_util::stream;
use modelring_placement::pod::LoadError;
use serde_json::json;
use tonic::Code;

use super::{
    entry::Entry,
    objects::{Body, Object, Objects, Page, Trouble},
};
use crate::{
    failure::{passing, permanent},
    server::BoxFuture,
};
pub(super) use client::Clients;
use client::Place;

/// A bucket.
pub(super) struct S3 {
    client: Client,
    place: Place,
    bucket: String,
}

// === impl S3 ===

impl S3 {
    /// The bucket of an entry, with a client that may have served before.
    pub(super) fn new(entry: &Entry, clients: &Clients) -> Result<Self, LoadError> {
        let place = Place::of(entry)?;
        let bucket = entry
            .optional("bucket")?
            .ok_or_else(|| permanent(Code::InvalidArgument, "required configuration 'bucket' missing from command"))?;
        let client = clients.get(&place)?;
        Ok(Self { client, place, bucket: bucket.to_owned() })
    }
}

impl Objects for S3 {
    fn origin(&self) -> String {
        json!(["s3", self.place.endpoint, self.place.region, self.bucket, self.place.access_key_id]).to_string()
    }

    fn name(&self) -> String {
        format!("bucket '{}'", self.bucket)
    }

    fn host(&self) -> &str {
        &self.place.host
    }

    fn list<'a>(&'a self, prefix: &'a str, from: Option<&'a str>) -> BoxFuture<'a, Result<Page, Trouble>> {
        Box::pin(async move {
            let listing = self
                .client
                .list_objects_v2()
                .bucket(&self.bucket)
                .prefix(prefix)
                // XML cannot carry every key as it is.
                .encoding_type(EncodingType::Url)
                .set_continuation_token(from.map(str::to_owned));
            let listed = listing.send().await.map_err(|error| error::trouble(&error, &self.place, &self.bucket))?;
            let encoded = listed.encoding_type() == Some(&EncodingType::Url);
            let next = listed.next_continuation_token().filter(|_| listed.is_truncated() == Some(true));
            if listed.is_truncated() == Some(true) && next.is_none() {
                let text = format!("{} says that there is more, and not how to ask for it", self.place.host);
                return Err(Trouble::lasting(permanent(Code::FailedPrecondition, text)));
            }
            let next = next.map(str::to_owned);
            let objects =
                listed.contents().iter().map(|object| self.object(object, encoded)).collect::<Result<_, _>>()?;
            Ok(Page { objects, next })
        })
    }

    fn read<'a>(&'a self, object: &'a Object, range: Range<u64>) -> BoxFuture<'a, Result<Body, Trouble>> {
        Box::pin(async move {
            let reading = self
                .client
                .get_object()
                .bucket(&self.bucket)
                .key(&object.key)
                .range(format!("bytes={}-{}", range.start, range.end.saturating_sub(1)))
                .set_if_match((!object.etag.is_empty()).then(|| object.etag.clone()));
            let answer = reading.send().await.map_err(|error| error::trouble(&error, &self.place, &self.bucket))?;
            // Stores that know no If-Match say at least which content they send.
            let same = answer.e_tag().is_none_or(|etag| object.etag.is_empty() || etag == object.etag);
            let whole = format!("bytes {}-{}/{}", range.start, range.end.saturating_sub(1), object.bytes);
            if !same || answer.content_range().is_some_and(|found| !found.ends_with(&format!("/{}", object.bytes))) {
                let text = "it was changed while it was pulled; the next load takes the new one";
                return Err(Trouble::lasting(passing(Code::Aborted, text)));
            }
            if answer.content_range().map_or(range != (0..object.bytes), |found| found != whole) {
                let text =
                    format!("{} was asked for '{whole}' and sends something else: it reads no ranges", self.place.host);
                return Err(Trouble::lasting(permanent(Code::FailedPrecondition, text)));
            }
            Ok(self.body(answer.body))
        })
    }
}

impl S3 {
    fn object(&self, listed: &Listed, encoded: bool) -> Result<Object, Trouble> {
        let odd = |what: &str| {
            let text = format!("{} lists an object {what}", self.place.host);
            Trouble::lasting(permanent(Code::FailedPrecondition, text))
        };
        let key = listed.key().ok_or_else(|| odd("without a key"))?;
        let key = if encoded { decoded(key).ok_or_else(|| odd("whose key is no text"))? } else { key.to_owned() };
        let bytes = listed.size().and_then(|bytes| u64::try_from(bytes).ok()).ok_or_else(|| odd("without a size"))?;
        Ok(Object { key, bytes, etag: listed.e_tag().unwrap_or_default().to_owned() })
    }

    fn body(&self, body: ByteStream) -> Body {
        let host = self.place.host.clone();
        Box::pin(stream::unfold((body, host), |(mut body, host)| async move {
            let chunk = body.next().await?;
            let chunk = chunk.map_err(|error| {
                let text = format!("the connection to {host} broke: {}", error::innermost(&error));
                Trouble::momentary(passing(Code::Unavailable, text))
            });
            Some((chunk, (body, host)))
        }))
    }
}

/// A key as it was before it was encoded for a URL; none where it is no UTF-8 text.
fn decoded(key: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(key.len());
    let mut rest = key.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        match (first, after) {
            (b'+', _) => bytes.push(b' '),
            (b'%', [high, low, after @ ..]) => {
                let digit = |digit: u8| char::from(digit).to_digit(16);
                bytes.push(u8::try_from(digit(*high)? * 16 + digit(*low)?).ok()?);
                rest = after;
            }
            (b'%', _) => return None,
            _ => bytes.push(*first),
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keys_are_read_as_stores_encode_them() {
        for (encoded, key) in [("a/b.bin", "a/b.bin"), ("a+b%2Bc%20d", "a b+c d"), ("%C3%A4", "ä"), ("%00", "\0")] {
            assert_eq!(decoded(encoded).as_deref(), Some(key));
        }
        for broken in ["%", "%4", "%zz", "%ff"] {
            assert_eq!(decoded(broken), None, "{broken}");
        }
    }

    proptest! {
        #[test]
        fn any_key_comes_back(key in "\\PC{0,20}") {
            let encoded: String = key.bytes().map(|byte| format!("%{byte:02X}")).collect();
            prop_assert_eq!(decoded(&encoded), Some(key));
        }

        #[test]
        fn no_text_makes_it_panic(text in ".{0,20}") {
            let _ = decoded(&text);
        }
    }
}
