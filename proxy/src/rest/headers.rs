//! HTTP headers <-> gRPC metadata, as grpc-gateway maps them.

use std::{net::IpAddr, time::Duration};

use base64::{
    Engine as _,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::error::bad;
use crate::engine::answer::Answer;

/// HTTP headers that are passed as `grpcgateway-<name>`.
const PERMANENT: [&str; 25] = [
    "accept",
    "accept-charset",
    "accept-language",
    "accept-ranges",
    "authorization",
    "cache-control",
    "content-type",
    "cookie",
    "date",
    "expect",
    "from",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-schedule-tag-match",
    "if-unmodified-since",
    "max-forwards",
    "origin",
    "pragma",
    "referer",
    "user-agent",
    "via",
    "warning",
];

/// Headers that are passed under their own name.
const PASSED: [&str; 5] = ["authorization", "traceparent", "tracestate", "baggage", "x-request-id"];

/// Metadata that belongs to the connection or to gRPC itself.
const RESERVED: [&str; 9] = [
    "connection",
    "content-length",
    "content-type",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
];

const PREFIX: &str = "grpc-metadata-";
const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Binary metadata, with its padding or without; written without, as gRPC does.
const BINARY: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_encode_padding(false).with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Metadata of the call to the model server.
///
/// # Errors
///
/// `BR` where binary metadata is not base64.
pub fn to_metadata(headers: &HeaderMap, peer: Option<IpAddr>) -> Result<HeaderMap, Answer> {
    let mut metadata = HeaderMap::new();
    for (name, value) in headers {
        if let Some(key) = name.as_str().strip_prefix(PREFIX) {
            if !reserved(key)
                && let Ok(key) = HeaderName::from_bytes(key.as_bytes())
            {
                let value = if key.as_str().ends_with("-bin") { binary(&key, value)? } else { value.clone() };
                metadata.append(key, value);
            }
            continue;
        }
        if PASSED.contains(&name.as_str()) {
            metadata.append(name, value.clone());
        }
        if PERMANENT.contains(&name.as_str())
            && let Ok(key) = HeaderName::try_from(format!("grpcgateway-{name}"))
        {
            metadata.append(key, value.clone());
        }
    }
    forwarded(headers, peer, &mut metadata);
    Ok(metadata)
}

/// The time that the caller gives the call (`Grpc-Timeout`).
///
/// # Errors
///
/// `BR` where it is no such time.
pub fn timeout(headers: &HeaderMap) -> Result<Option<Duration>, Answer> {
    let Some(value) = headers.get(TIMEOUT) else { return Ok(None) };
    let text = String::from_utf8_lossy(value.as_bytes());
    parse_timeout(&text).map(Some).ok_or_else(|| bad(format!("invalid grpc-timeout: {text}")))
}

/// Headers of the answer from the metadata of the model server's.
#[must_use]
pub fn from_metadata(metadata: &HeaderMap) -> HeaderMap {
    let mut headers = prefixed("grpc-metadata-", metadata);
    headers.insert("grpc-metadata-content-type", HeaderValue::from_static("application/grpc"));
    headers
}

/// Trailers of the answer from the model server's; `None` where the caller did not ask for any or there are none.
#[must_use]
pub fn from_trailers(request: &HeaderMap, trailers: &HeaderMap) -> Option<HeaderMap> {
    let mut te = request.get_all(header::TE).iter().filter_map(|value| value.to_str().ok());
    let asked = te.any(|te| te.to_ascii_lowercase().split(',').any(|coding| coding.trim() == "trailers"));
    let trailers = prefixed("grpc-trailer-", trailers);
    (asked && !trailers.is_empty()).then_some(trailers)
}

fn prefixed(prefix: &str, metadata: &HeaderMap) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (key, value) in metadata {
        if !reserved(key.as_str())
            && let Ok(name) = HeaderName::try_from(format!("{prefix}{key}"))
        {
            headers.append(name, value.clone());
        }
    }
    headers
}

fn forwarded(headers: &HeaderMap, peer: Option<IpAddr>, metadata: &mut HeaderMap) {
    let before = headers.get_all(&FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok());
    let peer = peer.map(|peer| peer.to_canonical().to_string());
    let hops: Vec<String> = before.map(str::to_owned).chain(peer).collect();
    if !hops.is_empty()
        && let Ok(value) = HeaderValue::try_from(hops.join(", "))
    {
        metadata.insert(FORWARDED_FOR, value);
    }
    if let Some(host) = headers.get(&FORWARDED_HOST).or_else(|| headers.get(header::HOST)) {
        metadata.insert(FORWARDED_HOST, host.clone());
    }
}

fn reserved(key: &str) -> bool {
    key.is_empty() || key.starts_with("grpc-") || RESERVED.contains(&key)
}

fn binary(key: &HeaderName, value: &HeaderValue) -> Result<HeaderValue, Answer> {
    let bytes =
        BINARY.decode(value.as_bytes()).map_err(|error| bad(format!("invalid binary header {key}: {error}")))?;
    HeaderValue::try_from(BINARY.encode(bytes)).map_err(|_| bad(format!("invalid binary header {key}")))
}

fn parse_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: u64 = digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()?;
    Some(match unit {
        "H" => Duration::from_secs(number.saturating_mul(3600)),
        "M" => Duration::from_secs(number.saturating_mul(60)),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}
