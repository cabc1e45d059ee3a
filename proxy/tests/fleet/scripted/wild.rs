//! A model server that behaves as no server should: frame by frame, as a script says.

use std::{collections::VecDeque, io, net::SocketAddr, sync::Arc};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::Stop;

/// What is done with a call once its request is whole.
#[derive(Clone, Debug)]
pub(crate) enum Does {
    /// An empty message and OK.
    Answers,
    /// Nothing but a status.
    Says(u32, &'static str),
    /// Headers, and the status in trailers.
    Trails(u32, &'static str),
    /// A part of a message, and then the stream is reset.
    Begins,
    /// RST_STREAM with this code.
    Resets(u32),
    /// A GOAWAY below this call; earlier ones go on, and so does the connection.
    Leaves,
    /// The connection is closed.
    HangsUp,
}

pub(crate) const REFUSED_STREAM: u32 = 7;
pub(crate) const INTERNAL_ERROR: u32 = 2;

/// What the servers of one script share.
#[derive(Default)]
struct Script {
    next: VecDeque<Does>,
    /// Bytes of the request bodies, in the order in which they were whole.
    requests: Vec<Vec<u8>>,
}

/// Servers that follow one script: the first call that comes to any of them gets what stands first.
#[derive(Clone)]
pub(crate) struct Wild {
    pub(crate) addresses: Vec<SocketAddr>,
    script: Arc<Mutex<Script>>,
    _servers: Arc<Vec<Stop>>,
}

/// One connection.
struct Connection {
    socket: TcpStream,
    script: Arc<Mutex<Script>>,
    /// Requests that are not whole yet, by stream.
    open: Vec<(u32, Vec<u8>)>,
    last_answered: u32,
}

// === impl Wild ===

impl Wild {
    /// So many servers; beyond the script they answer.
    pub(crate) async fn start(servers: usize, script: impl IntoIterator<Item = Does>) -> Self {
        let script = Arc::new(Mutex::new(Script { next: script.into_iter().collect(), ..Script::default() }));
        let (mut addresses, mut tasks) = (Vec::new(), Vec::new());
        for _ in 0..servers {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            addresses.push(listener.local_addr().expect("an address"));
            let script = script.clone();
            tasks.push(Stop(tokio::spawn(async move {
                loop {
                    let (socket, _) = listener.accept().await.expect("a connection");
                    let connection = Connection { socket, script: script.clone(), open: Vec::new(), last_answered: 0 };
                    // It ends when the proxy closes it, or by the script.
                    tokio::spawn(async move { drop(connection.serve().await) });
                }
            })));
        }
        Self { addresses, script, _servers: Arc::new(tasks) }
    }

    /// Request bodies that came whole.
    pub(crate) fn requests(&self) -> Vec<Vec<u8>> {
        self.script.lock().requests.clone()
    }

    /// Replaces what is left of the script.
    pub(crate) fn follow(&self, script: impl IntoIterator<Item = Does>) {
        self.script.lock().next = script.into_iter().collect();
    }
}

// === impl Connection ===

impl Connection {
    async fn serve(mut self) -> io::Result<()> {
        let mut preface = [0; 24];
        self.socket.read_exact(&mut preface).await?;
        // Windows so large that none is ever full.
        self.frame(4, 0, 0, &[0, 4, 0x01, 0, 0, 0]).await?;
        self.frame(8, 0, 0, &0x3fff_0000_u32.to_be_bytes()).await?;
        loop {
            let mut head = [0; 9];
            self.socket.read_exact(&mut head).await?;
            let [a, b, c, kind, flags, stream @ ..] = head;
            let (length, stream) = (u32::from_be_bytes([0, a, b, c]), u32::from_be_bytes(stream));
            let mut payload = vec![0; length as usize];
            self.socket.read_exact(&mut payload).await?;
            match kind {
                0 => {
                    if let Some((_, body)) = self.open.iter_mut().find(|(id, _)| *id == stream) {
                        body.extend_from_slice(&payload);
                    }
                }
                1 => self.open.push((stream, Vec::new())),
                3 => self.open.retain(|(id, _)| *id != stream),
                4 if flags & 1 == 0 => self.frame(4, 1, 0, &[]).await?,
                6 if flags & 1 == 0 => self.frame(6, 1, 0, &payload).await?,
                _ => {}
            }
            if matches!(kind, 0 | 1) && flags & 1 == 1 {
                self.whole(stream).await?;
            }
        }
    }

    async fn whole(&mut self, stream: u32) -> io::Result<()> {
        let Some(at) = self.open.iter().position(|(id, _)| *id == stream) else { return Ok(()) };
        let (_, body) = self.open.remove(at);
        let does = {
            let mut script = self.script.lock();
            script.requests.push(body);
            script.next.pop_front().unwrap_or(Does::Answers)
        };
        const MESSAGE: [u8; 5] = [0; 5];
        match does {
            Does::Answers => {
                self.frame(1, 4, stream, &head()).await?;
                self.frame(0, 0, stream, &MESSAGE).await?;
                self.frame(1, 5, stream, &status(0, "")).await?;
            }
            Does::Says(code, text) => self.frame(1, 5, stream, &[head(), status(code, text)].concat()).await?,
            Does::Trails(code, text) => {
                self.frame(1, 4, stream, &head()).await?;
                self.frame(1, 5, stream, &status(code, text)).await?;
            }
            Does::Begins => {
                self.frame(1, 4, stream, &head()).await?;
                self.frame(0, 0, stream, &MESSAGE[..3]).await?;
                self.frame(3, 0, stream, &INTERNAL_ERROR.to_be_bytes()).await?;
            }
            Does::Resets(code) => self.frame(3, 0, stream, &code.to_be_bytes()).await?,
            Does::Leaves => {
                let (below, no_error) = (self.last_answered, 0_u32);
                self.frame(7, 0, 0, &[below.to_be_bytes(), no_error.to_be_bytes()].concat()).await?;
            }
            Does::HangsUp => return Err(io::ErrorKind::ConnectionAborted.into()),
        }
        self.last_answered = stream;
        Ok(())
    }

    async fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> io::Result<()> {
        let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        bytes.extend([kind, flags]);
        bytes.extend(stream.to_be_bytes());
        bytes.extend(payload);
        self.socket.write_all(&bytes).await
    }
}

/// The headers of a gRPC answer, in HPACK.
fn head() -> Vec<u8> {
    [vec![0x88], literal("content-type", "application/grpc")].concat()
}

fn status(code: u32, text: &str) -> Vec<u8> {
    [literal("grpc-status", &code.to_string()), literal("grpc-message", text)].concat()
}

/// A header field that is not indexed.
fn literal(name: &str, value: &str) -> Vec<u8> {
    let length = |text: &str| u8::try_from(text.len()).ok().filter(|length| *length < 127).expect("a short text");
    let mut bytes = vec![0, length(name)];
    bytes.extend(name.bytes());
    bytes.push(length(value));
    bytes.extend(value.bytes());
    bytes
}
