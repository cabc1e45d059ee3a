//! An agent beside an MLServer, and what a proxy says to it.

use std::{
    collections::HashMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use harness::{Folder, MlServer};
use modelring_agent::{Agent, Config, Error, Running, ServerKind, adapter::Settings};
use modelring_placement::pod::EvictionPolicy;
use modelring_proto::v1::{
    AgentEvent, CopyState, Hello, LoadRequest, ModelRef, Ping, Role, WatcherHello, WatcherMessage,
    agent_client::AgentClient, agent_event, copy_state::State, load_event, load_request, watcher_message,
};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Streaming, transport::Channel};

use crate::models::Kind;

/// Longest that a test waits for one thing: MLServer imports scikit-learn at the first load, and the machine may be busy.
pub(crate) const LONG: Duration = Duration::from_secs(90);

/// Folders of an agent: `root/models` holds what can be pulled.
pub(crate) struct Pod {
    folder: Folder,
}

/// A running agent.
pub(crate) struct Driven {
    pub(crate) running: Running,
    client: AgentClient<Channel>,
}

/// A proxy's watch of an agent.
pub(crate) struct Watcher {
    says: mpsc::Sender<WatcherMessage>,
    events: Streaming<AgentEvent>,
    pings: u64,
    seq: u64,
    /// What was heard.
    pub(crate) hello: Hello,
    pub(crate) copies: HashMap<String, CopyState>,
    /// Seq of each copy's last change.
    pub(crate) seqs: HashMap<String, u64>,
}

// === impl Pod ===

impl Pod {
    /// The three models can be pulled.
    pub(crate) fn new() -> Self {
        let pod = Self { folder: Folder::empty() };
        pod.folder.write("storage-config/local", r#"{"type":"local","path":"models"}"#);
        pod.folder.write("model-dir/_mlserver_models/.keep", "");
        for kind in crate::models::ALL {
            pod.add(kind.file(), kind.bytes());
        }
        pod
    }

    /// Adds a file that can be pulled.
    pub(crate) fn add(&self, path: &str, content: impl AsRef<[u8]>) {
        self.folder.write(&format!("root/models/{path}"), content);
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn model_dir(&self) -> PathBuf {
        self.path("model-dir")
    }

    pub(crate) fn config(&self, server: &MlServer, settings: Settings) -> Config {
        self.agent_config(server.grpc, settings)
    }

    pub(crate) fn agent_config(&self, server: SocketAddr, settings: Settings) -> Config {
        Config {
            listen: "127.0.0.1:0".parse().expect("an address"),
            instance: Some("pod-1".to_owned()),
            pod_uid: Some("uid-1".to_owned()),
            tls: None,
            namespace: "ns".to_owned(),
            runtime: "mlserver-1.x".to_owned(),
            model_dir: self.model_dir(),
            storage_config: Some(self.path("storage-config")),
            local_root: Some(self.path("root")),
            disk_limit: None,
            server: ServerKind::MlServer(settings),
            management: format!("port:{}", server.port()),
            data_direct: None,
            relay: None,
            data: server.to_string(),
            min_churn_age: Some(Duration::ZERO),
            eviction: EvictionPolicy::Lru,
            drain_timeout: Duration::from_secs(30),
        }
    }

    /// Starts an agent with ordinary settings.
    pub(crate) async fn drive(&self, server: &MlServer) -> Driven {
        Driven::start(self.config(server, settings())).await.expect("the agent starts")
    }
}

/// Room for some models.
pub(crate) fn settings() -> Settings {
    Settings { container_mem_req_bytes: Some(1 << 30), loadtime_timeout: LONG, ..Settings::default() }
}

/// A model at a path of the storage.
pub(crate) fn model(name: &str, format: &str, path: &str) -> ModelRef {
    ModelRef {
        id: id(name),
        r#type: format!("mt:{format}"),
        path: path.to_owned(),
        key: serde_json::json!({"storage_key": "local", "model_type": {"name": format}}).to_string(),
        ..ModelRef::default()
    }
}

/// One of the three models.
pub(crate) fn real(name: &str, kind: Kind) -> ModelRef {
    model(name, kind.format(), kind.file())
}

pub(crate) fn id(name: &str) -> String {
    format!("{name}__isvc-0123456789")
}

// === impl Driven ===

impl Driven {
    pub(crate) async fn start(config: Config) -> Result<Self, Error> {
        let running = Agent::start(config).await?;
        let channel = Channel::from_shared(format!("http://{}", running.addr)).expect("an address makes a URL");
        let channel = channel.connect().await.expect("the agent listens");
        Ok(Self { running, client: AgentClient::new(channel) })
    }

    /// Asks for a model, and asks again while the agent waits for its server; how that ends.
    pub(crate) async fn ensure(&self, model: ModelRef) -> load_event::Event {
        let asking = async {
            loop {
                let request = LoadRequest {
                    model: Some(model.clone()),
                    why: load_request::Why::Waiter.into(),
                    ..Default::default()
                };
                let mut client = self.client.clone();
                let mut events = client.ensure_loaded(request).await.expect("the agent answers").into_inner();
                let mut last = None;
                while let Some(event) = events.message().await.expect("the answer is whole") {
                    last = event.event;
                }
                match last.expect("there is an answer") {
                    load_event::Event::Refused(refused) if refused.text.contains("model server is") => {
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                    last => return last,
                }
            }
        };
        timeout(LONG, asking).await.expect("an answer in time")
    }

    /// Loads a model.
    pub(crate) async fn load(&self, model: ModelRef) {
        let ended = self.ensure(model).await;
        assert!(matches!(ended, load_event::Event::Loaded(_)), "not loaded: {ended:?}");
    }

    /// Code and text of a load that fails.
    pub(crate) async fn fails(&self, model: ModelRef) -> (u32, String) {
        match self.ensure(model).await {
            load_event::Event::Failed(failed) => (failed.code, failed.text),
            other => panic!("not failed: {other:?}"),
        }
    }

    pub(crate) async fn watch(&self) -> Watcher {
        let (says, said) = mpsc::channel(16);
        let hello =
            WatcherHello { protocol: modelring_proto::PROTOCOL, role: Role::Proxy.into(), id: "proxy-1".to_owned() };
        let hello = WatcherMessage { message: Some(watcher_message::Message::Hello(hello)) };
        says.send(hello).await.expect("the stream takes it");
        let mut client = self.client.clone();
        let events = client.watch(ReceiverStream::new(said)).await.expect("the agent lets watch").into_inner();
        let mut watcher = Watcher {
            says,
            events,
            pings: 0,
            seq: 0,
            hello: Hello::default(),
            copies: HashMap::new(),
            seqs: HashMap::new(),
        };
        watcher.until("a snapshot", |event| matches!(event, agent_event::Event::SnapshotEnd(_))).await;
        watcher
    }
}

// === impl Watcher ===

impl Watcher {
    /// Reads on until this is so.
    pub(crate) async fn until(&mut self, what: &str, mut found: impl FnMut(&agent_event::Event) -> bool) {
        let reading = async {
            loop {
                let event = self.events.message().await.unwrap_or_else(|status| panic!("{what}: {status}"));
                let event = event.unwrap_or_else(|| panic!("{what}: the stream ended"));
                self.seq = event.seq;
                let event = event.event.expect("an event says something");
                match &event {
                    agent_event::Event::Hello(hello) => self.hello = hello.clone(),
                    agent_event::Event::Copy(copy) => {
                        self.seqs.insert(copy.model.clone(), self.seq);
                        self.copies.insert(copy.model.clone(), copy.clone());
                    }
                    _ => {}
                }
                if found(&event) {
                    break;
                }
            }
        };
        timeout(LONG, reading).await.unwrap_or_else(|_| panic!("{what}: not in time"));
    }

    /// Reads on until a copy is in this state.
    pub(crate) async fn copy(&mut self, name: &str, state: State) -> CopyState {
        let id = id(name);
        if self.copies.get(&id).is_none_or(|copy| copy.state() != state) {
            let found = |event: &agent_event::Event| matches!(event, agent_event::Event::Copy(copy) if copy.model == id && copy.state() == state);
            self.until(&format!("{name} {state:?}"), found).await;
        }
        self.copies[&id].clone()
    }

    /// Pings, and reads on until the pong.
    pub(crate) async fn ping(&mut self) {
        self.pings += 1;
        let n = self.pings;
        self.say(watcher_message::Message::Ping(Ping { n })).await;
        self.until("a pong", |event| matches!(event, agent_event::Event::Pong(pong) if pong.n == n)).await;
    }

    pub(crate) async fn say(&self, message: watcher_message::Message) {
        let _ = self.says.send(WatcherMessage { message: Some(message) }).await;
    }
}

/// Whether a file or folder is there, links not followed.
pub(crate) fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}
