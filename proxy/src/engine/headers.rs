//! Header rules: what reaches the server, what the caller is told, and gRPC's two text forms (timeout, message).

use std::time::Duration;

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version,
    header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, TE, TRANSFER_ENCODING, UPGRADE, USER_AGENT},
};

use super::{
    answer::{Answer, Reason},
    policy::Head,
    target::Target,
};

/// Text longer than this is cut, so that an answer stays within any peer's header limit.
const LONGEST_TEXT: usize = 4 * 1024;

const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
const PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");
const REASON: HeaderName = HeaderName::from_static("modelring-reason");
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const AGENT: HeaderValue = HeaderValue::from_static(concat!("modelring/", env!("CARGO_PKG_VERSION")));

/// The head of an attempt: the caller's headers but for those that are the proxy's to say, then those of the plan.
///
/// # Errors
///
/// `BR` if the path is not one.
pub(super) fn request(
    head: &Head,
    target: &Target,
    added: &[(HeaderName, HeaderValue)],
    left: Option<Duration>,
) -> Result<Request<()>, Answer> {
    let uri = Uri::builder().scheme("http").authority(target.address.to_string()).path_and_query(&*head.path).build();
    let mut request = Request::new(());
    *request.method_mut() = Method::POST;
    *request.version_mut() = Version::HTTP_2;
    *request.uri_mut() = uri.map_err(|_| Answer::new(Reason::BR, "the path of the call is not valid"))?;
    let headers = request.headers_mut();
    headers.insert(TE, HeaderValue::from_static("trailers"));
    headers.insert(CONTENT_TYPE, GRPC);
    headers.insert(USER_AGENT, AGENT);
    for (name, value) in head.headers.iter().filter(|(name, _)| passes(name)) {
        headers.append(name, value.clone());
    }
    for (name, value) in added {
        headers.insert(name, value.clone());
    }
    if let Some(left) = left {
        headers.insert(TIMEOUT, timeout(left));
    }
    Ok(request)
}

/// Whether a caller's header reaches the server.
fn passes(name: &HeaderName) -> bool {
    let text = name.as_str();
    let ours = text.starts_with("mm-") || text.starts_with("grpc-") || text == "tas-model-id";
    let about_the_hop = [CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, TE, TRANSFER_ENCODING, UPGRADE, USER_AGENT]
        .contains(name)
        || matches!(text, "keep-alive" | "proxy-connection");
    !ours && !about_the_hop
}

/// Headers of an answer without a message.
pub(super) fn answer(answer: &Answer) -> HeaderMap {
    let mut headers = status(answer);
    headers.insert(CONTENT_TYPE, GRPC);
    headers
}

/// The status of an answer, as trailers.
pub(super) fn status(answer: &Answer) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(STATUS, answer.code.into());
    if !answer.text.is_empty() {
        headers.insert(MESSAGE, encode(&answer.text));
    }
    if let Some(reason) = answer.reason {
        headers.insert(REASON, HeaderValue::from_static(reason.as_str()));
    }
    if let Some(after) = answer.retry_after {
        headers.insert(PUSHBACK, u64::try_from(after.as_millis()).unwrap_or(u64::MAX).into());
    }
    headers
}

/// An answer read back from headers or trailers: the proxy's own where it has a reason.
pub(super) fn read_answer(code: u32, headers: &HeaderMap) -> Answer {
    let reason = headers.get(REASON).and_then(|reason| Reason::parse(reason.to_str().ok()?));
    let millis = headers.get(PUSHBACK).and_then(|millis| millis.to_str().ok()?.parse().ok());
    let mut answer = Answer { reason, ..Answer::status(code, text(headers)) };
    answer.retry_after = millis.map(Duration::from_millis);
    if let Some(reason) = reason {
        answer.http = reason.codes().1;
    }
    answer
}

/// The gRPC code in headers or trailers.
pub(super) fn code(headers: &HeaderMap) -> Option<u32> {
    headers.get(STATUS)?.to_str().ok()?.parse().ok()
}

/// The gRPC message in headers or trailers, decoded.
pub(super) fn text(headers: &HeaderMap) -> String {
    headers.get(MESSAGE).map(|text| decode(text.as_bytes())).unwrap_or_default()
}

/// The caller's patience.
///
/// # Errors
///
/// `BR` if the header is no timeout.
pub(super) fn patience(headers: &HeaderMap) -> Result<Option<Duration>, Answer> {
    let Some(value) = headers.get(TIMEOUT) else { return Ok(None) };
    let parsed = value.to_str().ok().and_then(parse_timeout);
    parsed.map(Some).ok_or_else(|| Answer::new(Reason::BR, "header `grpc-timeout` is not a timeout"))
}

fn parse_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if !(1..=8).contains(&digits.len()) || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

/// At most eight digits and a unit, rounded up.
fn timeout(left: Duration) -> HeaderValue {
    const MOST: u128 = 99_999_999;
    let nanos = left.as_nanos();
    let units = [
        (1, 'n'),
        (1_000, 'u'),
        (1_000_000, 'm'),
        (1_000_000_000, 'S'),
        (60_000_000_000, 'M'),
        (3_600_000_000_000, 'H'),
    ];
    let fitting =
        units.into_iter().map(|(size, unit)| (nanos.div_ceil(size), unit)).find(|(number, _)| *number <= MOST);
    let (number, unit) = fitting.unwrap_or((MOST, 'H'));
    HeaderValue::try_from(format!("{number}{unit}")).expect("digits and a letter")
}

/// Percent-encodes what gRPC does not allow in a message: all but printable ASCII, and the percent sign.
fn encode(text: &str) -> HeaderValue {
    let cut = text.char_indices().map(|(at, char)| at + char.len_utf8()).take_while(|end| *end <= LONGEST_TEXT).last();
    let mut encoded = String::with_capacity(text.len());
    for byte in text.as_bytes()[..cut.unwrap_or(0)].iter().copied() {
        match byte {
            b' '..=b'~' if byte != b'%' => encoded.push(byte.into()),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    HeaderValue::try_from(encoded).expect("printable ASCII")
}

fn decode(text: &[u8]) -> String {
    let hex = |at: usize| text.get(at).and_then(|digit| char::from(*digit).to_digit(16));
    let mut bytes = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        match (byte, hex(at + 1), hex(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                bytes.push((high << 4 | low) as u8);
                at += 3;
            }
            _ => {
                bytes.push(*byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn timeouts_are_read_in_every_unit_and_refused_when_malformed() {
        let seconds = |text| parse_timeout(text).map(|timeout| timeout.as_secs_f64());
        assert_eq!(seconds("2H"), Some(7200.0));
        assert_eq!(seconds("3M"), Some(180.0));
        assert_eq!(seconds("99999999S"), Some(99_999_999.0));
        assert_eq!(seconds("250m"), Some(0.25));
        assert_eq!(seconds("5u"), Some(0.000_005));
        assert_eq!(seconds("7n"), Some(0.000_000_007));
        for wrong in ["", "S", "1", "123456789S", "-1S", "+1S", "1s", "1.5S", "é"] {
            assert_eq!(parse_timeout(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn a_timeout_that_is_sent_on_is_never_shorter_and_hardly_longer(nanos in any::<u64>()) {
            let left = Duration::from_nanos(nanos);
            let read = parse_timeout(timeout(left).to_str().expect("ascii")).expect("is valid");
            prop_assert!(read >= left && read.as_secs_f64() <= left.as_secs_f64() * 1.000_001 + 1e-9);
        }

        #[test]
        fn a_message_survives_its_encoding(text in ".{0,300}") {
            let encoded = encode(&text);
            prop_assert!(encoded.as_bytes().iter().all(|b| (b' '..=b'~').contains(b)));
            prop_assert_eq!(decode(encoded.as_bytes()), text);
        }
    }

    #[test]
    fn only_whole_names_and_prefixes_of_ours_are_stripped() {
        let passing = |name: &'static str| passes(&HeaderName::from_static(name));
        for name in ["user", "mm", "authorization", "x-mm-a", "tas-model-id-2", "traceparent", "content"] {
            assert!(passing(name), "{name}");
        }
        for name in [
            "mm-model-id",
            "mm-balanced",
            "grpc-timeout",
            "grpc-encoding",
            "tas-model-id",
            "content-type",
            "user-agent",
            "te",
        ] {
            assert!(!passing(name), "{name}");
        }
    }
}
