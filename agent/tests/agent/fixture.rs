//! An agent with a folder of models, and clients of it.

use std::{fs, path::PathBuf, sync::Arc, time::Duration};

use modelring_agent::{Agent, Config, Error, Running};
use modelring_placement::pod::EvictionPolicy;
use modelring_proto::v1::{
    AgentEvent, CopyState, LoadEvent, LoadRequest, ModelRef, Ping, Role, WatcherHello, WatcherMessage,
    agent_client::AgentClient, agent_event, copy_state, load_event, load_request, watcher_message,
};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming, transport::Channel};

/// Longest that a test waits for one thing.
pub(crate) const LONG: Duration = Duration::from_secs(15);

/// Folders of an agent.
pub(crate) struct Fixture {
    dir: Arc<tempfile::TempDir>,
}

/// A running agent and a client of it.
pub(crate) struct Started {
    pub(crate) running: Running,
    pub(crate) client: AgentClient<Channel>,
    /// The folders live as long as the agent.
    _dir: Option<Arc<tempfile::TempDir>>,
}

/// A watcher of an agent.
pub(crate) struct Watcher {
    says: mpsc::Sender<WatcherMessage>,
    events: Streaming<AgentEvent>,
}

/// How an `EnsureLoaded` ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) events: Vec<load_event::Event>,
}

// === impl Fixture ===

impl Fixture {
    /// `models/<name>/model.bin` of 1000 bytes for each name.
    pub(crate) fn new(models: &[&str]) -> Self {
        let fixture = Self { dir: Arc::new(tempfile::tempdir().unwrap()) };
        fixture.write("storage-config/local", r#"{"type":"local","path":"models"}"#);
        fixture.write("root/models/readme", "");
        for name in models {
            fixture.write(&format!("root/models/{name}/model.bin"), &"x".repeat(1000));
        }
        fixture
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub(crate) fn config(&self, management: &str) -> Config {
        Config {
            listen: "127.0.0.1:0".parse().unwrap(),
            instance: Some("pod-1".to_owned()),
            pod_uid: Some("uid-1".to_owned()),
            tls: None,
            namespace: "ns".to_owned(),
            runtime: "custom".to_owned(),
            model_dir: self.path("model-dir"),
            storage_config: Some(self.path("storage-config")),
            local_root: Some(self.path("root")),
            disk_limit: None,
            server: modelring_agent::ServerKind::Custom,
            management: management.to_owned(),
            data_direct: None,
            relay: None,
            data: "127.0.0.1:8085".to_owned(),
            min_churn_age: Some(Duration::ZERO),
            eviction: EvictionPolicy::Lru,
            drain_timeout: Duration::from_secs(30),
        }
    }

    pub(crate) async fn start(&self, management: &str) -> Started {
        Started { _dir: Some(self.dir.clone()), ..Started::of(self.config(management)).await.unwrap() }
    }
}

/// The model of a folder of the fixture.
pub(crate) fn model(name: &str) -> ModelRef {
    ModelRef {
        id: format!("{name}__isvc-0123456789"),
        r#type: "mt:test".to_owned(),
        path: format!("{name}/model.bin"),
        key: r#"{"storage_key":"local","model_type":{"name":"test"}}"#.to_owned(),
        size_hint: 0,
        load_timeout_millis: 0,
    }
}

// === impl Started ===

impl Started {
    pub(crate) async fn of(config: Config) -> Result<Self, Error> {
        let running = Agent::start(config).await?;
        let channel = Channel::from_shared(format!("http://{}", running.addr)).unwrap().connect().await.unwrap();
        Ok(Self { running, client: AgentClient::new(channel), _dir: None })
    }

    pub(crate) async fn watch_as(&self, role: Role, id: &str) -> Watcher {
        self.watch_by(WatcherHello { protocol: 1, role: role.into(), id: id.to_owned() }).await.unwrap()
    }

    pub(crate) async fn watch(&self) -> Watcher {
        self.watch_as(Role::Proxy, "proxy-1").await
    }

    pub(crate) async fn watch_by(&self, hello: WatcherHello) -> Result<Watcher, Status> {
        Watcher::open(self.client.clone(), hello).await
    }

    /// The same agent over a connection that takes little before it is read.
    pub(crate) async fn over_a_narrow_connection(&self) -> AgentClient<Channel> {
        let endpoint = Channel::from_shared(format!("http://{}", self.running.addr)).unwrap();
        let narrow = endpoint.initial_stream_window_size(65_535).initial_connection_window_size(65_535);
        AgentClient::new(narrow.connect().await.unwrap())
    }

    /// Opens an `EnsureLoaded`.
    pub(crate) async fn ask(&self, model: ModelRef) -> Result<Streaming<LoadEvent>, Status> {
        let request = LoadRequest { model: Some(model), why: load_request::Why::Waiter.into(), ..Default::default() };
        Ok(self.client.clone().ensure_loaded(request).await?.into_inner())
    }

    /// Asks, and again while the model server is not ready, until the call ends.
    pub(crate) async fn ensure(&self, model: ModelRef) -> Ended {
        let asking = async {
            loop {
                let ended = Ended::of(self.ask(model.clone()).await.unwrap()).await;
                match ended.last() {
                    load_event::Event::Refused(refused) if refused.text.contains("model server is") => {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                    _ => return ended,
                }
            }
        };
        timeout(LONG, asking).await.expect("an answer in time")
    }

    /// Loads a model of the fixture.
    pub(crate) async fn load(&self, name: &str) -> u64 {
        self.ensure(model(name)).await.loaded()
    }
}

// === impl Ended ===

impl Ended {
    /// Reads a call to its end.
    pub(crate) async fn of(mut answers: Streaming<LoadEvent>) -> Self {
        let mut events = Vec::new();
        while let Some(event) = timeout(LONG, answers.message()).await.expect("an event in time").unwrap() {
            events.push(event.event.unwrap());
        }
        Self { events }
    }

    pub(crate) fn last(&self) -> &load_event::Event {
        self.events.last().expect("an event")
    }

    /// Seq of the READY.
    pub(crate) fn loaded(&self) -> u64 {
        match self.last() {
            load_event::Event::Loaded(loaded) => loaded.seq,
            other => panic!("not loaded: {other:?}"),
        }
    }

    /// Code and text of the failure.
    pub(crate) fn failed(&self) -> (u32, &str) {
        match self.last() {
            load_event::Event::Failed(failed) => (failed.code, &failed.text),
            other => panic!("not failed: {other:?}"),
        }
    }
}

// === impl Watcher ===

impl Watcher {
    pub(crate) async fn open(mut client: AgentClient<Channel>, hello: WatcherHello) -> Result<Self, Status> {
        let (says, said) = mpsc::channel(16);
        says.send(WatcherMessage { message: Some(watcher_message::Message::Hello(hello)) }).await.unwrap();
        let events = client.watch(ReceiverStream::new(said)).await?.into_inner();
        Ok(Self { says, events })
    }

    pub(crate) async fn say(&self, message: watcher_message::Message) {
        let _ = self.says.send(WatcherMessage { message: Some(message) }).await;
    }

    pub(crate) async fn ping(&self, n: u64) {
        self.say(watcher_message::Message::Ping(Ping { n })).await;
    }

    /// The next event but for ledgers, with its seq.
    pub(crate) async fn next(&mut self) -> Result<(u64, agent_event::Event), Status> {
        loop {
            let event = timeout(LONG, self.events.message()).await.expect("an event in time")?;
            let event = event.ok_or_else(|| Status::ok("ended"))?;
            match event.event.unwrap() {
                agent_event::Event::Ledger(_) => {}
                other => return Ok((event.seq, other)),
            }
        }
    }

    /// Waits for a kind of event; the others are passed over.
    pub(crate) async fn until<T>(
        &mut self,
        what: &str,
        mut wanted: impl FnMut(u64, agent_event::Event) -> Option<T>,
    ) -> T {
        let searching = async {
            loop {
                let event = self.events.message().await.unwrap_or_else(|status| panic!("{what}: {status}"));
                let event = event.unwrap_or_else(|| panic!("{what}: ended"));
                if let Some(found) = wanted(event.seq, event.event.unwrap()) {
                    return found;
                }
            }
        };
        timeout(LONG, searching).await.unwrap_or_else(|_| panic!("{what}: not in time"))
    }

    /// Waits until a copy is in a state.
    pub(crate) async fn copy(&mut self, name: &str, state: copy_state::State) -> (u64, CopyState) {
        let id = model(name).id;
        self.until(&format!("{id} {state:?}"), |seq, event| match event {
            agent_event::Event::Copy(copy) if copy.model == id && copy.state() == state => Some((seq, copy)),
            _ => None,
        })
        .await
    }

    /// Waits for the end of the snapshot.
    pub(crate) async fn snapshot_end(&mut self) -> u64 {
        self.until("snapshot end", |seq, event| matches!(event, agent_event::Event::SnapshotEnd(_)).then_some(seq))
            .await
    }
}
