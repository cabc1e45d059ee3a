//! A model server of any gRPC service: it notes what reaches it and answers what the test says.

use std::{future::poll_fn, net::SocketAddr, sync::Arc};

use bytes::{Bytes, BytesMut};
use h2::{RecvStream, server::SendResponse};
use http::{HeaderMap, Request, Response};
use parking_lot::Mutex;
use tokio::net::TcpListener;

use super::Stop;

/// A call that reached the server.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    /// The compression flag and the bytes of each message.
    pub(crate) messages: Vec<(u8, Bytes)>,
}

/// The server: every call is answered with these messages and OK.
#[derive(Clone)]
pub(crate) struct AnyService {
    pub(crate) address: SocketAddr,
    calls: Arc<Mutex<Vec<Call>>>,
    _server: Arc<Stop>,
}

// === impl AnyService ===

impl AnyService {
    pub(crate) async fn start(answers: Vec<Vec<u8>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let calls = Arc::new(Mutex::new(Vec::new()));
        let (noted, answers) = (calls.clone(), Arc::new(answers));
        let task = tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.expect("a connection");
                let (noted, answers) = (noted.clone(), answers.clone());
                tokio::spawn(async move {
                    let mut connection = h2::server::handshake(socket).await.expect("HTTP/2");
                    while let Some(Ok((request, respond))) = connection.accept().await {
                        let (noted, answers) = (noted.clone(), answers.clone());
                        tokio::spawn(async move {
                            // The caller may be gone.
                            if let Some(call) = read(request).await {
                                noted.lock().push(call);
                                drop(answer(respond, &answers).await);
                            }
                        });
                    }
                });
            }
        });
        Self { address, calls, _server: Arc::new(Stop(task)) }
    }

    /// The calls since this was last asked.
    pub(crate) fn take(&self) -> Vec<Call> {
        std::mem::take(&mut self.calls.lock())
    }
}

async fn read(request: Request<RecvStream>) -> Option<Call> {
    let (head, mut stream) = request.into_parts();
    let mut body = BytesMut::new();
    while let Some(piece) = stream.data().await {
        let piece = piece.ok()?;
        stream.flow_control().release_capacity(piece.len()).ok()?;
        body.extend_from_slice(&piece);
    }
    let mut messages = Vec::new();
    while !body.is_empty() {
        let prefix = body.split_to(5);
        let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
        messages.push((prefix[0], body.split_to(length).freeze()));
    }
    Some(Call { path: head.uri.path().to_owned(), headers: head.headers, messages })
}

async fn answer(mut respond: SendResponse<Bytes>, answers: &[Vec<u8>]) -> Result<(), h2::Error> {
    let mut head = Response::new(());
    head.headers_mut().insert("content-type", "application/grpc".parse().expect("a value"));
    let mut out = respond.send_response(head, false)?;
    for message in answers {
        let mut wire = vec![0];
        wire.extend((message.len() as u32).to_be_bytes());
        wire.extend(message);
        out.reserve_capacity(wire.len());
        while out.capacity() < wire.len() {
            let Some(more) = poll_fn(|cx| out.poll_capacity(cx)).await else { return Ok(()) };
            more?;
        }
        out.send_data(wire.into(), false)?;
    }
    out.send_trailers(HeaderMap::from_iter([("grpc-status".parse().expect("a name"), "0".parse().expect("a value"))]))
}
