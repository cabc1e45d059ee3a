//! A client that says which bytes go into which frame.

use std::{future::poll_fn, net::SocketAddr};

use bytes::{BufMut, Bytes, BytesMut};
use h2::client::SendRequest;
use http::{HeaderMap, Method, Request, StatusCode};
use tokio::net::TcpStream;

/// One HTTP/2 connection.
pub(crate) struct Raw(SendRequest<Bytes>);

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) trailers: Option<HeaderMap>,
}

impl Raw {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).await.expect("connects");
        socket.set_nodelay(true).expect("is set");
        let (sender, connection) =
            h2::client::Builder::new().initial_window_size(1 << 20).handshake(socket).await.expect("handshakes");
        tokio::spawn(connection);
        Self(sender)
    }

    pub(crate) async fn request(&self, request: Request<()>, frames: Vec<Bytes>) -> Result<Answered, h2::Error> {
        let mut sender = self.0.clone().ready().await?;
        let (response, mut body) = sender.send_request(request, frames.is_empty())?;
        let last = frames.len().saturating_sub(1);
        let upload = async {
            for (number, mut frame) in frames.into_iter().enumerate() {
                loop {
                    body.reserve_capacity(frame.len());
                    while body.capacity() == 0 && !frame.is_empty() {
                        match poll_fn(|cx| body.poll_capacity(cx)).await {
                            Some(Ok(_)) => {}
                            // The server wants no more.
                            Some(Err(_)) | None => return,
                        }
                    }
                    let part = frame.split_to(frame.len().min(body.capacity()));
                    let end = number == last && frame.is_empty();
                    if body.send_data(part, end).is_err() {
                        return;
                    }
                    // Lets the connection write each frame by itself.
                    tokio::task::yield_now().await;
                    if frame.is_empty() {
                        break;
                    }
                }
            }
        };
        let download = async {
            let (head, mut stream) = response.await?.into_parts();
            let mut body = BytesMut::new();
            while let Some(piece) = stream.data().await {
                let piece = piece?;
                stream.flow_control().release_capacity(piece.len())?;
                body.extend_from_slice(&piece);
            }
            let trailers = stream.trailers().await?;
            Ok(Answered { status: head.status, headers: head.headers, body: body.freeze(), trailers })
        };
        let ((), answered) = tokio::join!(upload, download);
        answered
    }

    /// A gRPC call that is answered.
    pub(crate) async fn grpc(&self, path: &str, headers: &[(&str, &str)], frames: Vec<Bytes>) -> Answered {
        self.try_grpc(path, headers, frames).await.expect("is answered")
    }

    /// A gRPC call.
    pub(crate) async fn try_grpc(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        frames: Vec<Bytes>,
    ) -> Result<Answered, h2::Error> {
        let request = headers.iter().fold(
            Request::builder()
                .method(Method::POST)
                .uri(format!("http://modelring{path}"))
                .header("content-type", "application/grpc")
                .header("te", "trailers"),
            |request, (name, value)| request.header(*name, *value),
        );
        self.request(request.body(()).expect("is valid"), frames).await
    }
}

impl Answered {
    /// Headers where the answer is all headers, else the trailers.
    pub(crate) fn last(&self) -> &HeaderMap {
        self.trailers.as_ref().unwrap_or(&self.headers)
    }

    pub(crate) fn code(&self) -> &str {
        self.last()["grpc-status"].to_str().expect("ascii")
    }

    pub(crate) fn reason(&self) -> &str {
        self.last().get("modelring-reason").map_or("", |reason| reason.to_str().expect("ascii"))
    }

    pub(crate) fn message(&self) -> Bytes {
        let length = u32::from_be_bytes(self.body[1..5].try_into().expect("four bytes")) as usize;
        assert_eq!((self.body[0], length), (0, self.body.len() - 5), "the frame's length is right");
        self.body.slice(5..)
    }
}

/// A message in gRPC's frame.
pub(crate) fn framed(flag: u8, message: &[u8]) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_u8(flag);
    bytes.put_u32(message.len() as u32);
    bytes.put_slice(message);
    bytes.freeze()
}
