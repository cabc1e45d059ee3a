//! HTTP/2 connections of clients: gRPC goes to the engine, all else to REST.

use std::{
    future::{pending, poll_fn},
    net::IpAddr,
    pin::pin,
    rc::Rc,
    time::Duration,
};

use bytes::Bytes;
use h2::{
    RecvStream,
    server::{Builder, Connection, SendResponse},
};
use http::{HeaderMap, Method, Request, Response, header::CONTENT_TYPE};
use rand::Rng;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout},
};

use super::{
    calm::Calm,
    http::{Body, HttpRequest, HttpResponse},
    sniff::Reread,
    thread::{Context, Counted},
};
use crate::engine::{
    answer::{Answer, Reason},
    call::Caller,
    client::poll_room,
    policy::Policy,
};

/// Streams of one connection, most.
const STREAMS: u32 = 1024;
/// Window of a request stream, bytes: what a held call may send unasked.
const STREAM_WINDOW: u32 = 256 * 1024;
/// Window of a connection, bytes: so large that waiting uploads cannot stall the others.
const CONNECTION_WINDOW: u32 = 1 << 30;
/// Bytes of an answer that may wait in a stream for the socket.
const SEND_BUFFER: usize = 256 * 1024;
/// Errors of a client that cost a stream, most; those of ordinary clients are counted on one hand.
const ERRORS: usize = 500;
/// How long the first frames may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the next piece of a body may take.
const STALLED: Duration = Duration::from_secs(60);
/// A connection without a stream is closed after this.
const IDLE: Duration = Duration::from_secs(600);

/// Serves a connection to its end.
pub(super) async fn serve<P: Policy>(io: Reread, peer: Option<IpAddr>, context: Rc<Context<P>>) {
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(STREAMS)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(context.settings.limits.max_headers)
        .max_send_buffer_size(SEND_BUFFER)
        // Ordinary clients cancel many calls at once; the defaults take that for an attack.
        .max_pending_accept_reset_streams(1000)
        .max_concurrent_reset_streams(1000)
        // Resets that a client makes us send by its errors (CVE-2025-8671).
        .max_local_error_reset_streams(Some(ERRORS))
        // Messages in tiny frames are slow, not forbidden.
        .data_frame_budget(1 << 30);
    match timeout(PATIENCE, builder.handshake(io)).await {
        Ok(Ok(connection)) => accept(connection, peer, context).await,
        Ok(Err(error)) => tracing::debug!(%error, "an HTTP/2 connection did not begin"),
        Err(_) => tracing::debug!("an HTTP/2 connection did not begin in time"),
    }
}

async fn accept<P: Policy>(mut connection: Connection<Reread, Bytes>, peer: Option<IpAddr>, context: Rc<Context<P>>) {
    // One for each stream that is on.
    let streams = Rc::new(());
    let limits = context.settings.limits;
    let mut old = pin!(sleep(limits.connection_age.mul_f64(rand::rng().random_range(0.9..1.1))));
    let mut too_old = pin!(sleep(Duration::MAX));
    let mut idle = pin!(sleep(IDLE));
    let mut draining = pin!(context.draining());
    let calm = Calm::new();
    let (mut leaving, mut warned) = (false, false);
    loop {
        tokio::select! {
            accepted = connection.accept() => match accepted {
                Some(Ok((request, respond))) => {
                    let on = (streams.clone(), context.count_stream(), calm.clone());
                    tokio::task::spawn_local(stream(request, respond, peer, context.clone(), on));
                    idle.as_mut().reset(Instant::now() + IDLE);
                    continue;
                }
                Some(Err(error)) => return tracing::debug!(%error, "an HTTP/2 connection broke"),
                None => return,
            },
            () = &mut idle, if !leaving => if Rc::strong_count(&streams) > 1 {
                idle.as_mut().reset(Instant::now() + IDLE);
                continue;
            },
            () = calm.spent(), if !warned => {
                tracing::warn!(?peer, "a client goes on giving up calls that it has begun: its connection is closed");
                (leaving, warned) = (true, true);
                connection.abrupt_shutdown(h2::Reason::ENHANCE_YOUR_CALM);
                continue;
            }
            () = &mut too_old => return tracing::info!(?peer, "an old HTTP/2 connection is over its grace and is cut off"),
            () = &mut old, if !leaving => if let Some(grace) = limits.connection_grace {
                too_old.as_mut().reset(Instant::now() + grace);
            },
            () = &mut draining, if !leaving => {}
        }
        // GOAWAY; what is on goes on.
        leaving = true;
        connection.graceful_shutdown();
    }
}

async fn stream<P: Policy>(
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
    peer: Option<IpAddr>,
    context: Rc<Context<P>>,
    (_stream, _counted, calm): (Rc<()>, Counted, Calm),
) {
    let is_answered = if request.method() == Method::POST && is_grpc(request.headers()) {
        context.engine.relay(request, respond).await
    } else {
        rest(request, respond, peer, &context).await
    };
    if !is_answered {
        calm.given_up();
    }
}

/// gRPC proper; gRPC-Web is another protocol.
fn is_grpc(headers: &HeaderMap) -> bool {
    let rest = headers.get(CONTENT_TYPE).and_then(|it| it.as_bytes().strip_prefix(b"application/grpc"));
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// Whether the request was answered, rather than given up by its caller.
async fn rest<P: Policy>(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    peer: Option<IpAddr>,
    context: &Context<P>,
) -> bool {
    let (parts, stream) = request.into_parts();
    let is_head = parts.method == Method::HEAD;
    let (feed, body) = Body::new(context.engine.budget().clone());
    let request = HttpRequest { method: parts.method, uri: parts.uri, headers: parts.headers, peer, body };
    let response = tokio::select! {
        response = context.http.handle(request, &context.engine) => response,
        () = upload(stream, feed) => return true,
        _ = poll_fn(|cx| respond.poll_reset(cx)) => return false,
    };
    // The caller may have gone.
    if let Err(error) = answer(respond, response, is_head).await {
        tracing::debug!(%error, "a response did not reach its caller");
    }
    true
}

/// Feeds the body, piece by piece as it is read. Never ends: the end of the call is another's to see.
async fn upload(mut stream: RecvStream, feed: mpsc::Sender<Result<Bytes, Answer>>) {
    while let Ok(permit) = feed.reserve().await {
        match timeout(STALLED, stream.data()).await.unwrap_or(Some(Err(h2::Reason::CANCEL.into()))) {
            Some(Ok(piece)) => {
                // Fails only for a stream that is over.
                let _ = stream.flow_control().release_capacity(piece.len());
                permit.send(Ok(piece));
            }
            Some(Err(error)) => {
                permit.send(Err(Answer::new(Reason::BR, format!("the request body broke off: {error}"))));
                break;
            }
            None => break,
        }
    }
    drop(feed);
    pending().await
}

async fn answer(mut respond: SendResponse<Bytes>, mut response: HttpResponse, is_head: bool) -> Result<(), h2::Error> {
    response.finish_headers();
    let mut head = Response::new(());
    *head.status_mut() = response.status;
    *head.headers_mut() = response.headers;
    let mut pieces = response.body;
    pieces.retain(|piece| !piece.is_empty() && !is_head);
    let trailers = Some(response.trailers).filter(|trailers| !trailers.is_empty() && !is_head);
    let mut out = respond.send_response(head, pieces.is_empty() && trailers.is_none())?;
    let last = pieces.len().saturating_sub(1);
    for (number, mut piece) in pieces.into_iter().enumerate() {
        while !piece.is_empty() {
            let room = poll_fn(|cx| poll_room(&mut out, piece.len(), cx)).await?;
            let part = piece.split_to(room);
            out.send_data(part, number == last && piece.is_empty() && trailers.is_none())?;
        }
    }
    trailers.map_or(Ok(()), |trailers| out.send_trailers(trailers))
}
