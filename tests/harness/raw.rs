//! A gRPC call by hand, frame by frame.

use std::{net::SocketAddr, time::Duration};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::HeaderMap;

/// A call whose DATA frames are chosen one by one.
#[derive(Clone, Debug)]
pub struct RawCall {
    path: String,
    headers: Vec<(String, String)>,
    frames: Vec<Bytes>,
}

/// What came back.
#[derive(Debug)]
pub struct RawAnswer {
    /// gRPC code.
    pub code: u32,
    /// Its text, percent-decoded.
    pub text: String,
    /// Response headers.
    pub headers: HeaderMap,
    /// Messages, without their prefix.
    pub messages: Vec<Bytes>,
}

// === impl RawCall ===

impl RawCall {
    /// A call of `/pkg.Service/Method`.
    #[must_use]
    pub fn new(path: &str) -> Self {
        Self { path: path.to_owned(), headers: Vec::new(), frames: Vec::new() }
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Adds one DATA frame.
    #[must_use]
    pub fn frame(mut self, frame: impl Into<Bytes>) -> Self {
        self.frames.push(frame.into());
        self
    }

    /// Adds DATA frames: `bytes` cut at these offsets.
    #[must_use]
    pub fn frames_cut_at(mut self, bytes: &Bytes, cuts: impl IntoIterator<Item = usize>) -> Self {
        let mut rest = bytes.clone();
        let mut from = 0;
        for cut in cuts {
            self.frames.push(rest.split_to(cut - from));
            from = cut;
        }
        self.frames.push(rest);
        self
    }

    /// Sends it on a connection of its own. Each frame leaves by itself.
    ///
    /// # Panics
    /// When HTTP/2 breaks, or there is no answer within 60 s.
    pub async fn send(self, address: SocketAddr) -> RawAnswer {
        tokio::time::timeout(Duration::from_secs(60), self.try_send(address))
            .await
            .expect("an answer comes within 60 s")
            .expect("HTTP/2 works")
    }

    async fn try_send(self, address: SocketAddr) -> Result<RawAnswer, h2::Error> {
        let stream = tokio::net::TcpStream::connect(address).await.expect("something listens there");
        stream.set_nodelay(true).expect("a socket has options");
        let (sender, connection) = h2::client::Builder::new()
            .initial_window_size(64 << 20)
            .initial_connection_window_size(64 << 20)
            .handshake::<_, Bytes>(stream)
            .await?;
        let connection = tokio::spawn(connection);
        let mut request = http::Request::post(format!("http://{address}{}", self.path))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let request = request.body(()).expect("the head is well-formed");
        let (response, mut body) = sender.ready().await?.send_request(request, self.frames.is_empty())?;
        let last = self.frames.len().saturating_sub(1);
        for (at, frame) in self.frames.into_iter().enumerate() {
            if body.send_data(frame, at == last).is_err() {
                // It was answered before all was sent.
                break;
            }
            tokio::task::yield_now().await;
        }
        let response = response.await?;
        let (head, mut received) = response.into_parts();
        let mut bytes = BytesMut::new();
        while let Some(data) = received.data().await {
            let data = match data {
                Ok(data) => data,
                Err(error) if error.is_reset() && error.reason() == Some(h2::Reason::NO_ERROR) => break,
                Err(error) => return Err(error),
            };
            received.flow_control().release_capacity(data.len())?;
            bytes.extend_from_slice(&data);
        }
        let trailers = if head.headers.contains_key("grpc-status") { None } else { received.trailers().await? };
        connection.abort();
        let status = trailers.as_ref().unwrap_or(&head.headers);
        let value = |name: &str| status.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        Ok(RawAnswer {
            code: value("grpc-status").parse().expect("an answer has a status"),
            text: percent_decoded(value("grpc-message")),
            messages: messages(bytes.freeze()),
            headers: head.headers.clone(),
        })
    }
}

/// Puts gRPC's prefix before a message.
#[must_use]
pub fn framed(message: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(message.len() + 5);
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(message.len()).expect("a test's message is small"));
    bytes.extend_from_slice(message);
    bytes.freeze()
}

fn messages(mut bytes: Bytes) -> Vec<Bytes> {
    let mut messages = Vec::new();
    while bytes.len() >= 5 {
        bytes.advance(1);
        let length = bytes.get_u32() as usize;
        messages.push(bytes.split_to(length));
    }
    messages
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, more)) = rest.split_first() {
        let hex = (first == b'%').then(|| more.get(..2)).flatten().and_then(|hex| std::str::from_utf8(hex).ok());
        if let Some(byte) = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            bytes.push(byte);
            rest = &more[2..];
        } else {
            bytes.push(first);
            rest = more;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
