//! A small HTTP/1.1 server for what kubelet and Prometheus ask: GET and HEAD, no bodies read, one request a connection.
//!
//! It is for probes, metrics and the like, never for callers. Connections and their heads are bounded; how long an answer
//! takes is the route's affair (`/prestop` takes minutes).

use std::{
    collections::BTreeMap, convert::Infallible, future::Future, net::SocketAddr, pin::Pin, sync::Arc, time::Duration,
};

use bytes::Bytes;
pub use http::request::Parts;
use http::{
    HeaderValue, Method, Request, Response, StatusCode,
    header::{ALLOW, CONTENT_TYPE},
};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::{JoinHandle, JoinSet},
};

use crate::Error;

/// Connections at once, most; further ones wait in the kernel.
const CONNECTIONS: usize = 256;
/// How long the head of a request may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Largest head of a request, bytes (the least that hyper takes).
const LARGEST_HEAD: usize = 8192;
/// Rest after a failed accept: mostly there are no file descriptors left.
const REST: Duration = Duration::from_millis(50);

type Answer = Pin<Box<dyn Future<Output = Response<Bytes>> + Send>>;
type Handler = Arc<dyn Fn(Parts) -> Answer + Send + Sync>;

/// What is served, by path. A trailing slash is tolerated; what is not listed is 404.
#[derive(Clone, Default)]
pub struct Routes(BTreeMap<&'static str, Handler>);

/// A running server. Dropped, it ends at once with all its connections.
#[derive(Debug)]
pub struct Server {
    addr: SocketAddr,
    task: JoinHandle<()>,
}

/// A plain text answer.
#[must_use]
pub fn text(status: StatusCode, text: impl Into<Bytes>) -> Response<Bytes> {
    let mut response = Response::new(text.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

// === impl Routes ===

impl Routes {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Answers GET and HEAD of `path` with what `handler` makes of the request's head.
    #[must_use]
    pub fn get<F, A>(mut self, path: &'static str, handler: F) -> Self
    where
        F: Fn(Parts) -> A + Send + Sync + 'static,
        A: Future<Output = Response<Bytes>> + Send + 'static,
    {
        self.0.insert(path, Arc::new(move |head| Box::pin(handler(head))));
        self
    }

    /// These and those; where both have a path, those count.
    #[must_use]
    pub fn and(mut self, those: Self) -> Self {
        self.0.extend(those.0);
        self
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Bytes> {
        let (head, _) = request.into_parts();
        let path = head.uri.path();
        let known = self.0.get(path).or_else(|| self.0.get(path.strip_suffix('/')?));
        let Some(handler) = known else {
            let paths: Vec<&str> = self.0.keys().copied().collect();
            return text(StatusCode::NOT_FOUND, format!("not here; there is {}\n", paths.join(", ")));
        };
        if !matches!(head.method, Method::GET | Method::HEAD) {
            let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "GET only\n");
            refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refused;
        }
        handler(head).await
    }
}

impl std::fmt::Debug for Routes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

// === impl Server ===

impl Server {
    /// Serves `routes` on `address` (port 0 = a free one). `what` is served there, and `flag` says the address: both are
    /// for the error's text.
    ///
    /// # Errors
    ///
    /// [`Error::Listen`] if the port cannot be had.
    pub async fn start(
        address: SocketAddr,
        what: &'static str,
        flag: &'static str,
        routes: Routes,
    ) -> Result<Self, Error> {
        let cannot = |source| Error::Listen { address, what, flag, source };
        let listener = TcpListener::bind(address).await.map_err(cannot)?;
        let addr = listener.local_addr().map_err(cannot)?;
        tracing::info!(%addr, what, "serving");
        Ok(Self { addr, task: tokio::spawn(accept(listener, Arc::new(routes))) })
    }

    /// Where it serves.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, routes: Arc<Routes>) {
    let free = Arc::new(Semaphore::new(CONNECTIONS));
    // Dropped with this task, and the connections with it.
    let mut connections = JoinSet::new();
    loop {
        let permit = free.clone().acquire_owned().await.expect("the semaphore is never closed");
        match listener.accept().await {
            Ok((socket, _)) => {
                let routes = routes.clone();
                connections.spawn(async move {
                    serve(socket, &routes).await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(REST).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(socket: TcpStream, routes: &Routes) {
    let answer = service_fn(|request| async move { Ok::<_, Infallible>(routes.answer(request).await.map(Full::new)) });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .max_buf_size(LARGEST_HEAD)
        .keep_alive(false)
        .serve_connection(TokioIo::new(socket), answer);
    if let Err(error) = serving.await {
        tracing::debug!(%error, "a connection broke");
    }
}
