//! `GET /metrics`.

use std::{io::Write, sync::Arc};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use http::{
    HeaderMap, HeaderValue, Response,
    header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, VARY},
    request::Parts,
};

use super::{Collect, Page};
use crate::http::Routes;

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
/// Names that a filter may have; more are ignored.
const MOST_NAMES: usize = 256;

/// Serves what these collectors show at `/metrics`: `name[]=` filters, gzip if asked.
#[must_use]
pub fn routes(collectors: Vec<Arc<dyn Collect>>) -> Routes {
    let collectors: Arc<[Arc<dyn Collect>]> = collectors.into();
    Routes::new().get("/metrics", move |head: Parts| {
        let collectors = collectors.clone();
        async move { answer(&head, &collectors).await }
    })
}

async fn answer(head: &Parts, collectors: &[Arc<dyn Collect>]) -> Response<Bytes> {
    let mut page = Page::new(names(head.uri.query().unwrap_or_default()));
    for collector in collectors {
        collector.collect(&mut page).await;
    }
    let text = page.into_text();
    let zipped = takes_gzip(&head.headers).then(|| gzip(text.as_bytes())).flatten();
    let is_zipped = zipped.is_some();
    let mut response = Response::new(zipped.unwrap_or_else(|| text.into_bytes()).into());
    response.headers_mut().insert(CONTENT_TYPE, TEXT);
    response.headers_mut().insert(VARY, HeaderValue::from_static("accept-encoding"));
    if is_zipped {
        response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}

fn gzip(text: &[u8]) -> Option<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(text.len() / 8), Compression::fast());
    encoder.write_all(text).and_then(|()| encoder.finish()).ok()
}

fn takes_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|coding| {
        let (coding, weight) = coding.split_once(';').unwrap_or((coding, ""));
        let refused = weight.trim().strip_prefix("q=").and_then(|q| q.trim().parse::<f32>().ok()) == Some(0.0);
        matches!(coding.trim(), "gzip" | "x-gzip" | "*") && !refused
    })
}

/// The values of `name[]` in a query.
fn names(query: &str) -> Vec<String> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let names = pairs.filter(|(key, _)| *key == "name[]" || key.eq_ignore_ascii_case("name%5B%5D"));
    // Names of metrics need no escapes: one that has some is none.
    names.map(|(_, name)| name.to_owned()).take(MOST_NAMES).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_read_from_the_query() {
        assert_eq!(names("name[]=a&name%5b%5D=b&other=c&name[]"), ["a", "b"]);
        assert!(names("").is_empty());
    }

    #[test]
    fn gzip_is_used_only_where_it_is_taken() {
        let takes = |value: &'static str| {
            takes_gzip(&HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static(value))]))
        };
        assert!(takes("gzip") && takes("br, gzip;q=0.5") && takes("*"));
        assert!(!takes("br") && !takes("gzip;q=0") && !takes("identity"));
        assert!(!takes_gzip(&HeaderMap::new()));
    }
}
