//! A gRPC connection that behaves as those of gRPC clients do: it is dialled anew when it has ended, at the next address
//! where one does not answer, and a call that certainly did not reach the server (it was not sent, or its stream is above
//! the last one of a GOAWAY, or it was refused) is sent once more.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use h2::{Reason, client::SendRequest};
use http::HeaderMap;
use tokio::{net::TcpStream, sync::Mutex, time::timeout};

use crate::framed;

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(2);
/// How long after its deadline a call is still waited for: the proxy ends it then, and says why.
const LATE: Duration = Duration::from_secs(2);
/// How often a call that did not reach a server is sent.
const TRIES: usize = 6;

/// A connection to one of several proxies.
#[derive(Debug)]
pub struct Connection {
    addresses: Vec<SocketAddr>,
    open: Mutex<Option<Open>>,
    next: AtomicUsize,
}

#[derive(Clone, Debug)]
struct Open {
    address: SocketAddr,
    number: usize,
    sender: SendRequest<Bytes>,
}

/// What came of a call.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The proxy that it was sent to at last.
    pub proxy: Option<SocketAddr>,
    /// The answer, or how the connection broke.
    pub outcome: Result<Told, String>,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Told {
    /// gRPC code.
    pub code: u32,
    /// Its text.
    pub text: String,
    /// The proxy's reason, where the proxy answered itself.
    pub reason: String,
    /// The message.
    pub message: Bytes,
}

enum Broken {
    /// The server has not seen it.
    Unsent(h2::Error),
    Lost(h2::Error),
}

// === impl Connection ===

impl Connection {
    /// A connection that prefers the address of this number and moves on to the next when it must.
    #[must_use]
    pub fn new(addresses: Vec<SocketAddr>, first: usize) -> Arc<Self> {
        Arc::new(Self { addresses, open: Mutex::default(), next: AtomicUsize::new(first) })
    }

    /// One unary call.
    pub async fn call(&self, path: &str, message: &[u8], deadline: Duration) -> Answer {
        let mut proxy = None;
        let calling = async {
            let mut last = String::new();
            for _ in 0..TRIES {
                let open = match self.open().await {
                    Ok(open) => open,
                    Err(error) => {
                        last = format!("no proxy can be connected: {error}");
                        tokio::time::sleep(Duration::from_millis(20)).await;
                        continue;
                    }
                };
                proxy = Some(open.address);
                match once(open.clone(), path, message, deadline).await {
                    Ok(told) => return Ok(told),
                    Err(Broken::Unsent(error)) => {
                        last = format!("not sent: {error}");
                        self.close(open.number).await;
                    }
                    Err(Broken::Lost(error)) => {
                        self.close(open.number).await;
                        return Err(format!("lost: {error}"));
                    }
                }
            }
            Err(last)
        };
        let outcome = match timeout(deadline + LATE, calling).await {
            Ok(outcome) => outcome,
            Err(_) => Err(format!("no answer within {deadline:?} and {LATE:?}")),
        };
        Answer { proxy, outcome }
    }

    async fn open(&self) -> Result<Open, String> {
        let mut open = self.open.lock().await;
        if let Some(open) = &*open {
            return Ok(open.clone());
        }
        let mut last = String::new();
        for _ in 0..self.addresses.len() {
            let number = self.next.load(Ordering::Relaxed);
            let address = self.addresses[number % self.addresses.len()];
            match timeout(CONNECT, dial(address)).await {
                Ok(Ok(sender)) => {
                    let made = Open { address, number, sender };
                    // A later connection is another one, also to the same address.
                    self.next.store(number + self.addresses.len(), Ordering::Relaxed);
                    *open = Some(made.clone());
                    return Ok(made);
                }
                Ok(Err(error)) => last = error,
                Err(_) => last = format!("{address} does not answer"),
            }
            self.next.store(number + 1, Ordering::Relaxed);
        }
        Err(last)
    }

    /// Forgets a connection, unless there is a newer one.
    async fn close(&self, number: usize) {
        let mut open = self.open.lock().await;
        open.take_if(|open| open.number == number);
    }
}

async fn dial(address: SocketAddr) -> Result<SendRequest<Bytes>, String> {
    let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    let (sender, connection) = h2::client::handshake(stream).await.map_err(|error| error.to_string())?;
    tokio::spawn(connection);
    Ok(sender)
}

async fn once(open: Open, path: &str, message: &[u8], deadline: Duration) -> Result<Told, Broken> {
    let mut sender = open.sender.ready().await.map_err(Broken::Unsent)?;
    let request = http::Request::post(format!("http://{}{path}", open.address))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-timeout", format!("{}m", deadline.as_millis()))
        .body(())
        .expect("the head is well-formed");
    let (response, mut body) = sender.send_request(request, false).map_err(Broken::Unsent)?;
    // A failure to send is told by the response.
    let _ = body.send_data(framed(message), true);
    let broken = |error: h2::Error| {
        let refused = error.is_remote() && error.reason() == Some(Reason::REFUSED_STREAM);
        let above = error.is_go_away() && error.is_remote() && error.reason() == Some(Reason::NO_ERROR);
        if refused || above { Broken::Unsent(error) } else { Broken::Lost(error) }
    };
    let (head, mut received) = response.await.map_err(broken)?.into_parts();
    let mut bytes = BytesMut::new();
    while let Some(data) = received.data().await {
        let data = data.map_err(Broken::Lost)?;
        received.flow_control().release_capacity(data.len()).map_err(Broken::Lost)?;
        bytes.extend_from_slice(&data);
    }
    let trailers = match head.headers.contains_key("grpc-status") {
        true => None,
        false => received.trailers().await.map_err(Broken::Lost)?,
    };
    let status = trailers.as_ref().unwrap_or(&head.headers);
    let value = |headers: &HeaderMap, name: &str| {
        headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
    };
    let mut message = bytes.freeze();
    message.advance(message.len().min(5));
    Ok(Told {
        code: value(status, "grpc-status").parse().unwrap_or(u32::MAX),
        text: value(status, "grpc-message"),
        reason: value(&head.headers, "modelring-reason"),
        message,
    })
}
