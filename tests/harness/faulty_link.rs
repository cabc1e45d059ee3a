//! A link to an HTTP server that loses, delays and refuses on purpose, and notes what was asked through it.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    ops::Range,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

/// Time between two looks whether the link still stands.
const LOOK: Duration = Duration::from_millis(50);

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Method.
    pub method: String,
    /// Path and query, as they came.
    pub path: String,
    /// Bytes of the object, where a range was asked for.
    pub range: Option<Range<u64>>,
    /// When it came.
    pub at: Instant,
    /// The client left before the answer was whole.
    pub given_up: bool,
}

/// What happens to an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It arrives.
    None,
    /// 503 in place of it, as S3 says it.
    Busy,
    /// It stops after so many bytes of its body, and the connection stays open.
    StallAfter(usize),
    /// The connection is closed in order after so many bytes of its body.
    CloseAfter(usize),
    /// The connection is reset after so many bytes of its body.
    ResetAfter(usize),
    /// It comes with this pause after each 64 KiB.
    Slow(Duration),
}

type Decide = Box<dyn FnMut(&Asked) -> Fault + Send>;

/// A link to a server. It ends when dropped, with all connections.
pub struct FaultyLink {
    /// Where clients connect.
    pub addr: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    upstream: SocketAddr,
    decide: Mutex<Decide>,
    asked: Mutex<Vec<Asked>>,
    ended: AtomicBool,
}

// === impl FaultyLink ===

impl FaultyLink {
    /// A link on a free port that is whole at first.
    ///
    /// # Panics
    /// When there is no free port.
    #[must_use]
    pub fn to(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let addr = listener.local_addr().expect("it has an address");
        let shared = Arc::new(Shared {
            upstream,
            decide: Mutex::new(Box::new(|_| Fault::None)),
            asked: Mutex::new(Vec::new()),
            ended: AtomicBool::new(false),
        });
        let accepting = shared.clone();
        std::thread::spawn(move || {
            for client in listener.incoming() {
                if accepting.ended.load(Ordering::Relaxed) {
                    return;
                }
                let shared = accepting.clone();
                if let Ok(client) = client {
                    std::thread::spawn(move || shared.serve(client));
                }
            }
        });
        Self { addr, shared }
    }

    /// From now on each request is decided by `decide`.
    ///
    /// # Panics
    /// When an earlier decision has.
    pub fn decide(&self, decide: impl FnMut(&Asked) -> Fault + Send + 'static) {
        *self.shared.decide.lock().expect("no decision has failed") = Box::new(decide);
    }

    /// Everything that was asked so far.
    ///
    /// # Panics
    /// When a connection has.
    #[must_use]
    pub fn asked(&self) -> Vec<Asked> {
        self.shared.asked.lock().expect("no connection has failed").clone()
    }

    /// The ranges of objects that were asked for, in order.
    #[must_use]
    pub fn ranges(&self) -> Vec<(String, Range<u64>)> {
        let mut ranges: Vec<_> =
            self.asked().into_iter().filter_map(|asked| Some((asked.path, asked.range?))).collect();
        ranges.sort_by(|a, b| (&a.0, a.1.start).cmp(&(&b.0, b.1.start)));
        ranges
    }
}

impl Drop for FaultyLink {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.addr);
    }
}

impl Shared {
    /// Serves one request; the connection ends with it.
    fn serve(&self, mut client: TcpStream) {
        let Some(head) = read_head(&mut client) else { return };
        let asked = read_asked(&head);
        let fault = (self.decide.lock().expect("no decision has failed"))(&asked);
        let index = {
            let mut all = self.asked.lock().expect("no connection has failed");
            all.push(asked);
            all.len() - 1
        };
        if !self.answer(&mut client, &head, fault).unwrap_or(false) {
            self.asked.lock().expect("no connection has failed")[index].given_up = true;
        }
        let _ = client.shutdown(Shutdown::Both);
    }

    /// False where the client left first.
    fn answer(&self, client: &mut TcpStream, head: &str, fault: Fault) -> std::io::Result<bool> {
        if fault == Fault::Busy {
            let body = "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>";
            let head = "HTTP/1.1 503 Slow Down\r\nConnection: close\r\nContent-Type: application/xml\r\n";
            write!(client, "{head}Content-Length: {}\r\n\r\n{body}", body.len())?;
            return Ok(true);
        }
        let mut upstream = TcpStream::connect(self.upstream)?;
        upstream.write_all(head.as_bytes())?;
        let Some(answer_head) = read_head(&mut upstream) else { return Ok(false) };
        client.write_all(answer_head.as_bytes())?;
        let limit = match fault {
            Fault::StallAfter(bytes) | Fault::CloseAfter(bytes) | Fault::ResetAfter(bytes) => bytes,
            _ => usize::MAX,
        };
        let mut sent = 0;
        let mut buffer = vec![0; 64 << 10];
        while sent < limit && !self.ended.load(Ordering::Relaxed) {
            let most = buffer.len().min(limit - sent);
            let read = upstream.read(&mut buffer[..most])?;
            if read == 0 {
                return Ok(true);
            }
            if client.write_all(&buffer[..read]).is_err() {
                return Ok(false);
            }
            sent += read;
            if let Fault::Slow(pause) = fault {
                std::thread::sleep(pause);
            }
        }
        match fault {
            Fault::StallAfter(_) => return Ok(self.hold(client)),
            Fault::ResetAfter(_) => socket2::SockRef::from(&*client).set_linger(Some(Duration::ZERO))?,
            _ => {}
        }
        Ok(true)
    }

    /// Says nothing until the client leaves (false) or the link ends.
    fn hold(&self, client: &mut TcpStream) -> bool {
        let _ = client.set_read_timeout(Some(LOOK));
        while !self.ended.load(Ordering::Relaxed) {
            match client.read(&mut [0; 64]) {
                Ok(0) => return false,
                Err(error)
                    if !matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) =>
                {
                    return false;
                }
                _ => {}
            }
        }
        true
    }
}

/// Reads the head of a message, byte by byte so that nothing of the body is taken; none where the other side leaves.
fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).ok()? == 0 || head.len() > 64 << 10 {
            return None;
        }
        head.push(byte[0]);
    }
    Some(String::from_utf8_lossy(&head).into_owned())
}

fn read_asked(head: &str) -> Asked {
    let mut words = head.split_whitespace();
    let range = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let (first, last) =
            value.trim().strip_prefix("bytes=").filter(|_| name.eq_ignore_ascii_case("range"))?.split_once('-')?;
        Some(first.parse().ok()?..last.parse::<u64>().ok()? + 1)
    });
    Asked {
        method: words.next().unwrap_or_default().to_owned(),
        path: words.next().unwrap_or_default().to_owned(),
        range,
        at: Instant::now(),
        given_up: false,
    }
}
