//! A control over a temporary folder, and a real client that holds a table as a proxy does.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "shared by tests, each of which uses its part")]

pub mod agent;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use modelring_control::{Config, Control, Running, dataplane::Source, source::InstanceSpec};
use modelring_proto::{
    PROTOCOL,
    v1::{
        Ack, Class, Instance, Model, Notice, ProxyMessage, Role, RoutesHello, RoutesUpdate, TableChange, Tuning,
        VModel, Version, proxy_message::Message, routes_client::RoutesClient, routes_update::Kind,
    },
};
use tempfile::TempDir;
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::Streaming;

/// Longest wait for anything.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A runtime that takes `onnx`.
pub const RUNTIME: &str = "apiVersion: serving.kserve.io/v1alpha1
kind: ServingRuntime
metadata:
  name: small
spec:
  multiModel: true
  containers: []
  protocolVersions: [grpc-v2]
  supportedModelFormats:
  - name: onnx
    autoSelect: true
";

/// An InferenceService of a path.
pub fn service(name: &str, path: &str) -> String {
    format!(
        "apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata:
  name: {name}
  annotations:
    serving.kserve.io/deploymentMode: ModelMesh
spec:
  predictor:
    model:
      modelFormat:
        name: onnx
      storage:
        key: localMinIO
        path: {path}
"
    )
}

/// A folder with a control over it.
pub struct Mesh {
    dir: TempDir,
    pub control: Option<Running>,
    instances: Vec<(String, InstanceSpec)>,
    pub dataplane: Source,
}

/// A client of the Routes service with its copy of the table.
pub struct Client {
    say: mpsc::Sender<ProxyMessage>,
    updates: Streaming<RoutesUpdate>,
    /// Acknowledges each version as it comes.
    pub acknowledges: bool,
    pub version: Version,
    pub table: Table,
}

/// A table as a proxy holds it.
#[derive(Clone, Debug, Default)]
pub struct Table {
    pub classes: BTreeMap<String, Class>,
    pub models: BTreeMap<String, Model>,
    pub vmodels: BTreeMap<String, VModel>,
    pub instances: BTreeMap<String, Instance>,
    pub wanted: BTreeMap<String, u32>,
    pub tuning: Tuning,
    pub proxies: u32,
    pub notices: Vec<Notice>,
}

// === impl Mesh ===

impl Mesh {
    /// A folder with runtime `small` and these files, and a control.
    pub async fn start(files: &[(&str, &str)]) -> Self {
        Self::start_with(files, &[]).await
    }

    /// The same, with these agents of runtime `small`.
    pub async fn start_with(files: &[(&str, &str)], agents: &[&agent::FakeAgent]) -> Self {
        let dir = TempDir::new().unwrap();
        for (name, text) in [("runtime.yaml", RUNTIME)].iter().chain(files) {
            fs::write(dir.path().join(name), text).unwrap();
        }
        let spec = InstanceSpec { runtime: "small".to_owned(), ..InstanceSpec::default() };
        let instances = agents.iter().map(|agent| (agent.address().to_string(), spec.clone())).collect();
        let mut mesh = Self { dir, control: None, instances, dataplane: Source::BuiltIn };
        mesh.restart().await;
        mesh
    }

    /// Stops control, if it runs, and starts another over the same folder.
    pub async fn restart(&mut self) {
        self.stop().await;
        self.control = Some(Control::start(self.config()).await.unwrap());
    }

    /// The settings of a control over the folder.
    pub fn config(&self) -> Config {
        Config {
            dir: self.path().to_owned(),
            listen: "127.0.0.1:0".parse().unwrap(),
            tls: None,
            namespace: "default".to_owned(),
            instances: self.instances.clone(),
            built_in_runtimes: Vec::new(),
            dataplane: self.dataplane.clone(),
        }
    }

    pub async fn stop(&mut self) {
        if let Some(control) = self.control.take() {
            control.shutdown().await;
        }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        fs::write(self.file(name), text).unwrap();
    }

    pub async fn client(&self, role: Role) -> Client {
        let address = self.control.as_ref().unwrap().addr();
        Client::dial(&address.to_string(), role, None).await.unwrap()
    }
}

// === impl Client ===

impl Client {
    pub async fn dial(address: &str, role: Role, last: Option<Version>) -> Result<Self, tonic::Status> {
        let mut client = RoutesClient::connect(format!("http://{address}")).await.unwrap();
        let (say, said) = mpsc::channel(16);
        let hello = RoutesHello {
            protocol: PROTOCOL,
            role: role.into(),
            id: format!("{role:?}"),
            namespace: "default".to_owned(),
            last,
        };
        say.send(ProxyMessage { message: Some(Message::Hello(hello)) }).await.unwrap();
        let updates = client.watch(ReceiverStream::new(said)).await?.into_inner();
        Ok(Self { say, updates, acknowledges: true, version: Version::default(), table: Table::default() })
    }

    pub async fn say(&self, message: Message) {
        self.say.send(ProxyMessage { message: Some(message) }).await.unwrap();
    }

    /// Takes in one update; the error that ended the stream, if it did.
    pub async fn update(&mut self) -> Result<(), Option<tonic::Status>> {
        let update = match timeout(PATIENCE, self.updates.next()).await.expect("an update in time") {
            Some(Ok(update)) => update,
            Some(Err(status)) => return Err(Some(status)),
            None => return Err(None),
        };
        if update.kind() == Kind::Observed {
            return Ok(());
        }
        let version = update.version.unwrap();
        if update.kind() == Kind::Delta {
            assert_eq!(
                (version.epoch, version.n),
                (self.version.epoch, self.version.n + 1),
                "versions follow each other"
            );
        }
        self.table.apply(update.change.clone().unwrap());
        if update.kind() != Kind::SnapshotChunk {
            self.version = version;
            if self.acknowledges {
                // Control may just have ended the stream.
                let ack = Message::Ack(Ack { version: Some(version) });
                let _ = self.say.send(ProxyMessage { message: Some(ack) }).await;
            }
        }
        Ok(())
    }

    /// Takes updates in until the table is as it should be.
    pub async fn until(&mut self, what: &str, is: impl Fn(&Table) -> bool) -> &Table {
        let waited = timeout(PATIENCE, async {
            while self.version.epoch == 0 || !is(&self.table) {
                self.update().await.expect("the stream goes on");
            }
        });
        if waited.await.is_err() {
            panic!("not in time: {what}\n{:#?}", self.table);
        }
        &self.table
    }

    /// The active model of a vmodel, once it has one.
    pub fn active(&self, name: &str) -> &str {
        self.table.vmodels.get(name).map_or("", |vmodel| &vmodel.active)
    }
}

// === impl Table ===

impl Table {
    fn apply(&mut self, change: TableChange) {
        self.classes.extend(change.classes.into_iter().map(|class| (class.id.clone(), class)));
        self.models.extend(change.models.into_iter().map(|model| (model.r#ref.clone().unwrap().id, model)));
        self.vmodels.extend(change.vmodels.into_iter().map(|vmodel| (vmodel.name.clone(), vmodel)));
        self.instances.extend(change.instances.into_iter().map(|instance| (instance.id.clone(), instance)));
        self.wanted.extend(change.wanted.into_iter().map(|wanted| (wanted.model, wanted.copies)));
        self.classes.retain(|id, _| !change.removed_classes.contains(id));
        self.models.retain(|id, _| !change.removed_models.contains(id));
        self.wanted.retain(|id, _| !change.removed_models.contains(id));
        self.vmodels.retain(|name, _| !change.removed_vmodels.contains(name));
        self.instances.retain(|id, _| !change.removed_instances.contains(id));
        self.tuning = change.tuning.unwrap_or(self.tuning.clone());
        self.proxies = change.proxies.unwrap_or(self.proxies);
        self.notices = change.notices.map_or(std::mem::take(&mut self.notices), |notices| notices.notices);
    }

    /// The path of the active model of a vmodel.
    pub fn active_path(&self, name: &str) -> Option<&str> {
        let active = &self.vmodels.get(name)?.active;
        Some(&self.models.get(active)?.r#ref.as_ref()?.path)
    }

    /// Whether a notice of this subject says this.
    pub fn notes(&self, subject: &str, text: &str) -> bool {
        self.notices.iter().any(|notice| notice.subject == subject && notice.text.contains(text))
    }
}
