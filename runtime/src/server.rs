//! Starting and stopping the server.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use modelring_process::probes::Health;
use modelring_proto::{
    FILE_DESCRIPTOR_SET,
    inference::grpc_inference_service_server::{self as inference_server, GrpcInferenceServiceServer},
    mmesh::model_runtime_server::{self, ModelRuntimeServer},
};
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};
use tonic::transport::{Server, server::TcpIncoming};

use crate::{
    config::Config,
    error::{Error, Result},
    inference::Inference,
    management::Management,
    models::Models,
    onnx::OnnxLoader,
    pool::Pool,
    servable::Loader,
};

/// Calls that may wait for a thread, each with its request; more are refused with RESOURCE_EXHAUSTED.
const QUEUE: usize = 1024;

/// How long calls that are running may take to end once the server stops.
const GRACE: Duration = Duration::from_secs(10);

/// Calls that one connection may have open: as many as may wait, so that one proxy can fill the queue.
const STREAMS: u32 = 1024;

/// HTTP/2 flow control: room for a large tensor without a round trip per 64 KiB.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;

/// The embedded model server.
#[derive(Debug)]
pub struct Runtime;

/// A running server. Dropped, it stops at once.
#[derive(Debug)]
pub struct Running {
    /// Where it serves.
    pub addr: SocketAddr,
    health: Health,
    stop: Option<oneshot::Sender<()>>,
    server: JoinHandle<Result<(), tonic::transport::Error>>,
}

// === impl Runtime ===

impl Runtime {
    /// Starts a server of ONNX models. It listens when this returns.
    ///
    /// # Errors
    /// [`Error::Setting`] names a setting that is wrong, [`Error::Listen`] an address that is taken.
    pub async fn start(config: Config) -> Result<Running> {
        Self::start_with(config, Arc::new(OnnxLoader)).await
    }

    /// Starts a server of what `loader` makes of model files: of another kind of model, or of ONNX models with something
    /// around them.
    ///
    /// # Errors
    /// As [`Runtime::start`].
    pub async fn start_with(config: Config, loader: Arc<dyn Loader>) -> Result<Running> {
        config.validate()?;
        let cannot = |source| Error::Listen { address: config.listen, source };
        let listener = TcpListener::bind(config.listen).await.map_err(cannot)?;
        let addr = listener.local_addr().map_err(cannot)?;
        let models = Models::new(loader, config.loading_concurrency);
        let pool = Arc::new(Pool::new(config.threads, QUEUE));
        let most = config.max_message;
        let inference = GrpcInferenceServiceServer::new(Inference { models: Arc::clone(&models), pool })
            .max_decoding_message_size(most)
            .max_encoding_message_size(most);
        let management = ModelRuntimeServer::new(Management { models, config });
        // Only what is served here: the descriptors are of all contracts.
        let reflection = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
                .with_service_name(inference_server::SERVICE_NAME)
                .with_service_name(model_runtime_server::SERVICE_NAME)
        };
        let broken = |error: tonic_reflection::server::Error| Error::Internal(error.to_string());
        let (stop, stopped) = oneshot::channel();
        let health = Health::not_yet("starting");
        let heart = health.pulse.heart("server");
        let server = Server::builder()
            .max_concurrent_streams(STREAMS)
            // A proxy passes on the cancels of many callers at once; the default takes 20 of them for an attack.
            .http2_max_pending_accept_reset_streams(Some(STREAMS as usize))
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .add_service(inference)
            .add_service(management)
            .add_service(reflection().build_v1().map_err(broken)?)
            .add_service(reflection().build_v1alpha().map_err(broken)?)
            .serve_with_incoming_shutdown(TcpIncoming::from(listener).with_nodelay(Some(true)), async {
                // An end of the channel is the end of `Running`, which aborts the task itself.
                let _ = stopped.await;
            });
        let server = async move {
            tokio::select! {
                ended = server => ended,
                () = heart.beat_on() => Ok(()),
            }
        };
        health.ready.set(Ok(()));
        Ok(Running { addr, health, stop: Some(stop), server: tokio::spawn(server) })
    }
}

// === impl Running ===

impl Running {
    /// What it tells its probes: ready while it listens.
    #[must_use]
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// Resolves when the server has ended by itself, with why.
    ///
    /// # Errors
    /// Always [`Error::Ended`]: a server that is not told to stop does not end.
    pub async fn ended(&mut self) -> Result<()> {
        let text = match (&mut self.server).await {
            Ok(Ok(())) => "no more connections".to_owned(),
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        Err(Error::Ended(text))
    }

    /// Takes no more calls, lets those that run end, and stops; at most 10 s.
    pub async fn shutdown(mut self) {
        self.health.ready.end("stopping");
        if let Some(stop) = self.stop.take() {
            // A server that has ended does not listen.
            let _ = stop.send(());
        }
        if tokio::time::timeout(GRACE, &mut self.server).await.is_err() {
            tracing::warn!("calls still ran when the server stopped");
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.server.abort();
    }
}
