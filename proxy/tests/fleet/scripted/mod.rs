//! Control, agents and a model server that do what a test says and nothing else, over real gRPC on loopback.

mod agent;
mod any;
mod control;
mod server;
mod wild;

use std::{future::Future, net::SocketAddr, sync::Arc, time::Duration};

use modelring_proto::v1::{self, copy_state::State};
use tokio::{net::TcpListener, task::JoinHandle, time::timeout};
use tokio_stream::wrappers::TcpListenerStream;

pub(crate) use agent::ScriptedAgent;
pub(crate) use any::AnyService;
pub(crate) use control::ScriptedControl;
pub(crate) use server::KServe;
pub(crate) use wild::{Does, INTERNAL_ERROR, REFUSED_STREAM, Wild};

/// Stops a server when dropped.
struct Stop(JoinHandle<()>);

const PATIENCE: Duration = Duration::from_secs(10);

/// Looks until there is something to see.
pub(crate) async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let seen = async {
        loop {
            if let Some(seen) = look() {
                return seen;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(PATIENCE, seen).await.unwrap_or_else(|_| panic!("waited in vain: {what}"))
}

/// Waits for something that must come.
pub(crate) async fn soon<T>(what: &str, coming: impl Future<Output = T>) -> T {
    timeout(PATIENCE, coming).await.unwrap_or_else(|_| panic!("waited in vain: {what}"))
}

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn serve(router: tonic::transport::server::Router) -> (SocketAddr, Arc<Stop>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let serving = router.serve_with_incoming(TcpListenerStream::new(listener));
    let task = tokio::spawn(async move { serving.await.expect("the server runs") });
    (address, Arc::new(Stop(task)))
}

pub(crate) fn endpoint(address: &str) -> v1::DataEndpoint {
    v1::DataEndpoint { kind: v1::data_endpoint::Kind::Direct.into(), address: address.into() }
}

pub(crate) fn copy(model: &str, state: State) -> v1::CopyState {
    v1::CopyState { model: model.into(), state: state.into(), ..Default::default() }
}

pub(crate) fn failed(model: &str, text: &str) -> v1::CopyState {
    v1::CopyState { code: 13, text: text.into(), retry_after_millis: 60_000, ..copy(model, State::Failed) }
}
