//! Control.

use std::sync::Arc;

use modelring_proto::v1::{
    self,
    routes_server::{Routes, RoutesServer},
};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming, transport::Server};

use super::{Stop, serve, until};

/// Control.
pub(crate) struct ScriptedControl {
    pub(crate) address: String,
    state: Arc<Mutex<ControlState>>,
    _server: Arc<Stop>,
}

#[derive(Default)]
struct ControlState {
    proxies: Vec<mpsc::Sender<Result<v1::RoutesUpdate, Status>>>,
    heard: Vec<v1::proxy_message::Message>,
    /// Sent to whoever dials.
    greeting: Vec<v1::RoutesUpdate>,
}

// === impl ScriptedControl ===

impl ScriptedControl {
    /// Sends these to every proxy that dials.
    pub(crate) async fn start(greeting: Vec<v1::RoutesUpdate>) -> Self {
        let state = Arc::new(Mutex::new(ControlState { greeting, ..Default::default() }));
        let service = RoutesServer::new(ControlService(state.clone()));
        let (address, server) = serve(Server::builder().add_service(service)).await;
        Self { address: format!("http://{address}"), state, _server: server }
    }

    pub(crate) fn send(&self, update: v1::RoutesUpdate) {
        self.state.lock().proxies.retain(|proxy| proxy.try_send(Ok(update.clone())).is_ok());
    }

    /// The first message that `pick` wants; it is taken out.
    pub(crate) async fn hears<T>(&self, what: &str, pick: impl Fn(&v1::proxy_message::Message) -> Option<T>) -> T {
        until(what, || {
            let mut state = self.state.lock();
            let (at, seen) = state.heard.iter().enumerate().find_map(|(at, message)| Some((at, pick(message)?)))?;
            state.heard.remove(at);
            Some(seen)
        })
        .await
    }
}

struct ControlService(Arc<Mutex<ControlState>>);

#[tonic::async_trait]
impl Routes for ControlService {
    type WatchStream = ReceiverStream<Result<v1::RoutesUpdate, Status>>;

    async fn watch(
        &self,
        request: Request<Streaming<v1::ProxyMessage>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let mut messages = request.into_inner();
        let (out, updates) = mpsc::channel(64);
        {
            let mut state = self.0.lock();
            state.greeting.iter().for_each(|update| out.try_send(Ok(update.clone())).expect("there is room"));
            state.proxies.push(out.clone());
        }
        let state = self.0.clone();
        tokio::spawn(async move {
            while let Some(Ok(message)) = messages.next().await {
                state.lock().heard.extend(message.message);
            }
            // As control does: who has said its last is told no more.
            state.lock().proxies.retain(|proxy| !proxy.same_channel(&out));
        });
        Ok(Response::new(ReceiverStream::new(updates)))
    }
}
