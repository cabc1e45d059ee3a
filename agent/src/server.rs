//! What an agent asks of a model server. Each kind of server is one implementation.
//!
//! Everything after the handshake goes through the [`Session`] that it gave: a call that was meant for one process of the
//! server never reaches the next one, and whatever a process held ends with its session.

use std::{future::Future, path::Path, pin::Pin, sync::Arc, time::Duration};

use modelring_placement::{
    id::{ModelId, ModelRef},
    pod::{LoadError, LoadedModel, ServerLimits},
};

/// A future that is sent between threads.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What the handshake found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerInfo {
    /// Limits that the decisions need.
    pub limits: ServerLimits,
    /// Methods that the server tells of or that are known of its kind; empty = nothing known.
    pub methods: Vec<Method>,
    /// Methods that are not listed may be called too.
    pub allow_any_method: bool,
    /// Each copy has a limit of calls at once.
    pub limit_concurrency: bool,
    /// Version, for people.
    pub version: String,
}

/// One method of a model server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Method {
    /// `pkg.Service/Method`.
    pub name: String,
    /// Where the server reads the model id in a request.
    pub request_path: Vec<u32>,
    /// Where a response carries the model name; empty = nowhere known.
    pub response_path: Vec<u32>,
}

/// A kind of model server at an endpoint.
pub trait ModelServer: Send + Sync + 'static {
    /// Waits until the server is ready and holds nothing (purging what it holds). A server that is only not yet there
    /// is waited for, up to 3 minutes; ends with an error where it will never be ready, passing where it may be later.
    /// `believed`: proxies may still believe in what the server holds, so unless its process is surely a new one, nothing
    /// is unloaded in the next 3 s.
    fn handshake(&self, believed: bool) -> BoxFuture<'_, Result<Arc<dyn Session>, LoadError>>;
}

/// One process of a model server, driven by its management API. All calls may be made at any time and concurrently,
/// except that load and unload of one model never overlap. Once the process is gone every call fails.
pub trait Session: Send + Sync + 'static {
    /// What the handshake found out.
    fn info(&self) -> &ServerInfo;
    /// Resolves when the process is gone.
    fn gone(&self) -> BoxFuture<'_, ()>;
    /// Looks, without waiting, whether the process is still there. Asked before each pong.
    fn alive(&self) -> bool;
    /// Predicts the bytes of a model whose files are, or will be, at `path`; `None` where the server does not predict.
    fn predict<'a>(
        &'a self,
        model: &'a ModelRef,
        path: &'a Path,
        key: &'a str,
        timeout: Duration,
    ) -> BoxFuture<'a, Option<u64>>;
    /// Loads a model whose files are at `path`. Answers when the server has answered, however long that takes.
    fn load<'a>(
        &'a self,
        model: &'a ModelRef,
        path: &'a Path,
        key: &'a str,
    ) -> BoxFuture<'a, Result<LoadedModel, LoadError>>;
    /// Unloads a model; a model that is not there is unloaded.
    fn unload<'a>(&'a self, model: &'a ModelId) -> BoxFuture<'a, Result<(), LoadError>>;
    /// Whether the server's index knows the model; `None` where the server has no index (then a proxy's NOT_FOUND is
    /// believed once).
    fn knows<'a>(&'a self, model: &'a ModelId) -> BoxFuture<'a, Option<bool>>;
}
