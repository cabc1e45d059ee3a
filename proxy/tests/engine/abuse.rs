//! Clients that attack by frames. Each is closed or held up, and the others never notice.

use std::time::Duration;

use modelring_proto::inference::ServerLiveRequest;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{
    support::{Proxy, eventually, infer},
    upstream::Upstream,
};

/// Frame types and flags of HTTP/2.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;
const PROTOCOL_ERROR: u32 = 1;
const ENHANCE_YOUR_CALM: u32 = 11;

/// How a connection ended for its client.
#[derive(Debug, PartialEq, Eq)]
enum Ended {
    /// By a GOAWAY with this code.
    GoAway(u32),
    /// Without a word.
    Closed,
}

struct Client(TcpStream);

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// The head of a gRPC call of `ModelInfer`, in HPACK.
fn head() -> Vec<u8> {
    let mut block = vec![0x83, 0x86];
    for (index, value) in [(0x04, "/inference.GRPCInferenceService/ModelInfer"), (0x01, "a")] {
        block.extend([index, value.len() as u8]);
        block.extend(value.bytes());
    }
    for (name, value) in [("content-type", "application/grpc"), ("te", "trailers")] {
        block.extend([0, name.len() as u8]);
        block.extend(name.bytes());
        block.push(value.len() as u8);
        block.extend(value.bytes());
    }
    block
}

impl Client {
    async fn connect(proxy: &Proxy) -> Self {
        let mut socket = TcpStream::connect(proxy.grpc()).await.expect("connects");
        socket.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.expect("is sent");
        socket.write_all(&frame(SETTINGS, 0, 0, &[])).await.expect("is sent");
        Self(socket)
    }

    /// Sends these bytes again and again, at most so often, and reads what comes; how the connection ended, if it did.
    async fn flood(self, most: usize, mut bytes: impl FnMut(u32) -> Vec<u8> + Send + 'static) -> Option<Ended> {
        let (mut read, mut write) = self.0.into_split();
        let sending = tokio::spawn(async move {
            for number in 0..most as u32 {
                if write.write_all(&bytes(number)).await.is_err() {
                    break;
                }
            }
            write
        });
        let reading = async {
            let mut ended = Ended::Closed;
            let mut frame = [0; 9];
            while read.read_exact(&mut frame).await.is_ok() {
                let length = u32::from_be_bytes([0, frame[0], frame[1], frame[2]]);
                let mut payload = vec![0; length as usize];
                if read.read_exact(&mut payload).await.is_err() {
                    break;
                }
                let code = payload.get(4..8).map(|code| u32::from_be_bytes(code.try_into().expect("four bytes")));
                if let (GOAWAY, Some(code)) = (frame[3], code) {
                    ended = Ended::GoAway(code);
                }
            }
            ended
        };
        let ended = timeout(Duration::from_secs(20), reading).await.ok();
        sending.abort();
        ended
    }
}

/// A proxy that is attacked, and that others can still use.
async fn attacked() -> (Upstream, Proxy) {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    (upstream, proxy)
}

async fn others_are_served(proxy: Proxy) {
    let answer = proxy.client().await.model_infer(infer("echo", "others", "tensor")).await;
    assert_eq!(answer.expect("others are answered").into_inner().id, "others");
    eventually("no call is left", || proxy.policy.leases() == 0).await;
    proxy.stop().await;
}

#[tokio::test]
async fn abuse_rapid_reset() {
    let (upstream, proxy) = attacked().await;
    let cancel = 8_u32.to_be_bytes();
    let ended = Client::connect(&proxy).await.flood(200_000, move |number| {
        let stream = 2 * number + 1;
        [frame(HEADERS, END_HEADERS, stream, &head()), frame(RST_STREAM, 0, stream, &cancel)].concat()
    });
    assert_eq!(ended.await, Some(Ended::GoAway(ENHANCE_YOUR_CALM)));
    assert_eq!(upstream.calls(), 0, "what was given up before its message was there has cost no server");
    others_are_served(proxy).await;
}

#[tokio::test]
async fn abuse_deadlines_are_no_attack() {
    let (_upstream, proxy) = attacked().await;
    let client = proxy.client().await;
    let calls = (0..3000).map(|_| {
        let mut client = client.clone();
        async move {
            let mut request = tonic::Request::new(infer("echo", "wait", ""));
            request.set_timeout(Duration::from_millis(50));
            client.model_infer(request).await.expect_err("it waits for ever").code()
        }
    });
    for code in futures_util::future::join_all(calls).await {
        assert!(matches!(code, tonic::Code::DeadlineExceeded | tonic::Code::Cancelled), "{code}");
    }
    client.clone().server_live(ServerLiveRequest {}).await.expect("the connection lives");
    others_are_served(proxy).await;
}

#[tokio::test]
async fn abuse_made_you_reset() {
    let (_upstream, proxy) = attacked().await;
    // A window update of 0 is an error of its stream: the proxy has to reset it.
    let ended = Client::connect(&proxy).await.flood(200_000, |number| {
        let stream = 2 * number + 1;
        [frame(HEADERS, END_HEADERS, stream, &head()), frame(WINDOW_UPDATE, 0, stream, &[0; 4])].concat()
    });
    assert!(matches!(ended.await, Some(Ended::GoAway(ENHANCE_YOUR_CALM | PROTOCOL_ERROR))));
    others_are_served(proxy).await;
}

#[tokio::test]
async fn abuse_continuation_flood() {
    let (_upstream, proxy) = attacked().await;
    let ended = Client::connect(&proxy).await.flood(1_000_000, |number| match number {
        0 => frame(HEADERS, 0, 1, &head()),
        _ => frame(CONTINUATION, 0, 1, &[]),
    });
    assert!(matches!(ended.await, Some(Ended::GoAway(_))));
    others_are_served(proxy).await;
}

#[tokio::test]
async fn abuse_endless_headers() {
    let (_upstream, proxy) = attacked().await;
    let ended = Client::connect(&proxy).await.flood(1_000_000, |number| match number {
        0 => frame(HEADERS, 0, 1, &head()),
        _ => {
            let field = [&[0, 1, b'x', 0x7f, 0xe1, 0x07][..], &[b'a'; 1120]].concat();
            frame(CONTINUATION, 0, 1, &field.repeat(8))
        }
    });
    assert!(matches!(ended.await, Some(Ended::GoAway(_))));
    others_are_served(proxy).await;
}

#[tokio::test]
async fn abuse_empty_data() {
    let (_upstream, proxy) = attacked().await;
    let ended = Client::connect(&proxy).await.flood(1_000_000, |number| match number {
        0 => frame(HEADERS, END_HEADERS, 1, &head()),
        _ => frame(DATA, 0, 1, &[]),
    });
    assert_eq!(ended.await, Some(Ended::GoAway(ENHANCE_YOUR_CALM)));
    others_are_served(proxy).await;
}

#[tokio::test]
async fn abuse_unread_acks() {
    let (_upstream, proxy) = attacked().await;
    for kind in [PING, SETTINGS] {
        let mut client = Client::connect(&proxy).await;
        // Answers are not read: the proxy must stop reading before it holds them all.
        let payload = if kind == PING { &[0; 8][..] } else { &[] };
        let flood = frame(kind, 0, 0, payload).repeat(1000);
        let held_up = async {
            loop {
                if timeout(Duration::from_secs(1), client.0.write_all(&flood)).await.is_err() {
                    return;
                }
            }
        };
        timeout(Duration::from_secs(20), held_up).await.expect("the flood is held up");
    }
    others_are_served(proxy).await;
}

#[tokio::test]
async fn abuse_streams_beyond_the_limit_are_refused() {
    let (_upstream, proxy) = attacked().await;
    let mut client = Client::connect(&proxy).await;
    for number in 0..1100 {
        client.0.write_all(&frame(HEADERS, END_HEADERS, 2 * number + 1, &head())).await.expect("is sent");
    }
    let mut refused = 0;
    let reading = async {
        while refused < 1100 - 1024 {
            let mut frame = [0; 9];
            client.0.read_exact(&mut frame).await.expect("the connection lives");
            let mut payload = vec![0; u32::from_be_bytes([0, frame[0], frame[1], frame[2]]) as usize];
            client.0.read_exact(&mut payload).await.expect("the connection lives");
            refused += usize::from(frame[3] == RST_STREAM && payload == 7_u32.to_be_bytes());
        }
    };
    timeout(Duration::from_secs(20), reading).await.expect("76 are refused");
    drop(client);
    others_are_served(proxy).await;
}
