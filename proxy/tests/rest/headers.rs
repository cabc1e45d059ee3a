//! Headers and metadata.

use std::{net::IpAddr, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue};
use modelring_proxy::rest::headers::{from_metadata, from_trailers, timeout, to_metadata};

const PEER: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 7)));

fn map(list: &[(&str, &str)]) -> HeaderMap {
    list.iter().fold(HeaderMap::new(), |mut map, (name, value)| {
        map.append(
            HeaderName::from_bytes(name.as_bytes()).expect("a name"),
            HeaderValue::from_str(value).expect("a value"),
        );
        map
    })
}

fn metadata(list: &[(&str, &str)]) -> HeaderMap {
    to_metadata(&map(list), PEER).expect("maps")
}

#[test]
fn prefixed_headers_are_metadata() {
    let metadata = metadata(&[
        ("Grpc-Metadata-mm-vmodel-id", "m"),
        ("Grpc-Metadata-X", "1"),
        ("Grpc-Metadata-X", "2"),
        ("Grpc-Metadata-Te", "trailers"),
        ("Grpc-Metadata-Grpc-Timeout", "1S"),
        ("Grpc-Metadata-", "nothing"),
        ("X-Other", "3"),
    ]);
    assert_eq!(metadata["mm-vmodel-id"], "m");
    assert_eq!(metadata.get_all("x").iter().collect::<Vec<_>>(), ["1", "2"]);
    for absent in ["te", "grpc-timeout", "x-other", "grpc-metadata-x"] {
        assert!(metadata.get(absent).is_none(), "{absent}");
    }
}

#[test]
fn authorization_is_passed_twice() {
    let metadata = metadata(&[("Authorization", "Bearer t")]);
    assert_eq!(metadata["authorization"], "Bearer t");
    assert_eq!(metadata["grpcgateway-authorization"], "Bearer t");
}

#[test]
fn permanent_headers_are_passed_with_a_prefix() {
    for name in ["Accept", "Cookie", "Host", "Origin", "User-Agent", "If-Match", "Cache-Control", "Via", "Referer"] {
        let metadata = metadata(&[(name, "v")]);
        let key = format!("grpcgateway-{}", name.to_ascii_lowercase());
        assert_eq!(metadata[key.as_str()], "v");
        assert!(metadata.get(name).is_none());
    }
}

#[test]
fn the_way_of_the_call_is_passed() {
    let first = metadata(&[("Host", "models.example")]);
    assert_eq!(
        (&first["x-forwarded-for"], &first["x-forwarded-host"]),
        (&"10.0.0.7".parse().expect("value"), &HeaderValue::from_static("models.example"))
    );
    let second = metadata(&[("Host", "inner"), ("X-Forwarded-For", "1.2.3.4"), ("X-Forwarded-Host", "outer")]);
    assert_eq!(second["x-forwarded-for"], "1.2.3.4, 10.0.0.7");
    assert_eq!(second["x-forwarded-host"], "outer");
}

#[test]
fn binary_metadata_must_be_base64() {
    assert_eq!(metadata(&[("Grpc-Metadata-Trace-Bin", "AQI=")])["trace-bin"], "AQI");
    assert_eq!(metadata(&[("Grpc-Metadata-Trace-Bin", "AQI")])["trace-bin"], "AQI");
    let answer = to_metadata(&map(&[("Grpc-Metadata-Trace-Bin", "?")]), PEER).expect_err("no base64");
    assert_eq!((answer.code, answer.http), (3, 400));
    assert!(answer.text.starts_with("invalid binary header trace-bin: "), "{}", answer.text);
}

#[test]
fn the_timeout_has_six_units() {
    for (text, expected) in [
        ("2H", Duration::from_secs(7200)),
        ("3M", Duration::from_secs(180)),
        ("4S", Duration::from_secs(4)),
        ("5m", Duration::from_millis(5)),
        ("6u", Duration::from_micros(6)),
        ("7n", Duration::from_nanos(7)),
        ("18446744073709551615H", Duration::from_secs(u64::MAX)),
    ] {
        assert_eq!(timeout(&map(&[("Grpc-Timeout", text)])), Ok(Some(expected)), "{text}");
    }
    assert_eq!(timeout(&HeaderMap::new()), Ok(None));
    for text in ["", "5", "S", "5s", "-5S", "1.5S", "5 S", "99999999999999999999S", "5é"] {
        let answer = timeout(
            &map(&[("Grpc-Timeout", "1S")])
                .into_iter()
                .map(|_| {
                    (
                        HeaderName::from_static("grpc-timeout"),
                        HeaderValue::from_bytes(text.as_bytes()).expect("a value"),
                    )
                })
                .collect(),
        )
        .expect_err(text);
        assert_eq!((answer.code, answer.http), (3, 400));
        assert_eq!(answer.text, format!("invalid grpc-timeout: {text}"));
    }
}

#[test]
fn response_metadata_and_trailers_come_back_prefixed() {
    let headers = from_metadata(&map(&[
        ("mm-model-id", "m__isvc-1"),
        ("content-type", "application/grpc+x"),
        ("grpc-encoding", "identity"),
    ]));
    assert_eq!(headers["grpc-metadata-mm-model-id"], "m__isvc-1");
    assert_eq!(headers["grpc-metadata-content-type"], "application/grpc");
    assert_eq!(headers.len(), 2);

    let trailers = map(&[("grpc-status", "0"), ("x-cost", "3")]);
    let asked = from_trailers(&map(&[("TE", "gzip, Trailers")]), &trailers).expect("asked for");
    assert_eq!(asked["grpc-trailer-x-cost"], "3");
    assert_eq!(asked.len(), 1);
    assert_eq!(from_trailers(&HeaderMap::new(), &trailers), None);
}

#[test]
fn traces_and_request_ids_are_passed() {
    for name in ["traceparent", "tracestate", "x-request-id"] {
        assert_eq!(metadata(&[(name, "v")])[name], "v");
    }
}
