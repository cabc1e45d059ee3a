//! What an agent asks of a model server. Each kind of server is one implementation.

use std::{future::Future, path::Path, pin::Pin, time::Duration};

use modelring_placement::{
    id::{ModelId, ModelRef},
    pod::{LoadError, LoadedModel, ServerLimits},
};

/// A future that is sent between threads.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What the handshake found out.
#[derive(Clone, Debug)]
pub struct ServerInfo {
    /// Limits that the decisions need.
    pub limits: ServerLimits,
    /// Methods that the server tells of; empty = all.
    pub methods: Vec<Method>,
    /// Methods that are not listed may be called too.
    pub allow_any_method: bool,
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
    /// Where a response carries the model name.
    pub response_path: Vec<u32>,
}

/// A model server, driven by its management API. All calls may be made at any time and concurrently, except that load
/// and unload of one model never overlap.
pub trait ModelServer: Send + Sync + 'static {
    /// Waits until the server is ready and holds nothing (purging what it holds), and says what it is. Never fails for a
    /// server that is only not yet there; ends with an error where it will never be ready.
    fn handshake(&self) -> BoxFuture<'_, Result<ServerInfo, LoadError>>;
    /// Resolves when the process that the last handshake spoke to is gone.
    fn gone(&self) -> BoxFuture<'_, ()>;
    /// Looks at the connection of the last handshake without waiting: whether that process is still there. Asked before
    /// each pong.
    fn alive(&self) -> bool;
    /// Predicts the bytes of a model; `None` where the server does not predict.
    fn predict<'a>(&'a self, model: &'a ModelRef, timeout: Duration) -> BoxFuture<'a, Option<u64>>;
    /// Loads a model whose files are at `path`. Answers when the server has answered, however long that takes.
    fn load<'a>(&'a self, model: &'a ModelRef, path: &'a Path, key: &'a str) -> BoxFuture<'a, Result<LoadedModel, LoadError>>;
    /// Unloads a model; a model that is not there is unloaded.
    fn unload<'a>(&'a self, model: &'a ModelId) -> BoxFuture<'a, Result<(), LoadError>>;
    /// Whether the server's index knows the model; `None` where the server has no index (then a proxy's NOT_FOUND is
    /// believed once).
    fn knows<'a>(&'a self, model: &'a ModelId) -> BoxFuture<'a, Option<bool>>;
}
