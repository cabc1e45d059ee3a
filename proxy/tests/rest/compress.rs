//! gzip and deflate.

use std::io::Write as _;

use http::{HeaderMap, HeaderValue, header};
use modelring_proxy::rest::compress::{Encoding, deflate, inflate, of_request, of_response};
use proptest::prelude::*;

fn one(name: header::HeaderName, value: &str) -> HeaderMap {
    HeaderMap::from_iter([(name, HeaderValue::from_str(value).expect("a value"))])
}

#[test]
fn the_request_says_how_it_is_compressed() {
    let of = |value| of_request(&one(header::CONTENT_ENCODING, value));
    assert_eq!(of("gzip"), Ok(Some(Encoding::Gzip)));
    assert_eq!(of(" X-GZIP"), Ok(Some(Encoding::Gzip)));
    assert_eq!(of("deflate"), Ok(Some(Encoding::Deflate)));
    assert_eq!(of("identity"), Ok(None));
    for other in ["br", "gzip, gzip"] {
        assert_eq!(of(other).expect_err(other).http, 415);
    }
}

#[test]
fn the_answer_is_compressed_as_the_caller_likes_best() {
    for (accept, expected) in [
        ("gzip", Some(Encoding::Gzip)),
        ("deflate", Some(Encoding::Deflate)),
        ("gzip, deflate, br", Some(Encoding::Gzip)),
        ("gzip;q=0.5, deflate;q=0.8", Some(Encoding::Deflate)),
        ("gzip;q=0, deflate;q=0", None),
        ("identity", None),
        ("*", Some(Encoding::Gzip)),
        ("*, gzip;q=0", Some(Encoding::Deflate)),
        ("br", None),
        ("gzip;q=x", Some(Encoding::Gzip)),
    ] {
        assert_eq!(of_response(&one(header::ACCEPT_ENCODING, accept)), expected, "{accept}");
    }
    assert_eq!(of_response(&HeaderMap::new()), None);
}

#[test]
fn raw_deflate_is_read_too() {
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(b"{\"inputs\":[]}").expect("memory");
    let body = encoder.finish().expect("memory");
    assert_eq!(inflate(Encoding::Deflate, &body, 100).expect("inflates"), "{\"inputs\":[]}");
}

#[test]
fn a_bomb_stops_at_the_limit() {
    let bomb = deflate(Encoding::Gzip, &vec![0; 4 << 20]).expect("memory");
    let answer = inflate(Encoding::Gzip, &bomb, 1 << 20).expect_err("too large");
    assert_eq!((answer.code, answer.http), (8, 413));
    assert_eq!(inflate(Encoding::Gzip, &bomb, 4 << 20).expect("fits").len(), 4 << 20);
}

#[test]
fn what_is_not_compressed_or_cut_off_is_refused() {
    let whole = deflate(Encoding::Gzip, b"hello").expect("memory");
    for body in [&b"{}"[..], b"", &whole[..whole.len() - 1]] {
        let answer = inflate(Encoding::Gzip, body, 100).expect_err("not whole");
        assert_eq!((answer.code, answer.http), (3, 400));
        assert!(answer.text.starts_with("cannot decompress the body: "), "{}", answer.text);
    }
}

proptest! {
    #[test]
    fn bodies_come_back(body in prop::collection::vec(any::<u8>(), 0..300), gzip in any::<bool>()) {
        let encoding = if gzip { Encoding::Gzip } else { Encoding::Deflate };
        prop_assert_eq!(inflate(encoding, &deflate(encoding, &body).unwrap(), 300).unwrap(), body);
    }

    #[test]
    fn no_bytes_panic(body in prop::collection::vec(any::<u8>(), 0..100)) {
        let _ = inflate(Encoding::Gzip, &body, 1000);
        let _ = inflate(Encoding::Deflate, &body, 1000);
    }
}
