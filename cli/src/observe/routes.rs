//! Watches control.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result};
use modelring_proto::{
    PROTOCOL,
    v1::{self, routes_client::RoutesClient, routes_update::Kind},
};
use tokio::{
    sync::{mpsc, watch},
    task::{AbortHandle, JoinSet},
};
use tokio_stream::wrappers::ReceiverStream;

use super::{agents, mesh::Mesh};
use modelring_proxy::fleet::Links;

/// How long to wait between two tries.
const AGAIN: Duration = Duration::from_millis(500);
/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(2);

/// Watches until it is aborted.
pub(crate) async fn watch(control: String, namespace: String, links: Links, mesh: watch::Sender<Mesh>) {
    let mut agents =
        Agents { links: links.clone(), tasks: JoinSet::new(), running: BTreeMap::new(), listed: Vec::new() };
    loop {
        let ended = once(&control, &namespace, &links, &mesh, &mut agents).await;
        let why = ended.map_or_else(|error| format!("{error:#}"), |()| "it ended the stream".to_owned());
        tracing::debug!(error = why, "control cannot be watched");
        mesh.send_modify(|mesh| (mesh.control_connected, mesh.trouble) = (false, Some(why)));
        tokio::time::sleep(AGAIN).await;
    }
}

async fn once(
    control: &str,
    namespace: &str,
    links: &Links,
    mesh: &watch::Sender<Mesh>,
    agents: &mut Agents,
) -> Result<()> {
    let channel = tonic::transport::Endpoint::from_shared(control.to_owned())
        .with_context(|| format!("`{control}` is no address such as http://127.0.0.1:9444"))?
        .connect_timeout(CONNECT)
        .connect_with_connector(links.control.clone())
        .await?;
    let (sender, receiver) = mpsc::channel(4);
    let hello = v1::RoutesHello {
        protocol: PROTOCOL,
        role: v1::Role::Observer.into(),
        id: format!("observer-{:016x}", rand::random::<u64>()),
        namespace: namespace.to_owned(),
        last: None,
    };
    sender.send(v1::ProxyMessage { message: Some(v1::proxy_message::Message::Hello(hello)) }).await?;
    let mut client = RoutesClient::new(channel).max_decoding_message_size(64 << 20);
    let mut updates = client.watch(ReceiverStream::new(receiver)).await?.into_inner();
    let mut snapshot: Option<Mesh> = None;
    while let Some(update) = updates.message().await? {
        if let Some(observed) = update.observed {
            mesh.send_modify(|mesh| mesh.observe(observed));
            continue;
        }
        let (kind, version) = (update.kind(), update.version.unwrap_or_default());
        let change = update.change.unwrap_or_default();
        if kind == Kind::Delta {
            mesh.send_modify(|mesh| mesh.apply(change));
        } else {
            // A snapshot is shown when it is whole.
            let next = snapshot.get_or_insert_with(|| {
                let mut next = mesh.borrow().clone();
                next.clear_table();
                next
            });
            let listed: Vec<String> = change.instances.iter().map(|instance| instance.id.clone()).collect();
            next.apply(change);
            agents.listed.extend(listed);
            if kind != Kind::SnapshotEnd {
                continue;
            }
            let listed = std::mem::take(&mut agents.listed);
            if let Some(next) = snapshot.take() {
                mesh.send_modify(|mesh| {
                    // What the agents said in the meantime is newer than what the snapshot began with.
                    let seen = std::mem::take(&mut mesh.instances);
                    *mesh = next;
                    mesh.instances.retain(|id, _| listed.contains(id));
                    for (id, instance) in seen {
                        if let Some(known) = mesh.instances.get_mut(&id) {
                            let super::Instance { address, accepts_new, .. } = std::mem::take(known);
                            *known = super::Instance { address, accepts_new, ..instance };
                        }
                    }
                });
            }
        }
        mesh.send_modify(|mesh| {
            mesh.control_connected = true;
            mesh.n = version.n;
            mesh.table = Some(format!("{}.{}", version.epoch, version.n));
        });
        agents.follow(mesh);
    }
    Ok(())
}

/// One task for each instance of the table.
struct Agents {
    links: Links,
    tasks: JoinSet<()>,
    running: BTreeMap<(String, String), AbortHandle>,
    listed: Vec<String>,
}

// === impl Agents ===

impl Agents {
    /// Starts and ends tasks so that they are those of the table.
    fn follow(&mut self, mesh: &watch::Sender<Mesh>) {
        let wanted: Vec<(String, String)> =
            mesh.borrow().instances.iter().map(|(id, instance)| (id.clone(), instance.address.clone())).collect();
        self.running.retain(|key, task| {
            let keep = wanted.contains(key);
            if !keep {
                task.abort();
            }
            keep
        });
        for key in wanted {
            if !self.running.contains_key(&key) {
                let task = self.tasks.spawn(agents::watch(
                    key.0.clone(),
                    key.1.clone(),
                    self.links.agent.clone(),
                    mesh.clone(),
                ));
                self.running.insert(key, task);
            }
        }
    }
}
