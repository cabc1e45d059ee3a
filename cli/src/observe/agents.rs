//! Watches one agent.

use std::time::Duration;

use anyhow::Result;
use modelring_process::tls::Connector;
use modelring_proto::{
    PROTOCOL,
    v1::{self, agent_client::AgentClient},
};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;

use super::mesh::{Instance, Mesh};

/// How long to wait between two tries.
const AGAIN: Duration = Duration::from_millis(500);
/// How long a connection, and its first snapshot, may take before the instance is shown as it is.
const PATIENCE: Duration = Duration::from_secs(2);

/// Watches until it is aborted.
pub(crate) async fn watch(id: String, address: String, connector: Connector, mesh: watch::Sender<Mesh>) {
    loop {
        if let Err(error) = once(&id, &address, connector.clone(), &mesh).await {
            tracing::debug!(%error, instance = id, "agent cannot be watched");
        }
        change(&mesh, &id, |instance| (instance.connected, instance.looked_at) = (false, true));
        tokio::time::sleep(AGAIN).await;
    }
}

async fn once(id: &str, address: &str, connector: Connector, mesh: &watch::Sender<Mesh>) -> Result<()> {
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{address}"))?
        .connect_timeout(PATIENCE)
        .connect_with_connector(connector)
        .await?;
    let (sender, receiver) = mpsc::channel(4);
    let hello = v1::WatcherHello {
        protocol: PROTOCOL,
        role: v1::Role::Observer.into(),
        id: format!("observer-{:016x}", rand::random::<u64>()),
    };
    sender.send(v1::WatcherMessage { message: Some(v1::watcher_message::Message::Hello(hello)) }).await?;
    // Until the agent's handshake with its model server is done the stream is silent.
    let opened = AgentClient::new(channel);
    let mut client = opened;
    let mut events = tokio::time::timeout(PATIENCE, client.watch(ReceiverStream::new(receiver))).await??.into_inner();
    let mut first = true;
    loop {
        let next = events.message();
        let event = if first { tokio::time::timeout(PATIENCE, next).await?? } else { next.await? };
        first = false;
        let Some(event) = event.and_then(|event| event.event) else { return Ok(()) };
        change(mesh, id, |instance| instance.apply(event));
    }
}

fn change(mesh: &watch::Sender<Mesh>, id: &str, how: impl FnOnce(&mut Instance)) {
    mesh.send_if_modified(|mesh| match mesh.instances.get_mut(id) {
        Some(instance) => {
            how(instance);
            true
        }
        None => false,
    });
}
