//! Watches a mesh as an observer: the table from control, the copies and ledgers from every agent.
//!
//! An observer holds no lease, owes no acknowledgement and is not counted: looking changes nothing.

mod agents;
mod mesh;
mod routes;
#[cfg(test)]
mod samples;

use anyhow::Result;
pub(crate) use mesh::{Instance, Mesh, Model, State};
use modelring_process::tls::Identity;
use modelring_proxy::fleet::Links;
#[cfg(test)]
pub(crate) use samples::sample;
use tokio::{sync::watch, task::JoinSet};

/// A running observation. Dropping it ends it.
pub(crate) struct Observer {
    mesh: watch::Receiver<Mesh>,
    _tasks: JoinSet<()>,
}

// === impl Observer ===

impl Observer {
    /// Watches the mesh whose control is at `control` (`http://host:port`), and reconnects until it is dropped.
    pub(crate) fn start(control: String, namespace: String, tls: Option<Identity>) -> Result<Self> {
        let links = Links::of(tls, &namespace)?;
        let (sender, mesh) = watch::channel(Mesh::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(routes::watch(control, namespace, links, sender));
        Ok(Self { mesh, _tasks: tasks })
    }

    /// The mesh as it is known now.
    pub(crate) fn mesh(&self) -> Mesh {
        self.mesh.borrow().clone()
    }

    /// Waits for the next change.
    pub(crate) async fn changed(&mut self) {
        // The sender lives as long as the tasks, which live as long as this value.
        let _ = self.mesh.changed().await;
    }

    /// Waits until what follows the snapshots is known too: ledgers, and what the proxies have in force.
    pub(crate) async fn settled(&mut self) {
        let _ = self.mesh.wait_for(Mesh::is_settled).await;
    }

    /// Waits until the table and every instance's snapshot are known.
    pub(crate) async fn complete(&mut self) {
        let _ = self.mesh.wait_for(Mesh::is_complete).await;
    }
}
