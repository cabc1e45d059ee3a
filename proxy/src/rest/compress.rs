//! gzip and deflate, both ways.

use std::io::{self, Read as _, Write as _};

use bytes::Bytes;
use flate2::{
    Compression,
    read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder},
    write::{GzEncoder, ZlibEncoder},
};
use http::{HeaderMap, header};

use super::error::bad;
use crate::engine::answer::{Answer, Reason};

/// A smaller body gains nothing from compression.
pub const WORTHWHILE: usize = 1024;

/// How a body is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// gzip.
    Gzip,
    /// zlib's format; raw deflate, which some callers send by this name, is read too.
    Deflate,
}

/// How the body of a request is compressed (`Content-Encoding`).
///
/// # Errors
///
/// 415 where it is something else, or more than one.
pub fn of_request(headers: &HeaderMap) -> Result<Option<Encoding>, Answer> {
    let Some(value) = headers.get(header::CONTENT_ENCODING) else { return Ok(None) };
    let text = String::from_utf8_lossy(value.as_bytes());
    match text.trim().to_ascii_lowercase().as_str() {
        "" | "identity" => Ok(None),
        "gzip" | "x-gzip" => Ok(Some(Encoding::Gzip)),
        "deflate" => Ok(Some(Encoding::Deflate)),
        _ => {
            let text = format!("content encoding {text:?} is neither gzip nor deflate");
            Err(Answer { http: 415, ..bad(text) })
        }
    }
}

/// How the answer is to be compressed (`Accept-Encoding`): the better liked of the two, gzip where they are equal.
#[must_use]
pub fn of_response(headers: &HeaderMap) -> Option<Encoding> {
    let accepted = headers.get_all(header::ACCEPT_ENCODING);
    let codings: Vec<(String, f32)> = accepted
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|coding| {
            let (name, params) = coding.split_once(';').unwrap_or((coding, ""));
            let quality = params.split(';').find_map(|param| param.trim().strip_prefix("q=")?.parse().ok());
            (name.trim().to_ascii_lowercase(), quality.unwrap_or(1.0))
        })
        .collect();
    let quality = |names: &[&str]| {
        let named = codings.iter().find(|(name, _)| names.contains(&name.as_str()));
        named.or_else(|| codings.iter().find(|(name, _)| name == "*")).map_or(0.0, |(_, quality)| *quality)
    };
    let (gzip, deflate) = (quality(&["gzip", "x-gzip"]), quality(&["deflate"]));
    match () {
        () if gzip > 0.0 && gzip >= deflate => Some(Encoding::Gzip),
        () if deflate > 0.0 => Some(Encoding::Deflate),
        () => None,
    }
}

/// Inflates a body to at most `limit` bytes.
///
/// # Errors
///
/// `BR` where it is not of this encoding or cut off, `TL` where it is larger.
pub fn inflate(encoding: Encoding, body: &[u8], limit: usize) -> Result<Bytes, Answer> {
    match encoding {
        Encoding::Gzip => read_all(MultiGzDecoder::new(body), limit),
        Encoding::Deflate if is_zlib(body) => read_all(ZlibDecoder::new(body), limit),
        Encoding::Deflate => read_all(DeflateDecoder::new(body), limit),
    }
}

/// Compresses a body, quickly rather than well.
///
/// # Errors
///
/// None in practice: memory is written.
pub fn deflate(encoding: Encoding, body: &[u8]) -> io::Result<Vec<u8>> {
    let out = Vec::with_capacity(body.len() / 4);
    match encoding {
        Encoding::Gzip => {
            let mut encoder = GzEncoder::new(out, Compression::fast());
            encoder.write_all(body)?;
            encoder.finish()
        }
        Encoding::Deflate => {
            let mut encoder = ZlibEncoder::new(out, Compression::fast());
            encoder.write_all(body)?;
            encoder.finish()
        }
    }
}

// === impl Encoding ===

impl Encoding {
    /// Its name in HTTP.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
        }
    }
}

fn is_zlib(body: &[u8]) -> bool {
    matches!(body, [method, flags, ..]
        if method & 0x0f == 8 && (u16::from(*method) << 8 | u16::from(*flags)).is_multiple_of(31))
}

fn read_all(decoder: impl io::Read, limit: usize) -> Result<Bytes, Answer> {
    let mut plain = Vec::new();
    // One byte more than may be tells that there are more.
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    decoder.take(most).read_to_end(&mut plain).map_err(|error| bad(format!("cannot decompress the body: {error}")))?;
    if plain.len() > limit {
        return Err(Answer::new(Reason::TL, format!("the body is larger than {limit} bytes when decompressed")));
    }
    Ok(plain.into())
}
