//! A closed-loop gRPC load: C connections with S calls in flight each, on one thread.

use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use bytes::{BufMut, Bytes, BytesMut};
use h2::client::SendRequest;
use hdrhistogram::Histogram;
use tokio::{net::TcpStream, task::LocalSet};

/// How to load.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// Connections.
    pub(crate) connections: usize,
    /// Calls in flight on each.
    pub(crate) streams: usize,
}

/// What came of it.
pub(crate) struct Outcome {
    /// Calls that were answered OK.
    pub(crate) calls: u64,
    /// Length of the round.
    pub(crate) took: Duration,
    /// Latencies, microseconds.
    pub(crate) latency: Histogram<u64>,
}

/// A unary call: path and framed message.
#[derive(Clone)]
pub(crate) struct Call {
    pub(crate) path: String,
    pub(crate) message: Bytes,
}

// === impl Call ===

impl Call {
    /// Frames a message for gRPC.
    pub(crate) fn new(path: &str, message: &impl prost::Message) -> Self {
        let mut framed = BytesMut::with_capacity(message.encoded_len() + 5);
        framed.put_u8(0);
        framed.put_u32(u32::try_from(message.encoded_len()).expect("a benchmark's message is small"));
        framed.extend_from_slice(&message.encode_to_vec());
        Self { path: path.to_owned(), message: framed.freeze() }
    }
}

/// Loads `address` for `length`; any call that is not answered OK is an error.
pub(crate) fn closed_loop(address: SocketAddr, call: &Call, shape: Shape, length: Duration) -> Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        let latency = Rc::new(RefCell::new(Histogram::new_with_bounds(1, 60_000_000, 3)?));
        let calls = Rc::new(Cell::new(0));
        let begin = Instant::now();
        let mut tasks = Vec::new();
        for _ in 0..shape.connections {
            let sender = connect(address).await?;
            for _ in 0..shape.streams {
                let (sender, call) = (sender.clone(), call.clone());
                let (latency, calls) = (latency.clone(), calls.clone());
                tasks.push(tokio::task::spawn_local(async move {
                    while begin.elapsed() < length {
                        let start = Instant::now();
                        once(sender.clone(), address, &call).await?;
                        latency.borrow_mut().saturating_record(start.elapsed().as_micros() as u64);
                        calls.set(calls.get() + 1);
                    }
                    anyhow::Ok(())
                }));
            }
        }
        for task in tasks {
            task.await??;
        }
        let latency = latency.borrow().clone();
        Ok(Outcome { calls: calls.get(), took: begin.elapsed(), latency })
    })
}

async fn connect(address: SocketAddr) -> Result<SendRequest<Bytes>> {
    let stream = TcpStream::connect(address).await.with_context(|| format!("cannot connect to {address}"))?;
    stream.set_nodelay(true)?;
    let (sender, connection) = h2::client::Builder::new()
        .initial_window_size(8 << 20)
        .initial_connection_window_size(32 << 20)
        .handshake::<_, Bytes>(stream)
        .await?;
    tokio::task::spawn_local(async move {
        let _ = connection.await;
    });
    Ok(sender)
}

async fn once(sender: SendRequest<Bytes>, address: SocketAddr, call: &Call) -> Result<()> {
    let mut sender = sender.ready().await?;
    let request = http::Request::post(format!("http://{address}{}", call.path))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())?;
    let (response, mut body) = sender.send_request(request, false)?;
    body.send_data(call.message.clone(), true)?;
    let response = response.await?;
    let status = response.headers().get("grpc-status").cloned();
    let mut body = response.into_body();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
    }
    let status = match status {
        Some(status) => Some(status),
        None => body.trailers().await?.and_then(|trailers| trailers.get("grpc-status").cloned()),
    };
    match status {
        Some(status) if status == "0" => Ok(()),
        status => bail!("a call ended with grpc-status {status:?}"),
    }
}
