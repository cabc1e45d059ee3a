//! The boundary to REST: a request with its head and a body that can be read, and a response held in memory.
//!
//! HTTP/1.1 and HTTP/2 look the same from here. Dropping the handler's future gives the request up: that is how it
//! learns that the caller went away.

use std::{net::IpAddr, sync::Arc};

use bytes::{Bytes, BytesMut};
use http::{
    HeaderMap, HeaderValue, Method, StatusCode, Uri,
    header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER},
};
use tokio::sync::mpsc;

use crate::engine::{
    answer::{Answer, Reason},
    budget::{Budget, Held},
    call::{Caller, Local},
};

/// Answers everything that is not gRPC.
pub trait HttpHandler: Send + Sync + 'static {
    /// Answers one request.
    fn handle<'a>(&'a self, request: HttpRequest, calls: &'a dyn Caller) -> Local<'a, HttpResponse>;
}

/// A request.
#[derive(Debug)]
pub struct HttpRequest {
    /// Method.
    pub method: Method,
    /// Path and query.
    pub uri: Uri,
    /// Headers.
    pub headers: HeaderMap,
    /// Who sent it, where the connection has an address.
    pub peer: Option<IpAddr>,
    /// Body, not read yet.
    pub body: Body,
}

/// A body that arrives piece by piece. Nothing is read ahead of its reader but one piece.
#[derive(Debug)]
pub struct Body {
    pieces: mpsc::Receiver<Result<Bytes, Answer>>,
    budget: Arc<Budget>,
}

/// A body read whole, in the budget as long as it lives.
#[derive(Debug)]
pub struct Collected {
    /// The bytes.
    pub bytes: Bytes,
    /// Their share of the budget.
    pub held: Held,
}

/// A response.
#[derive(Debug, Default)]
pub struct HttpResponse {
    /// Status.
    pub status: StatusCode,
    /// Headers; `content-length` is set by the server.
    pub headers: HeaderMap,
    /// The body's pieces, written one after the other.
    pub body: Vec<Bytes>,
    /// Trailers, written after the body in HTTP/2; HTTP/1.1 leaves them out, as a server may.
    pub trailers: HeaderMap,
    /// Shares of the budget to keep until it is written.
    pub held: Vec<Held>,
}

// === impl Body ===

impl Body {
    /// A body and where its pieces are put.
    #[must_use]
    pub fn new(budget: Arc<Budget>) -> (mpsc::Sender<Result<Bytes, Answer>>, Self) {
        let (sender, pieces) = mpsc::channel(1);
        (sender, Self { pieces, budget })
    }

    /// A body that has been read already.
    #[must_use]
    pub fn full(bytes: Bytes, budget: Arc<Budget>) -> Self {
        let (sender, body) = Self::new(budget);
        // The channel has room for one.
        let _ = sender.try_send(Ok(bytes));
        body
    }

    /// The next piece, `None` at the end.
    ///
    /// # Errors
    ///
    /// `BR` if the body is broken off or malformed.
    pub async fn read(&mut self) -> Option<Result<Bytes, Answer>> {
        self.pieces.recv().await
    }

    /// Reads all of it into the memory budget.
    ///
    /// # Errors
    ///
    /// `TL` over `limit` bytes, `OM` over the budget, `BR` if it is broken off.
    pub async fn collect(mut self, limit: usize) -> Result<Collected, Answer> {
        let mut held = self.budget.share();
        let mut whole = BytesMut::new();
        let mut first = Bytes::new();
        while let Some(piece) = self.read().await {
            let piece = piece?;
            let length = first.len() + whole.len() + piece.len();
            if length > limit {
                return Err(Answer::new(Reason::TL, format!("the request body is larger than {limit} bytes")));
            }
            held.resize(length)?;
            if first.is_empty() && whole.is_empty() {
                first = piece;
                continue;
            }
            whole.extend_from_slice(&std::mem::take(&mut first));
            whole.extend_from_slice(&piece);
        }
        Ok(Collected { bytes: if whole.is_empty() { first } else { whole.freeze() }, held })
    }
}

// === impl HttpResponse ===

impl HttpResponse {
    /// A response with one piece of body.
    #[must_use]
    pub fn new(status: StatusCode, body: impl Into<Bytes>) -> Self {
        Self { status, body: vec![body.into()], ..Self::default() }
    }

    /// Says the length of the body.
    pub(super) fn finish_headers(&mut self) {
        let length: usize = self.body.iter().map(Bytes::len).sum();
        self.headers.insert(CONTENT_LENGTH, length.into());
    }
}

impl From<Answer> for HttpResponse {
    /// An error as REST's callers know it: `{"error": text, "code": gRPC code, "message": text}`.
    fn from(answer: Answer) -> Self {
        let body = serde_json::json!({ "error": answer.text, "code": answer.code, "message": answer.text });
        let status = StatusCode::from_u16(answer.http).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = Self::new(status, body.to_string());
        response.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(reason) = answer.reason {
            response.headers.insert("modelring-reason", HeaderValue::from_static(reason.as_str()));
        }
        if let Some(after) = answer.retry_after {
            // Whole seconds, and never none at all.
            let seconds = after.as_millis().div_ceil(1000).max(1);
            response.headers.insert(RETRY_AFTER, u64::try_from(seconds).unwrap_or(u64::MAX).into());
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_body_is_collected_whole_within_limit_and_budget() {
        let budget = Budget::new(8);
        let (sender, body) = Body::new(budget.clone());
        let feed = async move {
            for piece in ["abc", "de", "f"] {
                sender.send(Ok(Bytes::from_static(piece.as_bytes()))).await.expect("read");
            }
        };
        let (whole, ()) = tokio::join!(body.collect(6), feed);
        let whole = whole.expect("fits");
        assert_eq!(whole.bytes, "abcdef");
        assert_eq!(budget.used(), 6);

        let over = Body::full(Bytes::from_static(b"1234567"), budget.clone()).collect(6).await;
        assert_eq!(over.expect_err("too large").reason, Some(Reason::TL));
        let spent = Body::full(Bytes::from_static(b"123"), budget.clone()).collect(6).await;
        assert_eq!(spent.expect_err("no budget").reason, Some(Reason::OM));
        drop(whole);
        assert_eq!(budget.used(), 0);
    }
}
