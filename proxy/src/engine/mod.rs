//! The way of the bytes: relays calls between their callers and model servers, as a [`policy::Policy`] decides.
//!
//! | module | does |
//! |---|---|
//! | [`policy`], [`answer`], [`target`] | the boundary to the decisions |
//! | `drive` | takes one call from its first byte to its end |
//! | [`name`], `inflate`, [`tail`] | reads the first message, makes messages plain, appends to them |
//! | `request`, `client` | what the caller sent; the caller's end, on the wire or inside |
//! | `forward`, `failure`, `headers` | one attempt: both directions at once; what its failure means; header rules |
//! | `upstream` | connections to model servers |
//! | `over` | the end of all calls |
//! | [`call`], `local` | calls from inside; services inside |
//! | [`budget`] | bytes held for others |

pub mod answer;
pub mod budget;
pub mod call;
pub(crate) mod client;
mod drive;
mod failure;
mod forward;
mod headers;
mod inflate;
mod local;
pub mod name;
mod over;
pub mod pieces;
pub mod policy;
mod request;
pub mod tail;
pub mod target;
mod upstream;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use h2::{RecvStream, server::SendResponse};
use modelring_placement::time::Time;
use tonic::service::Routes;

use self::{
    answer::Answer,
    budget::Budget,
    call::{Call, CallAnswer, Caller, Inside, Local},
    client::Wire,
    drive::{Drive, Name},
    over::Over,
    policy::{Head, Policy},
    upstream::Pool,
};
use crate::clock::Clock;

/// A caller that goes so shortly before its deadline goes because of it.
const AT_DEADLINE: Duration = Duration::from_millis(100);

/// The engine of one thread.
pub struct Engine<P: Policy> {
    policy: Arc<P>,
    services: Routes,
    pool: Pool,
    over: Over,
    budget: Arc<Budget>,
    clock: Clock,
    max_message: usize,
}

// === impl Engine ===

impl<P: Policy> Engine<P> {
    /// An engine with no connections yet. `services` answers what the policy says to serve here; `max_message` bounds
    /// what a compressed message may become.
    #[must_use]
    pub fn new(policy: Arc<P>, services: Routes, budget: Arc<Budget>, clock: Clock, max_message: usize) -> Self {
        Self { policy, services, pool: Pool::default(), over: Over::default(), budget, clock, max_message }
    }

    /// Takes a gRPC call from the wire to its end. False if its caller gave it up, before it began to be answered and before
    /// its deadline.
    pub async fn relay(&self, request: http::Request<RecvStream>, respond: SendResponse<Bytes>) -> bool {
        let (parts, body) = request.into_parts();
        let mut client = Wire::new(body, respond);
        let arrived = self.clock.now();
        let path = parts.uri.path().into();
        let patience = headers::patience(&parts.headers);
        let deadline = patience.as_ref().ok().copied().flatten().map_or(Time::NEVER, |patience| arrived + patience);
        let drive = Drive::new(
            self,
            Head { path, headers: parts.headers, deadline, arrived, noted: policy::Noted::new() },
            &mut client,
        );
        match patience {
            Ok(_) => drive.run(Name::InMessage).await || self.clock.until(deadline) < AT_DEADLINE,
            Err(answer) => {
                drive.refuse(answer);
                true
            }
        }
    }

    /// Ends all calls, those that come too: they are answered `SD`.
    pub fn end(&self) {
        self.over.end();
    }

    /// Closes connections that were not used for long; to be called once a minute.
    pub fn sweep(&self) {
        self.pool.sweep();
    }
}

impl<P: Policy> Caller for Engine<P> {
    fn call(&self, call: Call) -> Local<'_, Result<CallAnswer, Answer>> {
        Box::pin(async move {
            let mut inside = Inside::new(call.message)?;
            Drive::new(self, call.head, &mut inside).run(Name::Given(call.name)).await;
            inside.into_answer(self.budget.share())
        })
    }

    fn now(&self) -> Time {
        self.clock.now()
    }

    fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }
}
