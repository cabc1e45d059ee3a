//! HTTP/1.1 connections of clients, by Pingora's session. All use of Pingora's hidden API is in this file.

use std::{cell::Cell, net::IpAddr, rc::Rc, time::Duration};

use bytes::Bytes;
use http::{
    Method, Response, Version,
    header::{HOST, TRANSFER_ENCODING},
};
use pingora_core::{
    Error, ErrorType,
    protocols::{Stream, http::ServerSession, l4::stream::Stream as Socket},
};
use tokio::{
    net::TcpStream,
    sync::mpsc,
    time::{sleep, timeout},
};

use super::{
    http::{Body, HttpRequest, HttpResponse},
    thread::Context,
};
use crate::engine::{
    answer::{Answer, Reason},
    call::Caller,
    policy::Policy,
};

/// How long the head of a request may take, once it has begun or the connection is new.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a connection may be unused between two requests.
const IDLE: Duration = Duration::from_secs(600);
/// How long one read of a body, or one write, may take.
const STALLED: Duration = Duration::from_secs(60);
/// How long, and for how many bytes, a body is still taken that was answered before it was whole.
const LINGER: (Duration, usize) = (Duration::from_secs(2), 64 << 20);

/// How long the answer is still made for a caller that has sent all and closed its half: whether it reads on, nobody knows.
const HALF_CLOSED: Duration = Duration::from_secs(2);

/// Serves a connection to its end; `read` was read from it already.
pub(super) async fn serve<P: Policy>(socket: TcpStream, read: &[u8], peer: Option<IpAddr>, context: Rc<Context<P>>) {
    let mut socket = Socket::from(socket);
    socket.rewind(read);
    let mut stream: Stream = Box::new(socket);
    let (mut early, mut patience) = (None, PATIENCE);
    loop {
        let mut session = ServerSession::new_http1(stream);
        session.set_pipelining_enabled(true);
        if let Some(early) = early {
            session.set_pipelined_prefix(early);
        }
        session.set_keepalive(Some(IDLE.as_secs()));
        session.set_read_timeout(Some(STALLED));
        session.set_write_timeout(Some(STALLED));
        session.set_close_on_response_before_downstream_finish(true);
        let begun = tokio::select! {
            begun = timeout(patience, session.read_request()) => begun,
            () = context.draining() => return,
        };
        match begun {
            Ok(Ok(true)) => {}
            Ok(Ok(false)) | Err(_) => return,
            Ok(Err(error)) => return malformed(session, &error).await,
        }
        if let Err(answer) = strict(&session) {
            return refuse(session, answer).await;
        }
        let Some(next) = exchange(session, peer, &context).await else { return };
        (stream, early) = next;
        patience = IDLE;
    }
}

/// One request and its response; what the next can be read from.
async fn exchange<P: Policy>(
    mut session: ServerSession,
    peer: Option<IpAddr>,
    context: &Context<P>,
) -> Option<(Stream, Option<bytes::BytesMut>)> {
    let _counted = context.count_stream();
    let head = session.req_header();
    let is_head = head.method == Method::HEAD;
    let expects = head.headers.get("expect").is_some_and(|it| it.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    let (feed, body) = Body::new(context.engine.budget().clone());
    let (method, uri, headers) = (head.method.clone(), head.uri.clone(), head.headers.clone());
    let request = HttpRequest { method, uri, headers, peer, body };
    let broken = Cell::new(false);
    let response = tokio::select! {
        response = context.http.handle(request, &context.engine) => response,
        () = upload(&mut session, feed, expects, &broken) => return None,
    };
    // Where a broken body ends, and the next request begins, nobody can say.
    let unread = !session.is_body_done();
    if context.is_draining() || broken.get() || unread {
        session.set_keepalive(None);
    }
    if let Err(error) = answer(&mut session, response, is_head).await {
        tracing::debug!(%error, "a response did not reach its caller");
        return None;
    }
    if unread {
        linger(&mut session).await;
        return None;
    }
    session.finish().await.ok().flatten().map(|next| next.into_parts())
}

/// Feeds the body, piece by piece as it is read, then watches the caller; ends when the caller goes away.
async fn upload(
    session: &mut ServerSession,
    feed: mpsc::Sender<Result<Bytes, Answer>>,
    expects: bool,
    broken: &Cell<bool>,
) {
    let mut expects = expects && !session.is_body_done();
    loop {
        let Ok(permit) = feed.reserve().await else { break };
        if std::mem::take(&mut expects) && session.write_continue_response().await.is_err() {
            return;
        }
        match session.read_request_body().await {
            Ok(Some(piece)) => permit.send(Ok(piece)),
            Ok(None) => break,
            Err(error) => {
                broken.set(true);
                permit.send(Err(Answer::new(Reason::BR, format!("the request body broke off: {error}"))));
                break;
            }
        }
    }
    drop(feed);
    if !session.is_body_done() {
        // Nobody reads the rest; a read now could not tell a body from the caller's end.
        return std::future::pending().await;
    }
    // Ends with an error when the caller goes, and never otherwise.
    let gone = loop {
        if let Err(error) = session.read_body_or_idle(true).await {
            break error;
        }
    };
    if *gone.etype() == ErrorType::ConnectionClosed {
        sleep(HALF_CLOSED).await;
    }
}

/// What no two servers on the way of a request may read in two ways, Pingora forgives: that is refused here.
fn strict(session: &ServerSession) -> Result<(), Answer> {
    let head = session.req_header();
    let bad = |text: &str| Err(Answer::new(Reason::BR, text));
    let ServerSession::H1(raw) = session else { return Ok(()) };
    let raw = raw.get_headers_raw_bytes();
    let mut before = b' ';
    if raw.iter().any(|byte| std::mem::replace(&mut before, *byte) != b'\r' && *byte == b'\n') {
        return bad("a line of the request's head does not end with CR LF");
    }
    if head.version == Version::HTTP_11 && !head.headers.contains_key(HOST) {
        return bad("the request has no Host header");
    }
    let mut codings = head.headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => return Ok(()),
        (Some(coding), None) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => {}
        _ => return Err(Answer::new(Reason::MN, "no Transfer-Encoding but `chunked` is offered")),
    }
    // Where there is a Transfer-Encoding, Pingora has taken Content-Length away.
    let name = b"content-length:";
    let is_length = |line: &[u8]| line.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name));
    match raw.split(|byte| *byte == b'\n').any(is_length) {
        true => bad("the request has both Content-Length and Transfer-Encoding"),
        false => Ok(()),
    }
}

async fn answer(session: &mut ServerSession, mut response: HttpResponse, is_head: bool) -> pingora_core::Result<()> {
    response.finish_headers();
    let mut head = Response::new(());
    *head.status_mut() = response.status;
    *head.headers_mut() = response.headers;
    session.write_response_header(Box::new(head.into_parts().0.into())).await?;
    for piece in response.body.into_iter().filter(|piece| !piece.is_empty() && !is_head) {
        session.write_response_body(piece, false).await?;
    }
    session.write_response_body(Bytes::new(), true).await
}

/// Takes what the caller still sends: closing with unread input would reset the connection and destroy the answer.
async fn linger(session: &mut ServerSession) {
    let (length, mut left) = LINGER;
    let rest = async {
        while let (1.., Ok(Some(piece))) = (left, session.read_request_body().await) {
            left = left.saturating_sub(piece.len());
        }
    };
    let _ = timeout(length, rest).await;
}

async fn malformed(session: ServerSession, error: &Error) {
    tracing::debug!(%error, "a request could not be read");
    let answer = if error.to_string().contains("larger than") {
        Answer { http: 431, ..Answer::new(Reason::TL, "the request's headers are too large") }
    } else {
        Answer::new(Reason::BR, "the request's head is malformed")
    };
    refuse(session, answer).await;
}

/// Where the next request would begin, nobody can say: the connection ends.
async fn refuse(mut session: ServerSession, answer: Answer) {
    session.set_keepalive(None);
    // The caller may have gone.
    let _ = self::answer(&mut session, answer.into(), false).await;
    session.shutdown().await;
}
