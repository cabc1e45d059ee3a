//! mTLS between two processes, over real sockets, with real certificates.

use std::{
    fs, io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use http::Uri;
use modelring_process::{
    Error,
    tls::{Connector, Files, Identity, Incoming, Name, Peer, may_listen},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::timeout,
};
use tower::ServiceExt;

use crate::ca::{Ca, Pems};

const PATIENCE: Duration = Duration::from_secs(20);

struct World {
    dir: TempDir,
    ca: Ca,
}

/// A server that echoes, and tells who has come.
struct Server {
    addr: SocketAddr,
    peers: mpsc::Receiver<Peer>,
}

// === impl World ===

impl World {
    fn new() -> Self {
        Self { dir: TempDir::new().unwrap(), ca: Ca::new() }
    }

    fn issue(&self, file: &str, name: &str) -> Pems {
        self.ca.issue(self.dir.path(), file, name)
    }

    async fn identity(&self, file: &str, name: &str) -> Identity {
        identity(self.issue(file, name)).await
    }
}

async fn identity(pems: Pems) -> Identity {
    Identity::load(files(pems)).await.unwrap()
}

fn files(pems: Pems) -> Files {
    Files { certificate: pems.certificate, key: pems.key, ca: pems.ca }
}

async fn serve(identity: Option<Identity>) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let mut incoming = Incoming::on(listener, identity);
    let (sender, peers) = mpsc::channel(64);
    tokio::spawn(async move {
        while let Some(connection) = incoming.next().await {
            let sender = sender.clone();
            tokio::spawn(async move {
                let _ = sender.try_send(connection.peer());
                let (mut read, mut write) = tokio::io::split(connection);
                let _ = tokio::io::copy(&mut read, &mut write).await;
                let _ = write.shutdown().await;
            });
        }
    });
    Server { addr, peers }
}

type Dialled = hyper_util::rt::TokioIo<modelring_process::tls::Connection>;

async fn dial(addr: SocketAddr, identity: Option<Identity>, name: Name) -> io::Result<Dialled> {
    let uri: Uri = format!("http://{addr}").parse().unwrap();
    timeout(PATIENCE, Connector::new(identity, name).oneshot(uri)).await.expect("it ends")
}

/// Whether bytes come back: with TLS 1.3 a client that is refused hears of it when it reads.
async fn echoes(dialled: &mut Dialled) -> io::Result<()> {
    let connection = dialled.inner_mut();
    connection.write_all(b"hello").await?;
    connection.flush().await?;
    let mut back = [0; 5];
    timeout(PATIENCE, connection.read_exact(&mut back)).await.expect("it ends")?;
    // An alert of TLS, where the other end speaks plaintext.
    if &back == b"hello" { Ok(()) } else { Err(io::Error::other("other bytes came back")) }
}

async fn call(addr: SocketAddr, identity: Option<Identity>, name: Name) -> io::Result<()> {
    echoes(&mut dial(addr, identity, name).await?).await
}

fn agent() -> Name {
    Name::agent("ns").unwrap()
}

#[tokio::test]
async fn a_pair_of_one_ca_talks_and_each_knows_who_the_other_is() {
    let world = World::new();
    let mut server = serve(Some(world.identity("agent", "agent.ns.modelring").await)).await;
    call(server.addr, Some(world.identity("proxy", "proxy.ns.modelring").await), agent()).await.unwrap();
    let peer = server.peers.recv().await.unwrap();
    assert!(peer.is(&Name::proxy("ns").unwrap()));
    for other in [Name::proxy("other").unwrap(), Name::agent("ns").unwrap(), Name::control()] {
        assert!(!peer.is(&other), "{other}");
    }
}

#[tokio::test]
async fn a_server_of_another_name_is_not_talked_to_whatever_its_address() {
    let world = World::new();
    let server = serve(Some(world.identity("agent", "agent.other.modelring").await)).await;
    let error =
        call(server.addr, Some(world.identity("proxy", "proxy.ns.modelring").await), agent()).await.unwrap_err();
    assert!(error.to_string().contains("agent.ns.modelring"), "{error}");
}

#[tokio::test]
async fn a_client_of_another_ca_and_one_that_expired_and_one_in_plaintext_get_nothing() {
    let world = World::new();
    let stranger = World::new();
    let mut server = serve(Some(world.identity("agent", "agent.ns.modelring").await)).await;
    // It believes the server, and is not believed.
    let mut pems = stranger.issue("proxy", "proxy.ns.modelring");
    pems.ca = world.issue("any", "any").ca;
    let of_another_ca = call(server.addr, Some(identity(pems).await), agent()).await;
    assert!(of_another_ca.is_err());
    let expired = world.ca.issue_expired(world.dir.path(), "old", "proxy.ns.modelring");
    assert!(call(server.addr, Some(identity(expired).await), agent()).await.is_err());
    assert!(call(server.addr, None, agent()).await.is_err());
    call(server.addr, Some(world.identity("proxy", "proxy.ns.modelring").await), agent()).await.unwrap();
    assert!(server.peers.recv().await.unwrap().is(&Name::proxy("ns").unwrap()), "the first that became a connection");
}

#[tokio::test]
async fn a_server_of_another_ca_or_one_that_expired_or_one_in_plaintext_is_not_talked_to() {
    let world = World::new();
    let proxy = world.identity("proxy", "proxy.ns.modelring").await;
    let stranger = serve(Some(World::new().identity("agent", "agent.ns.modelring").await)).await;
    assert!(call(stranger.addr, Some(proxy.clone()), agent()).await.is_err());
    let expired = world.ca.issue_expired(world.dir.path(), "old", "agent.ns.modelring");
    let expired = serve(Some(identity(expired).await)).await;
    assert!(call(expired.addr, Some(proxy.clone()), agent()).await.is_err());
    let plain = serve(None).await;
    assert!(call(plain.addr, Some(proxy), agent()).await.is_err());
}

#[tokio::test]
async fn without_an_identity_it_is_plaintext_and_whoever_is_on_this_machine() {
    let mut server = serve(None).await;
    call(server.addr, None, agent()).await.unwrap();
    assert!(server.peers.recv().await.unwrap().is(&Name::control()));
}

#[tokio::test]
async fn a_client_that_says_nothing_holds_up_nobody() {
    let world = World::new();
    let server = serve(Some(world.identity("agent", "agent.ns.modelring").await)).await;
    let mut silent = Vec::new();
    for _ in 0..50 {
        silent.push(TcpStream::connect(server.addr).await.unwrap());
    }
    // Had it to wait for each of them in turn it would not come within its time.
    call(server.addr, Some(world.identity("proxy", "proxy.ns.modelring").await), agent()).await.unwrap();
    // And they do not stay for ever.
    let mut byte = [0];
    let closed = timeout(PATIENCE, silent[0].read(&mut byte)).await.expect("the silent one is closed");
    assert!(matches!(closed, Ok(0) | Err(_)), "{closed:?}");
}

#[tokio::test]
async fn changed_files_count_for_new_connections_and_old_ones_go_on() {
    let world = World::new();
    let server = serve(Some(world.identity("agent", "agent.ns.modelring").await)).await;
    let pems = world.issue("proxy", "proxy.ns.modelring");
    let proxy = identity(pems).await;
    let mut old = dial(server.addr, Some(proxy.clone()), agent()).await.unwrap();
    echoes(&mut old).await.unwrap();
    // The server becomes another one under way.
    world.issue("agent", "agent.other.modelring");
    let deadline = Instant::now() + PATIENCE;
    while call(server.addr, Some(proxy.clone()), Name::agent("other").unwrap()).await.is_err() {
        assert!(Instant::now() < deadline, "the new files were not taken up");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(call(server.addr, Some(proxy), agent()).await.is_err());
    echoes(&mut old).await.unwrap();
}

#[tokio::test]
async fn bad_and_half_written_files_are_not_taken_and_the_last_good_ones_stay() {
    let world = World::new();
    let pems = world.issue("agent", "agent.ns.modelring");
    let server = serve(Some(identity(pems.clone()).await)).await;
    let proxy = world.identity("proxy", "proxy.ns.modelring").await;
    let next = world.issue("next", "agent.next.modelring");
    let is_next = || call(server.addr, Some(proxy.clone()), Name::agent("next").unwrap());
    // Longer than two looks: whatever could be taken would have been.
    let stays = async |what: &str| {
        let until = Instant::now() + Duration::from_millis(2500);
        while Instant::now() < until {
            call(server.addr, Some(proxy.clone()), agent()).await.unwrap_or_else(|error| panic!("{what}: {error}"));
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    fs::copy(&next.certificate, &pems.certificate).unwrap();
    stays("a certificate whose key is yet to come").await;
    let whole = fs::read_to_string(&pems.certificate).unwrap();
    fs::write(&pems.certificate, &whole[..whole.len() / 2]).unwrap();
    stays("half a certificate").await;
    fs::remove_file(&pems.key).unwrap();
    stays("no key").await;
    fs::write(&pems.certificate, whole).unwrap();
    fs::copy(&next.key, &pems.key).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while is_next().await.is_err() {
        assert!(Instant::now() < deadline, "the whole pair was not taken up");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn files_that_cannot_be_used_at_start_are_named_with_their_flag() {
    let world = World::new();
    let good = world.issue("agent", "agent.ns.modelring");
    let other = world.issue("other", "agent.ns.modelring");
    let empty = world.dir.path().join("empty");
    fs::write(&empty, "").unwrap();
    let missing = world.dir.path().join("missing");
    let cases = [
        (Pems { certificate: missing, ..good.clone() }, "--tls-cert", "No such file"),
        (Pems { certificate: empty.clone(), ..good.clone() }, "--tls-cert", "no certificate"),
        (Pems { key: empty.clone(), ..good.clone() }, "--tls-key", "no private key"),
        (Pems { ca: empty, ..good.clone() }, "--tls-ca", "no certificate"),
        (Pems { key: other.key, ..good }, "--tls-cert", "no pair"),
    ];
    for (pems, flag, says) in cases {
        let error = Identity::load(files(pems)).await.unwrap_err().to_string();
        assert!(error.contains(flag) && error.contains(says), "{error}");
    }
}

#[test]
fn some_of_the_files_are_refused_and_the_rest_is_named() {
    assert_eq!(Files::of(None, None, None).unwrap(), None);
    let error = Files::of(Some("c".into()), None, Some("a".into())).unwrap_err().to_string();
    assert!(error.starts_with("--tls-cert and --tls-ca needs --tls-key too"), "{error}");
}

#[tokio::test]
async fn an_internal_port_beyond_loopback_needs_an_identity() {
    let world = World::new();
    let own = world.identity("agent", "agent.ns.modelring").await;
    for loopback in ["127.0.0.1:1", "127.8.9.1:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
        may_listen(loopback.parse().unwrap(), "--listen", None).unwrap();
    }
    for open in ["0.0.0.0:11881", "10.0.0.1:11881", "[::]:11881", "[::ffff:10.0.0.1]:11881"] {
        let address = open.parse().unwrap();
        let error = may_listen(address, "--listen", None).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, Error::Plaintext { .. }));
        assert!(
            text.starts_with("--listen") && text.contains("--tls-cert") && text.contains("127.0.0.1:11881"),
            "{text}"
        );
        may_listen(address, "--listen", Some(&own)).unwrap();
    }
}

#[test]
fn a_namespace_that_reaches_into_anothers_names_is_none() {
    for namespace in ["", "a.b", "*", "a b", "a*"] {
        assert!(Name::proxy(namespace).is_err(), "{namespace}");
    }
    assert_eq!(Name::proxy("ns-1").unwrap().to_string(), "proxy.ns-1.modelring");
}
