//! Watches an agent's ledger from outside.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use modelring_proto::{
    PROTOCOL,
    v1::{self, agent_client::AgentClient, agent_event::Event},
};
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_stream::wrappers::ReceiverStream;

/// Every ledger state that an agent has told.
#[derive(Debug)]
pub struct LedgerWatch {
    states: Arc<Mutex<Vec<v1::LedgerState>>>,
    _sender: mpsc::Sender<v1::WatcherMessage>,
    task: JoinHandle<()>,
}

// === impl LedgerWatch ===

impl LedgerWatch {
    /// Watches as an observer.
    ///
    /// # Panics
    /// When the agent does not answer.
    pub async fn start(agent: SocketAddr) -> Self {
        let mut client = AgentClient::connect(format!("http://{agent}")).await.expect("the agent listens");
        let (sender, receiver) = mpsc::channel(4);
        let hello =
            v1::WatcherHello { protocol: PROTOCOL, role: v1::Role::Observer.into(), id: "ledger-watch".to_owned() };
        let hello = v1::WatcherMessage { message: Some(v1::watcher_message::Message::Hello(hello)) };
        sender.send(hello).await.expect("the stream is open");
        let mut events = client.watch(ReceiverStream::new(receiver)).await.expect("the agent answers").into_inner();
        let states = Arc::new(Mutex::new(Vec::new()));
        let told = states.clone();
        let task = tokio::spawn(async move {
            while let Ok(Some(event)) = events.message().await {
                if let Some(Event::Ledger(state)) = event.event {
                    told.lock().expect("nothing panics while it holds the list").push(state);
                }
            }
        });
        Self { states, _sender: sender, task }
    }

    /// All states so far.
    ///
    /// # Panics
    /// Never.
    #[must_use]
    pub fn states(&self) -> Vec<v1::LedgerState> {
        self.states.lock().expect("nothing panics while it holds the list").clone()
    }

    /// Checks the rule `ledger` on every state told: what is promised or held stays within the capacity, but for the
    /// overrun that is booked.
    ///
    /// # Panics
    /// When it does not.
    pub fn assert_rule(&self) {
        for state in self.states() {
            let held = state.loaded + state.reserved + state.unloading;
            assert!(held <= state.capacity + state.overrun, "{state:?}");
        }
    }
}

impl Drop for LedgerWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}
