//! A model server that calls are relayed to.

use std::{fmt, future::Future, net::SocketAddr, pin::Pin, sync::Arc};

use modelring_process::tls::Connector;
use tokio_util::sync::CancellationToken;

/// Resolves to true once the agent has answered a ping that was sent after this was called, in the same boot. A new
/// connection is used only after that, so that a reused address never answers for another tenant's model.
pub type Confirm = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = bool> + Send>> + Send + Sync>;

/// A data endpoint of one instance. Connections are keyed by [`Target::key`], per thread.
#[derive(Clone)]
pub struct Target {
    /// `(instance id, pod uid)`; another pod of the same name is another target.
    pub key: (Arc<str>, Arc<str>),
    /// Where it listens.
    pub address: SocketAddr,
    /// How it is dialled: a model server in plaintext, an agent's relay endpoint as agents are.
    pub connector: Connector,
    /// Proves that the address is still that instance's.
    pub confirm: Confirm,
    /// Tells that the instance left, or is another pod now: its connections take no new call and close after the last.
    pub gone: CancellationToken,
}

// === impl Target ===

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target").field("key", &self.key).field("address", &self.address).finish_non_exhaustive()
    }
}
