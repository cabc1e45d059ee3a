//! The relay endpoint: bytes both ways, half-closes and resets, over real sockets.

use std::{
    net::SocketAddr,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use modelring_agent::{Agent, Error, Running};
use modelring_process::tls::{Connection, Connector, Files, Identity, Name};
use tempfile::TempDir;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixListener},
    time::timeout,
};

use crate::{
    ca::{Ca, Pems},
    fixture::Fixture,
};

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);
const PATIENCE: Duration = Duration::from_secs(30);
/// Nothing listens for management: the relay does not wait for it.
const NOBODY: &str = "http://127.0.0.1:1";

/// An agent whose relay endpoint leads to `data`.
async fn relaying(fixture: &Fixture, data: &str, tls: Option<Identity>) -> Running {
    let mut config = fixture.config(NOBODY);
    (config.listen, config.relay, config.data, config.tls) = (LOOPBACK, Some(LOOPBACK), data.to_owned(), tls);
    Agent::start(config).await.unwrap()
}

/// A server, an agent before it, a connection through the relay, and its end at the server.
struct Line {
    _fixture: Fixture,
    agent: Running,
    proxy: TcpStream,
    server: TcpStream,
}

impl Line {
    async fn new() -> Self {
        let fixture = Fixture::new(&[]);
        let listener = TcpListener::bind(LOOPBACK).await.unwrap();
        let agent = relaying(&fixture, &listener.local_addr().unwrap().to_string(), None).await;
        let proxy = TcpStream::connect(agent.relay_addr.unwrap()).await.unwrap();
        let (server, _) = within(listener.accept()).await.unwrap();
        Self { _fixture: fixture, agent, proxy, server }
    }
}

async fn within<T>(something: impl Future<Output = T>) -> T {
    timeout(PATIENCE, something).await.expect("it ends in time")
}

/// So many bytes that differ from place to place.
fn pattern(length: usize, seed: usize) -> Vec<u8> {
    (0..length).map(|at| (at.wrapping_mul(31).wrapping_add(at >> 11).wrapping_add(seed) & 0xff) as u8).collect()
}

async fn send(to: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) {
    within(to.write_all(bytes)).await.unwrap();
    within(to.flush()).await.unwrap();
}

async fn receive(from: &mut (impl AsyncRead + Unpin), length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    within(from.read_exact(&mut bytes)).await.unwrap();
    bytes
}

#[tokio::test]
async fn many_bytes_pass_both_ways_at_once_and_are_counted() {
    let Line { agent, proxy, server, .. } = &mut Line::new().await;
    const LENGTH: usize = 32 << 20;
    let (there, back) = (pattern(LENGTH, 1), pattern(LENGTH, 2));
    let began = Instant::now();
    let ends = async |socket: &mut TcpStream, out: &[u8]| {
        let (mut read, mut write) = socket.split();
        let (got, ()) = tokio::join!(receive(&mut read, LENGTH), send(&mut write, out));
        got
    };
    let (at_proxy, at_server) = tokio::join!(ends(proxy, &there), ends(server, &back));
    assert!(at_server == there && at_proxy == back);
    println!("{:.0} MB/s both ways together", 2.0 * LENGTH as f64 / 1e6 / began.elapsed().as_secs_f64());
    let traffic = agent.relay_traffic();
    assert_eq!(traffic.to_server.load(Ordering::Relaxed), LENGTH as u64);
    assert_eq!(traffic.to_proxies.load(Ordering::Relaxed), LENGTH as u64);
}

#[tokio::test]
async fn each_side_may_end_its_direction_and_hear_the_other_to_its_end() {
    for proxy_first in [true, false] {
        let Line { agent, proxy, server, .. } = &mut Line::new().await;
        let (first, second) = if proxy_first { (proxy, server) } else { (server, proxy) };
        send(first, b"last words").await;
        first.shutdown().await.unwrap();
        let mut heard = Vec::new();
        within(second.read_to_end(&mut heard)).await.unwrap();
        assert_eq!(heard, b"last words");
        // The other direction goes on.
        for round in 0..3 {
            let word = pattern(100_000, round);
            let (got, ()) = tokio::join!(receive(first, word.len()), send(second, &word));
            assert!(got == word);
        }
        second.shutdown().await.unwrap();
        assert_eq!(within(first.read(&mut [0])).await.unwrap(), 0);
        let traffic = agent.relay_traffic();
        within(async {
            while traffic.closed.load(Ordering::Relaxed) == 0 {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

#[tokio::test]
async fn a_reset_of_one_side_resets_the_other() {
    for proxy_breaks in [true, false] {
        let Line { proxy, server, agent: _agent, .. } = Line::new().await;
        let (breaks, mut hears) = if proxy_breaks { (proxy, server) } else { (server, proxy) };
        breaks.set_zero_linger().unwrap();
        drop(breaks);
        let end = within(hears.read(&mut [0])).await;
        assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset, "the proxy broke off: {proxy_breaks}");
    }
}

#[tokio::test]
async fn a_reader_that_takes_nothing_stops_its_writer_and_loses_nothing() {
    let Line { proxy, server, agent: _agent, .. } = &mut Line::new().await;
    let piece = pattern(1 << 20, 0);
    let mut sent = 0;
    // Until no more is taken: what is on its way is bounded.
    while let Ok(written) = timeout(Duration::from_millis(500), proxy.write(&piece[sent % piece.len()..])).await {
        sent += written.unwrap();
        assert!(sent < 256 << 20, "it takes without end");
    }
    let mut got = 0;
    while got < sent {
        let mut buffer = vec![0; 1 << 16];
        let read = within(server.read(&mut buffer)).await.unwrap();
        let expected: Vec<u8> = (got..got + read).map(|at| piece[at % piece.len()]).collect();
        assert!(buffer[..read] == expected);
        got += read;
    }
}

#[tokio::test]
async fn while_the_server_is_down_connections_are_reset_and_it_is_found_when_it_is_back() {
    let fixture = Fixture::new(&[]);
    let listener = TcpListener::bind(LOOPBACK).await.unwrap();
    let data = listener.local_addr().unwrap();
    drop(listener);
    let agent = relaying(&fixture, &data.to_string(), None).await;
    let relay = agent.relay_addr.unwrap();
    let mut proxy = TcpStream::connect(relay).await.unwrap();
    let end = within(proxy.read(&mut [0])).await;
    assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(agent.relay_traffic().unreachable.load(Ordering::Relaxed), 1);
    let listener = TcpListener::bind(data).await.unwrap();
    let mut proxy = TcpStream::connect(relay).await.unwrap();
    let (mut server, _) = within(listener.accept()).await.unwrap();
    send(&mut proxy, b"back").await;
    assert_eq!(receive(&mut server, 4).await, b"back");
}

#[tokio::test]
async fn a_server_on_a_unix_socket_is_relayed_to() {
    let fixture = Fixture::new(&[]);
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("server.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let agent = relaying(&fixture, &format!("unix:{}", path.display()), None).await;
    let mut proxy = TcpStream::connect(agent.relay_addr.unwrap()).await.unwrap();
    let (mut server, _) = within(listener.accept()).await.unwrap();
    let (there, back) = (pattern(300_000, 1), pattern(200_000, 2));
    let (got, ()) = tokio::join!(receive(&mut server, there.len()), send(&mut proxy, &there));
    assert!(got == there);
    let (got, ()) = tokio::join!(receive(&mut proxy, back.len()), send(&mut server, &back));
    assert!(got == back);
    drop(server);
    assert_eq!(within(proxy.read(&mut [0])).await.unwrap(), 0);
}

#[tokio::test]
async fn mtls_ends_at_the_relay_and_only_proxies_of_the_namespace_pass() {
    let fixture = Fixture::new(&[]);
    let (dir, ca) = (TempDir::new().unwrap(), Ca::new());
    let identity = async |name: &str| {
        let Pems { certificate, key, ca } = ca.issue(dir.path(), name, name);
        Identity::load(Files { certificate, key, ca }).await.unwrap()
    };
    let listener = TcpListener::bind(LOOPBACK).await.unwrap();
    let data = listener.local_addr().unwrap().to_string();
    let agent = relaying(&fixture, &data, Some(identity("agent.ns.modelring").await)).await;
    let relay = agent.relay_addr.unwrap();
    let dial = async |as_whom: Identity| -> std::io::Result<Connection> {
        let connector = Connector::new(Some(as_whom), Name::agent("ns").unwrap());
        connector.over(TcpStream::connect(relay).await?).await
    };
    for other in ["proxy.other.modelring", "control.modelring", "agent.ns.modelring"] {
        let mut refused = dial(identity(other).await).await.unwrap();
        assert!(within(refused.read(&mut [0])).await.is_err(), "{other}");
    }
    let mut plain = TcpStream::connect(relay).await.unwrap();
    send(&mut plain, b"PRI * HTTP/2.0\r\n\r\n").await;
    let mut rest = Vec::new();
    // An alert at most.
    let _ = within(plain.read_to_end(&mut rest)).await;
    assert!(rest.len() < 64);
    assert_eq!(agent.relay_traffic().refused.load(Ordering::Relaxed), 3);

    let mut proxy = dial(identity("proxy.ns.modelring").await).await.unwrap();
    let (mut server, _) = within(listener.accept()).await.unwrap();
    let (there, back) = (pattern(8 << 20, 1), pattern(8 << 20, 2));
    let began = Instant::now();
    let at_proxy = async {
        let (mut read, mut write) = tokio::io::split(&mut proxy);
        tokio::join!(receive(&mut read, back.len()), send(&mut write, &there)).0
    };
    let at_server = async {
        let (mut read, mut write) = server.split();
        tokio::join!(receive(&mut read, there.len()), send(&mut write, &back)).0
    };
    let (at_proxy, at_server) = tokio::join!(at_proxy, at_server);
    assert!(at_server == there && at_proxy == back);
    println!("{:.0} MB/s both ways together", 16.0 * 1.048576 / began.elapsed().as_secs_f64());
    // Half-close, through TLS.
    proxy.shutdown().await.unwrap();
    assert_eq!(within(server.read(&mut [0])).await.unwrap(), 0);
    send(&mut server, b"still here").await;
    assert_eq!(receive(&mut proxy, 10).await, b"still here");
    // A reset, through TLS.
    server.set_zero_linger().unwrap();
    drop(server);
    assert!(within(proxy.read(&mut [0])).await.is_err());
}

#[tokio::test]
async fn a_relay_beyond_loopback_without_certificates_is_refused_with_the_remedy() {
    let fixture = Fixture::new(&[]);
    let mut config = fixture.config(NOBODY);
    config.relay = Some("0.0.0.0:0".parse().unwrap());
    let error = Agent::start(config).await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, Error::Rim(_)) && text.contains("--relay") && text.contains("--tls-cert"), "{text}");
}

#[tokio::test]
async fn a_server_that_nobody_could_reach_is_refused_with_the_remedy() {
    for (data, direct) in [("unix:/run/server.sock", None), ("127.0.0.1:8001", Some("none"))] {
        let fixture = Fixture::new(&[]);
        let mut config = fixture.config(NOBODY);
        (config.data, config.data_direct) = (data.to_owned(), direct.map(str::to_owned));
        let text = Agent::start(config).await.unwrap_err().to_string();
        assert!(text.starts_with("--data") && text.contains("--relay") && text.contains(data), "{text}");
    }
    for wrong in ["", "8001", "host:", ":8001", "unix:relative", "host:99999"] {
        let fixture = Fixture::new(&[]);
        let mut config = fixture.config(NOBODY);
        config.data = wrong.to_owned();
        let text = Agent::start(config).await.unwrap_err().to_string();
        assert!(text.contains("neither HOST:PORT nor unix:/PATH"), "{wrong}: {text}");
    }
}
