//! `GET /prestop`: what a model server's container asks before it stops, answered when the pod has drained.
//!
//! The containers beside the agent have it as their preStop hook, as ModelMesh's had, so that they serve until the copies
//! are ready elsewhere.

use std::{sync::Arc, time::Duration};

use http::StatusCode;
use tokio::{sync::watch, time::timeout};

use crate::http::{Routes, text};

/// How long answers may take to go out once the drain is over.
const FAREWELL: Duration = Duration::from_secs(1);

/// Whether the drain is over.
#[derive(Clone, Debug)]
pub struct Prestop(Arc<watch::Sender<bool>>);

// === impl Prestop ===

impl Prestop {
    /// The drain is yet to come.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }

    /// Answers `/prestop` when the drain is over, or after `most`: a container that is stopped alone is not held for ever.
    #[must_use]
    pub fn routes(&self, most: Duration) -> Routes {
        let over = self.0.clone();
        Routes::new().get("/prestop", move |_| {
            let mut over = over.subscribe();
            async move {
                match timeout(most, over.wait_for(|over| *over)).await {
                    Ok(_) => text(StatusCode::OK, "drained\n"),
                    Err(_) => text(StatusCode::OK, "not drained within the time\n"),
                }
            }
        })
    }

    /// The drain is over: lets go who waits. Returns when they have their answers, or a moment has passed.
    pub async fn over(&self) {
        self.0.send_replace(true);
        let _ = timeout(FAREWELL, self.0.closed()).await;
    }
}

impl Default for Prestop {
    fn default() -> Self {
        Self::new()
    }
}
