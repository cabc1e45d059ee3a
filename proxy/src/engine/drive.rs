//! The way of one call: name, decision, hold, attempts, end.

use std::{
    future::{Future, pending, poll_fn},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use modelring_placement::time::Time;
use tokio::time::{Sleep, sleep, timeout};

use super::{
    Engine,
    answer::{Answer, Reason},
    budget::Held,
    client::Client,
    failure::{self, Failure, Original},
    forward::{Forward, Outcome, Parts},
    headers,
    inflate::Inflate,
    name::{Look, Walker},
    policy::{Attempt, Decision, FieldPath, First, Head, Plan, Policy, Record},
    request::{Broken, Request},
    tail::Tail,
    upstream::NoLane,
};

/// How long the first message may take to show the name.
const SLOW_NAME: Duration = Duration::from_secs(30);
/// What the server is given beyond the time left: the deadline is kept here, and the caller should hear of it from here
/// (some servers call it CANCELLED).
const LENIENCE: Duration = Duration::from_millis(10);
/// More attempts than any policy should make.
const TOO_MANY: u32 = 32;

/// Where the name is.
pub(super) enum Name {
    /// In the first message, if the policy says so.
    InMessage,
    /// The caller gave it.
    Given(Option<Bytes>),
}

/// A call on its way.
pub(super) struct Drive<'a, P: Policy, C> {
    engine: &'a Engine<P>,
    head: Head,
    name: Option<Bytes>,
    client: &'a mut C,
    request: Request,
    held: Held,
    alarm: Option<Pin<Box<Sleep>>>,
    story: Story<P>,
}

/// How a call ends.
pub(super) enum End {
    /// The caller has the whole answer.
    Done { code: u32 },
    /// The caller is told this.
    Answer(Answer),
    /// The caller gets the server's status as it came.
    Original { code: u32, original: Box<Original> },
    /// The caller went away.
    Gone,
}

/// What is told of the call, exactly once, whatever becomes of its task.
struct Story<P: Policy> {
    policy: Arc<P>,
    clock: crate::clock::Clock,
    arrived: Time,
    record: Record,
}

// === impl Drive ===

impl<'a, P: Policy, C: Client> Drive<'a, P, C> {
    pub(super) fn new(engine: &'a Engine<P>, head: Head, client: &'a mut C) -> Self {
        let record = Record {
            path: head.path.clone(),
            code: 1,
            reason: Some(Reason::CC),
            tries: 0,
            took: Duration::ZERO,
            held: Duration::ZERO,
            served: false,
            bytes: None,
            subject: None,
        };
        let story = Story { policy: engine.policy.clone(), clock: engine.clock.clone(), arrived: head.arrived, record };
        let held = engine.budget.share();
        Self { engine, head, name: None, client, request: Request::default(), held, alarm: None, story }
    }

    /// Takes the call to its end; whether its caller stayed until it began to be answered.
    pub(super) async fn run(mut self, name: Name) -> bool {
        let engine = self.engine;
        let end = match engine.over.before(self.way(name)).await {
            Some(Ok(end) | Err(end)) => end,
            None => End::Answer(Answer::new(Reason::SD, "the proxy is shutting down and the call's time is over")),
        };
        let stayed = !matches!(end, End::Gone) || self.client.has_begun();
        self.finish(end);
        stayed
    }

    /// Ends the call before it has begun.
    pub(super) fn refuse(self, answer: Answer) {
        self.finish(End::Answer(answer));
    }

    async fn way(&mut self, name: Name) -> Result<End, End> {
        self.request = Request::new(Inflate::of(&self.head.headers, self.engine.max_message)?);
        self.set_alarm(self.head.deadline);
        let mut decision = match (self.engine.policy.head(&self.head), name) {
            (First::Decide(decision), _) => decision,
            (First::Peek(path), Name::InMessage) => self.peek(path).await?,
            (First::Peek(_), Name::Given(name)) => {
                self.name = name;
                self.engine.policy.route(&self.head, self.name.as_deref())
            }
        };
        loop {
            decision = match decision {
                Decision::Answer(answer) => return Ok(End::Answer(answer)),
                Decision::Serve => return self.serve().await,
                Decision::Hold(later) => self.hold(later).await?,
                Decision::Forward(plan) => self.attempt(plan).await?,
            }
        }
    }

    /// Reads until the name is seen.
    async fn peek(&mut self, path: FieldPath) -> Result<Decision<P::Lease>, End> {
        let mut walker = Walker::new(path);
        let mut seen = 0;
        let look = poll_fn(|cx| {
            let came = self.poll_wait(cx);
            let fresh = self.request.pieces().skip(seen).inspect(|_| seen += 1);
            let mut look = fresh.fold(Look::More, |look, piece| match look {
                Look::More => walker.feed(piece),
                found => found,
            });
            if look == Look::More && self.request.is_ended() {
                look = walker.finish();
            }
            match (look, came) {
                (Look::More, Poll::Ready(end)) => Poll::Ready(Err(end)),
                (Look::More, Poll::Pending) => Poll::Pending,
                (look, _) => Poll::Ready(Ok(look)),
            }
        });
        let slow = || Answer::new(Reason::BR, "the model's name did not arrive in time");
        let look = timeout(SLOW_NAME, look).await.map_err(|_| slow())??;
        let beyond = look == Look::Beyond;
        self.name = match look {
            Look::Name(name) => Some(name.into()),
            Look::Malformed(text) => return Err(Answer::new(Reason::BR, text).into()),
            Look::Absent | Look::Beyond | Look::More => None,
        };
        let mut decision = self.engine.policy.route(&self.head, self.name.as_deref());
        if let (true, Decision::Answer(answer)) = (beyond, &mut decision)
            && answer.reason == Some(Reason::BR)
        {
            answer.text.push_str("; no id stands within the first 32 KiB of the message");
        }
        Ok(decision)
    }

    async fn hold(&mut self, later: impl Future<Output = Decision<P::Lease>>) -> Result<Decision<P::Lease>, End> {
        let since = self.engine.clock.now();
        let decision = self.wait(later).await;
        self.story.record.held += self.engine.clock.now().since(since);
        decision
    }

    /// Waits for something while the call is on; what arrives meanwhile is kept, and gets no credit.
    async fn wait<T>(&mut self, something: impl Future<Output = T>) -> Result<T, End> {
        let mut something = pin!(something);
        poll_fn(|cx| match something.as_mut().poll(cx) {
            Poll::Ready(value) => Poll::Ready(Ok(value)),
            Poll::Pending => self.poll_wait(cx).map(Err),
        })
        .await
    }

    /// Ready when the call is over by itself: caller gone, deadline, budget.
    fn poll_wait(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        if let Err(broken) = self.request.poll_read(self.client, cx) {
            return Poll::Ready(broken.into());
        }
        if let Err(spent) = self.held.charge(self.request.cost() + self.client.cost()) {
            return Poll::Ready(End::Answer(spent.into()));
        }
        if self.client.poll_gone(cx).is_ready() {
            return Poll::Ready(End::Gone);
        }
        poll_alarm(&mut self.alarm, cx).map(End::Answer)
    }

    fn set_alarm(&mut self, deadline: Time) {
        let left = (deadline != Time::NEVER).then(|| self.engine.clock.until(deadline));
        self.alarm = left.map(|left| Box::pin(sleep(left)));
    }

    /// Tries one server: the next decision, if the caller has seen nothing of it.
    async fn attempt(&mut self, plan: Plan<P::Lease>) -> Result<Decision<P::Lease>, End> {
        let engine = self.engine;
        let deadline = plan.deadline.min(self.head.deadline);
        self.set_alarm(deadline);
        self.story.record.tries += 1;
        self.story.record.subject = plan.subject;
        let lane = match self.wait(engine.pool.lane(&plan.target)).await? {
            Ok(lane) => lane,
            Err(NoLane::Unreachable(text)) => return self.again(plan.lease, failure::connect(text)),
            Err(NoLane::Full(text)) => return self.again(plan.lease, failure::refused(text)),
        };
        if !engine.policy.usable(&plan.lease) {
            return self.again(plan.lease, failure::unusable());
        }
        let left = (deadline != Time::NEVER).then(|| engine.clock.until(deadline) + LENIENCE);
        let head = headers::request(&self.head, &plan.target, &plan.request_headers, left)?;
        let begun = engine.clock.now();
        let (response, up) = match lane.sender().send_request(head, false) {
            Ok(stream) => stream,
            // The connection ended, or leaves, since it was chosen.
            Err(error) => return self.again(plan.lease, failure::refused(format!("the call was not sent: {error}"))),
        };
        let parts = Parts {
            up,
            response,
            request_tail: Tail::new(plan.request_tail.unwrap_or_default(), plan.max_message),
            response_tail: Tail::new(plan.response_tail.unwrap_or_default(), plan.max_message),
            response_headers: plan.response_headers,
            unary: plan.unary,
        };
        let token = engine.policy.revoked(&plan.lease);
        let mut revoked = pin!(async {
            match &token {
                Some(token) => token.cancelled().await,
                None => pending().await,
            }
        });
        let mut forward = Forward::new(parts, self.client, &mut self.request, &mut self.held);
        let alarm = &mut self.alarm;
        let outcome = poll_fn(|cx| {
            if let Poll::Ready(outcome) = forward.poll(cx) {
                return Poll::Ready(outcome);
            }
            let stopped = match revoked.as_mut().poll(cx) {
                Poll::Ready(()) => failure::lost(failure::UNAVAILABLE, "the copy was unloaded while the call was on"),
                Poll::Pending => ready!(poll_alarm(alarm, cx)),
            };
            forward.cancel();
            Poll::Ready(Outcome::Stopped(stopped))
        })
        .await;
        self.story.record.bytes = Some(forward.bytes());
        drop(forward);
        drop(lane);
        let took = engine.clock.now().since(begun);
        engine.policy.invoked(&self.head, self.story.record.subject.as_ref(), outcome.code(), took);
        match outcome {
            Outcome::Finished { code } => {
                engine.policy.answered(&plan.lease, code, took);
                Err(End::Done { code })
            }
            Outcome::Failed(failure) => self.again(plan.lease, *failure),
            Outcome::Stopped(answer) => Err(End::Answer(answer)),
            Outcome::Gone => Err(End::Gone),
        }
    }

    /// An attempt failed and nothing has passed: what now?
    fn again(&mut self, lease: P::Lease, failure: Failure) -> Result<Decision<P::Lease>, End> {
        let Failure { ran, cause, answer, original } = failure;
        let attempt = Attempt {
            ran,
            cause,
            code: original.as_ref().map(|_| answer.code),
            text: answer.text.clone(),
            replayable: self.request.is_replayable(),
            whole: self.request.is_ended(),
            tries: self.story.record.tries,
        };
        let may_repeat = attempt.replayable && attempt.tries < TOO_MANY;
        match (self.engine.policy.again(&self.head, self.name.as_deref(), lease, attempt), original) {
            (Decision::Forward(_) | Decision::Hold(_), None) if !may_repeat => Err(End::Answer(answer)),
            (Decision::Forward(_) | Decision::Hold(_), Some(original)) if !may_repeat => {
                Err(End::Original { code: answer.code, original })
            }
            (Decision::Answer(Answer { reason: None, .. }), Some(original)) => {
                Err(End::Original { code: answer.code, original })
            }
            (decision, _) => Ok(decision),
        }
    }

    async fn serve(&mut self) -> Result<End, End> {
        self.story.record.served = true;
        let call = super::local::Local {
            head: &self.head,
            client: &mut *self.client,
            request: &mut self.request,
            held: &mut self.held,
        };
        let alarm = &mut self.alarm;
        let mut served = pin!(call.serve(self.engine.services.clone()));
        poll_fn(|cx| match served.as_mut().poll(cx) {
            Poll::Ready(end) => Poll::Ready(Ok(end)),
            Poll::Pending => poll_alarm(alarm, cx).map(|late| Err(End::Answer(late))),
        })
        .await
    }

    /// Tells the caller, and the policy.
    fn finish(mut self, end: End) {
        let (code, reason, told) = match end {
            End::Done { code } => (code, None, Ok(())),
            End::Gone => return,
            End::Answer(answer) if self.client.has_begun() => {
                (answer.code, answer.reason, self.client.trailers(headers::status(&answer)))
            }
            End::Answer(answer) => (answer.code, answer.reason, self.client.headers(headers::answer(&answer), true)),
            End::Original { code, original } => {
                let Original { headers, trailers } = *original;
                let told = self.client.headers(headers, trailers.is_none());
                (code, None, told.and_then(|()| trailers.map_or(Ok(()), |trailers| self.client.trailers(trailers))))
            }
        };
        if told.is_ok() {
            (self.story.record.code, self.story.record.reason) = (code, reason);
        }
    }
}

fn poll_alarm(alarm: &mut Option<Pin<Box<Sleep>>>, cx: &mut Context<'_>) -> Poll<Answer> {
    match alarm {
        Some(alarm) => alarm.as_mut().poll(cx).map(|()| Answer::new(Reason::DE, "the deadline has passed")),
        None => Poll::Pending,
    }
}

// === impl End ===

impl From<Answer> for End {
    fn from(answer: Answer) -> Self {
        Self::Answer(answer)
    }
}

impl From<Broken> for End {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Gone => Self::Gone,
            Broken::Refused(answer) => Self::Answer(answer),
        }
    }
}

// === impl Story ===

impl<P: Policy> Drop for Story<P> {
    fn drop(&mut self) {
        self.record.took = self.clock.now().since(self.arrived);
        self.policy.done(&self.record);
    }
}
