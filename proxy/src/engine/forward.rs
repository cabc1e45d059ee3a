//! One attempt: copies a call between its caller and a model server, both ways at once.
//!
//! One task polls both directions and waits for neither: a stream that is full both ways cannot lock up. All that has
//! arrived is read at once (the windows bound it, and credit is given only when bytes leave), so that the budget for
//! held bytes sees it.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use h2::{Reason as Code, RecvStream, SendStream, client::ResponseFuture};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header::CONTENT_LENGTH};
use tokio::time::{Sleep, sleep};

use super::{
    answer::{Answer, Reason},
    budget::Held,
    client::{Client, Gone, poll_room},
    failure::{self, Failure, INTERNAL, Original, UNKNOWN},
    headers,
    pieces::Pieces,
    request::{Broken, Request},
    tail::{Tail, TooLarge},
};

/// How long bytes may wait for a caller who takes none.
const SLOW_READER: Duration = Duration::from_secs(60);

/// How an attempt ended.
pub(super) enum Outcome {
    /// The caller has the server's answer.
    Finished { code: u32 },
    /// Nothing has passed to the caller.
    Failed(Box<Failure>),
    /// The caller must be told this now.
    Stopped(Answer),
    /// The caller went away.
    Gone,
}

/// What an attempt is made of.
pub(super) struct Parts {
    pub up: SendStream<Bytes>,
    pub response: ResponseFuture,
    pub request_tail: Tail,
    pub response_tail: Tail,
    pub response_headers: Vec<(HeaderName, HeaderValue)>,
    pub unary: bool,
}

/// One attempt under way.
pub(super) struct Forward<'a, C> {
    client: &'a mut C,
    request: &'a mut Request,
    held: &'a mut Held,
    up: SendStream<Bytes>,
    up_queue: Pieces,
    up_ended: bool,
    request_tail: Tail,
    response: ServerEnd,
    down_queue: Pieces,
    response_tail: Tail,
    response_headers: Vec<(HeaderName, HeaderValue)>,
    unary: bool,
    /// Headers that wait for the first data.
    waiting: Option<HeaderMap>,
    /// Whether headers have passed to the caller.
    passed: bool,
    trailers: Option<HeaderMap>,
    /// Runs while bytes wait for the caller.
    slow_reader: Option<Pin<Box<Sleep>>>,
}

enum ServerEnd {
    Head(ResponseFuture),
    Body { stream: RecvStream, owed: usize },
    Over,
}

type Step = Result<bool, Outcome>;

// === impl Forward ===

impl<'a, C: Client> Forward<'a, C> {
    pub(super) fn new(parts: Parts, client: &'a mut C, request: &'a mut Request, held: &'a mut Held) -> Self {
        request.rewind();
        Self {
            client,
            request,
            held,
            up: parts.up,
            up_queue: Pieces::default(),
            up_ended: false,
            request_tail: parts.request_tail,
            response: ServerEnd::Head(parts.response),
            down_queue: Pieces::default(),
            response_tail: parts.response_tail,
            response_headers: parts.response_headers,
            unary: parts.unary,
            waiting: None,
            passed: false,
            trailers: None,
            slow_reader: None,
        }
    }

    /// Moves what can be moved. Once ready it must not be polled again.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Outcome> {
        loop {
            match self.turn(cx) {
                Ok(true) => {}
                Ok(false) => return Poll::Pending,
                Err(outcome) => {
                    self.close(&outcome);
                    return Poll::Ready(outcome);
                }
            }
        }
    }

    /// Ends the server's half for a reason from outside (the caller's deadline).
    pub(super) fn cancel(&mut self) {
        self.up.send_reset(Code::CANCEL);
    }

    /// Bytes of the messages so far, from the caller and from the server.
    pub(super) fn bytes(&self) -> (u64, u64) {
        (self.request_tail.bytes(), self.response_tail.bytes())
    }

    fn turn(&mut self, cx: &mut Context<'_>) -> Step {
        let mut progress = self.upload(cx)?;
        progress |= self.download(cx)?;
        if !progress {
            self.account()?;
            if self.client.poll_gone(cx).is_ready() || self.poll_slow_reader(cx).is_ready() {
                return Err(Outcome::Gone);
            }
        }
        Ok(progress)
    }

    /// Ready once bytes have waited for the caller too long: it is as good as gone.
    fn poll_slow_reader(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.down_queue.is_empty() {
            return Poll::Pending;
        }
        self.slow_reader.get_or_insert_with(|| Box::pin(sleep(SLOW_READER))).as_mut().poll(cx)
    }

    /// Takes what is held out of the budget; a replay is the first to go.
    fn account(&mut self) -> Result<(), Outcome> {
        let queued = self.up_queue.cost() + self.down_queue.cost();
        let cost = |held: &Request, client: &C| held.cost() + queued + client.cost();
        if self.request.is_large() && self.held.is_scarce() {
            self.request.forget();
        }
        if self.held.charge(cost(self.request, self.client)).is_ok() {
            return Ok(());
        }
        self.request.forget();
        self.held.charge(cost(self.request, self.client)).map_err(|spent| Outcome::Stopped(spent.into()))
    }

    /// Caller to server.
    fn upload(&mut self, cx: &mut Context<'_>) -> Step {
        let mut progress = self.request.poll_read(self.client, cx).map_err(|broken| match broken {
            Broken::Gone => Outcome::Gone,
            Broken::Refused(answer) => Outcome::Stopped(answer),
        })?;
        if self.up_ended {
            // The server wants no more: what still comes is taken and dropped.
            while self.request.next().is_some() {}
            self.request.passed(self.client, 0, true);
            return Ok(progress);
        }
        while let Some(piece) = self.request.next() {
            self.request_tail.push(piece, &mut self.up_queue).map_err(refuse)?;
        }
        let all = self.request.is_passed();
        if all && !self.request_tail.is_whole() {
            return Err(Outcome::Stopped(Answer::new(Reason::BR, "the request ended inside a message")));
        }
        while !self.up_queue.is_empty() {
            match poll_room(&mut self.up, self.up_queue.len(), cx) {
                Poll::Pending => return Ok(progress),
                Poll::Ready(Ok(room)) => {
                    let piece = self.up_queue.take(room);
                    let drained = self.up_queue.is_empty();
                    self.request.passed(self.client, piece.len(), drained);
                    self.up_ended = all && drained;
                    let sent = self.up.send_data(piece, self.up_ended);
                    self.up_ended |= sent.is_err();
                }
                // Why is told by the response.
                Poll::Ready(Err(_)) => self.up_ended = true,
            }
            progress = true;
            if self.up_ended {
                self.up_queue.clear();
            }
        }
        if all && !self.up_ended {
            // A refusal to send shows in the response.
            let _ = self.up.send_data(Bytes::new(), true);
            self.up_ended = true;
            progress = true;
        }
        Ok(progress)
    }

    /// Server to caller.
    fn download(&mut self, cx: &mut Context<'_>) -> Step {
        let mut progress = self.read_response(cx)?;
        while !self.down_queue.is_empty() {
            self.pass_headers(false)?;
            let Poll::Ready(room) = self.client.poll_room(self.down_queue.len(), cx) else { return Ok(progress) };
            let piece = self.down_queue.take(room?);
            if let ServerEnd::Body { stream, owed } = &mut self.response {
                let due = if self.down_queue.is_empty() { *owed } else { piece.len().min(*owed) };
                *owed -= due;
                // Fails only for a stream that is over.
                let _ = stream.flow_control().release_capacity(due);
            }
            self.client.data(piece, false)?;
            self.slow_reader = None;
            progress = true;
        }
        if matches!(self.response, ServerEnd::Over) {
            return Err(self.finish());
        }
        Ok(progress)
    }

    fn read_response(&mut self, cx: &mut Context<'_>) -> Step {
        let mut progress = false;
        loop {
            match &mut self.response {
                ServerEnd::Over => return Ok(progress),
                ServerEnd::Head(response) => match Pin::new(response).poll(cx) {
                    Poll::Pending => return Ok(progress),
                    Poll::Ready(Ok(response)) => self.head(response)?,
                    Poll::Ready(Err(error)) => return Err(self.lost(&error)),
                },
                ServerEnd::Body { stream, owed } => match stream.poll_data(cx) {
                    Poll::Pending => return Ok(progress),
                    Poll::Ready(Some(Ok(piece))) => {
                        *owed += piece.len();
                        self.response_tail.push(piece, &mut self.down_queue).map_err(refuse)?;
                    }
                    Poll::Ready(Some(Err(error))) => return Err(self.lost(&error)),
                    Poll::Ready(None) => match stream.poll_trailers(cx) {
                        Poll::Pending => return Ok(progress),
                        Poll::Ready(Ok(trailers)) => {
                            self.trailers = trailers;
                            self.response = ServerEnd::Over;
                        }
                        Poll::Ready(Err(error)) => return Err(self.lost(&error)),
                    },
                },
            }
            progress = true;
        }
    }

    fn head(&mut self, response: Response<RecvStream>) -> Result<(), Outcome> {
        let (head, stream) = response.into_parts();
        let grpc = head
            .headers
            .get(http::header::CONTENT_TYPE)
            .is_some_and(|it| it.as_bytes().starts_with(b"application/grpc"));
        // A trailers-only answer is recognised by its status, whatever its content type.
        if head.status != StatusCode::OK || !(grpc || head.headers.contains_key("grpc-status")) {
            return Err(Outcome::Failed(failure::no_grpc(head.status).into()));
        }
        let mut headers = head.headers;
        headers.remove(CONTENT_LENGTH);
        if stream.is_end_stream() {
            self.look(&headers, &headers)?;
            self.waiting = Some(headers);
            self.response = ServerEnd::Over;
            return Err(match self.pass_headers(true) {
                Ok(code) => Outcome::Finished { code },
                Err(outcome) => outcome,
            });
        }
        self.waiting = Some(headers);
        self.response = ServerEnd::Body { stream, owed: 0 };
        if self.unary { Ok(()) } else { self.pass_headers(false).map(drop) }
    }

    /// Lets the headers pass, if they wait; the code that they carry.
    fn pass_headers(&mut self, end: bool) -> Result<u32, Outcome> {
        let Some(mut headers) = self.waiting.take() else { return Ok(0) };
        let code = headers::code(&headers).unwrap_or(UNKNOWN);
        for (name, value) in self.response_headers.drain(..) {
            headers.insert(name, value);
        }
        self.request.forget();
        self.passed = true;
        self.client.headers(headers, end)?;
        Ok(code)
    }

    /// The response is read to its end and all of it has left: passes the status.
    fn finish(&mut self) -> Outcome {
        let trailers = self.trailers.take();
        let code = trailers.as_ref().and_then(headers::code);
        if let Some(trailers) = &trailers
            && let Some(headers) = self.waiting.clone()
            && let Err(failed) = self.look(&headers, trailers)
        {
            return failed;
        }
        if !self.response_tail.is_whole() && code.is_none_or(|code| code == 0) {
            return Outcome::Stopped(failure::lost(INTERNAL, "the model server's answer ended inside a message"));
        }
        let passed = self.pass_headers(false).and_then(|_| {
            let last = match trailers {
                Some(trailers) => self.client.trailers(trailers),
                None => self.client.data(Bytes::new(), true),
            };
            Ok(last?)
        });
        match passed {
            Ok(()) => Outcome::Finished { code: code.unwrap_or(UNKNOWN) },
            Err(outcome) => outcome,
        }
    }

    /// Keeps back a status that is worth a look, while nothing has passed. `last` is where the status is: the trailers,
    /// or the headers themselves.
    fn look(&self, headers: &HeaderMap, last: &HeaderMap) -> Result<(), Outcome> {
        let code = headers::code(last).filter(|code| !self.passed && failure::is_looked_at(*code));
        let Some(code) = code else { return Ok(()) };
        let trailers = (!std::ptr::eq(headers, last)).then(|| last.clone());
        let mut headers = headers.clone();
        for (name, value) in &self.response_headers {
            headers.insert(name, value.clone());
        }
        let answer = Answer::status(code, headers::text(last));
        let original = Some(Original { headers, trailers }.into());
        Err(Outcome::Failed(Failure { original, ..failure::status(answer) }.into()))
    }

    /// The server's half broke.
    fn lost(&mut self, error: &h2::Error) -> Outcome {
        let failure = failure::classify(error);
        if self.passed { Outcome::Stopped(failure.answer) } else { Outcome::Failed(failure.into()) }
    }

    /// Tells the server why no more will come, where it has not heard the end.
    fn close(&mut self, outcome: &Outcome) {
        match outcome {
            Outcome::Finished { .. } if !self.up_ended => self.up.send_reset(Code::NO_ERROR),
            Outcome::Stopped(_) | Outcome::Gone => self.up.send_reset(Code::CANCEL),
            _ => {}
        }
    }
}

// === impl Outcome ===

impl Outcome {
    /// The gRPC code that it comes down to.
    pub(super) fn code(&self) -> u32 {
        match self {
            Self::Finished { code } => *code,
            Self::Failed(failure) => failure.answer.code,
            Self::Stopped(answer) => answer.code,
            Self::Gone => Reason::CC.codes().0,
        }
    }
}

impl From<Gone> for Outcome {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

fn refuse(too_large: TooLarge) -> Outcome {
    Outcome::Stopped(Answer::new(Reason::TL, too_large.to_string()))
}
