//! Calls that begin in the process itself: REST becomes a unary gRPC call and goes the same way as any other, through
//! the same policy, hold, retry and connections.

use std::{future::Future, pin::Pin, sync::Arc};

use bytes::Bytes;
use http::HeaderMap;
use modelring_placement::time::Time;

use super::{
    answer::Answer,
    budget::{Budget, Held},
    policy::Head,
};

/// A future that stays on its thread.
pub type Local<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// A unary call from inside.
#[derive(Debug)]
pub struct Call {
    /// Path, headers and deadline, as a caller on the wire would give them.
    pub head: Head,
    /// The model's name; asked for by a path in the message, it counts as found there. `None` = only headers name it.
    pub name: Option<Bytes>,
    /// The encoded request message, without gRPC's prefix.
    pub message: Bytes,
}

/// What a call brought.
#[derive(Debug)]
pub struct CallAnswer {
    /// The encoded response message, without gRPC's prefix.
    pub message: Bytes,
    /// Response headers: the server's, and those of the plan.
    pub headers: HeaderMap,
    /// Trailers.
    pub trailers: HeaderMap,
    /// Keeps the message in the budget.
    pub held: Held,
}

/// Makes calls from inside; one per thread.
pub trait Caller {
    /// Makes a call; dropping the future cancels it.
    ///
    /// # Errors
    ///
    /// The answer that the caller gets instead of a message: the proxy's own (with a reason) or the model server's
    /// status (without).
    fn call(&self, call: Call) -> Local<'_, Result<CallAnswer, Answer>>;

    /// The time.
    fn now(&self) -> Time;

    /// The budget for held bytes.
    fn budget(&self) -> &Arc<Budget>;
}

// === impl CallAnswer ===

impl CallAnswer {
    /// The concrete id of the model that answered.
    #[must_use]
    pub fn model_id(&self) -> Option<&str> {
        self.headers.get("mm-model-id").and_then(|id| id.to_str().ok())
    }
}
