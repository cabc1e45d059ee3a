//! The dataplane configuration: which RPCs callers may use, and where their messages carry the id of the model.
//!
//! The JSON is ModelMesh's (`MM_DATAPLANE_CONFIG`, `MM_DATAPLANE_CONFIG_PATH`). Control reads it and tells it to the
//! proxies with the table, so that all of them agree and a call sees one version of it. A file is looked at once a second,
//! whatever replaced it: an edit in place, a rename, the `..data` link of a mounted ConfigMap.

use std::{
    collections::BTreeMap,
    fs::{self, Metadata},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use modelring_proto::v1::RpcRule;
use serde::Deserialize;
use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval, sleep},
};

use crate::{Error, core::Event, source::Notice};

/// Between two looks at the file.
const LOOK: Duration = Duration::from_secs(1);
/// A file that cannot be used may be half written: it is read again after this before anybody is told.
const AGAIN: Duration = Duration::from_millis(500);
/// A file larger than this is no such configuration.
const LARGEST: u64 = 4 << 20;
/// Largest field number that protobuf knows.
const LAST_FIELD: u32 = 0x1fff_ffff;

/// Where the configuration comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// The one that is built in ([`Dataplane::default`]).
    #[default]
    BuiltIn,
    /// This JSON.
    Literal(String),
    /// The JSON in this file, followed as it changes.
    File(PathBuf),
}

/// Which RPCs callers may use.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Dataplane {
    /// Rules by method, `pkg.Service/Method`.
    #[serde(default)]
    pub rpc_configs: BTreeMap<String, RpcConfig>,
    /// Whether other methods may be called too, routed by header.
    #[serde(default)]
    pub allow_other_rpcs: bool,
}

/// Where an RPC carries the id.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RpcConfig {
    /// Field numbers from the request message down to the id; empty = the headers name the model.
    #[serde(default)]
    pub id_extraction_path: Vec<u32>,
    /// Whether the id names a vmodel (an InferenceService) rather than a concrete model.
    #[serde(default, rename = "vModelId")]
    pub vmodel: bool,
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Read(#[from] io::Error),
    /// It is larger than any such configuration.
    #[error("is larger than 4 MiB")]
    TooLarge,
    /// It is not the JSON that it should be, or has a property that nobody knows.
    #[error("is no dataplane configuration: {0}")]
    Json(#[from] serde_json::Error),
    /// A method is not named as methods are.
    #[error("`{0}` is no method: a method is named `package.Service/Method`")]
    Method(String),
    /// A path has a number that no field can have.
    #[error("`{method}`: {number} in its idExtractionPath is no field number (1 to 536870911)")]
    Field {
        /// The method.
        method: String,
        /// The number.
        number: u32,
    },
}

/// The configuration of a file as it changes.
#[derive(Debug)]
pub(crate) struct Follower {
    path: PathBuf,
    seen: Option<Stamp>,
}

/// What tells that a file is the same as before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

// === impl Dataplane ===

impl Default for Dataplane {
    /// What ModelMesh Serving installs, and the other methods of KServe v2 and Triton that name a model.
    fn default() -> Self {
        let rule = |method: &str, path: &[u32]| {
            (method.to_owned(), RpcConfig { id_extraction_path: path.to_vec(), vmodel: true })
        };
        let rpc_configs = BTreeMap::from([
            rule("inference.GRPCInferenceService/ModelInfer", &[1]),
            rule("inference.GRPCInferenceService/ModelMetadata", &[1]),
            rule("inference.GRPCInferenceService/ModelStreamInfer", &[1]),
            rule("inference.GRPCInferenceService/ModelConfig", &[1]),
            rule("inference.GRPCInferenceService/ModelStatistics", &[1]),
            rule("tensorflow.serving.PredictionService/Predict", &[1, 1]),
            rule("org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions", &[1]),
        ]);
        Self { rpc_configs, allow_other_rpcs: true }
    }
}

impl Dataplane {
    /// Reads the JSON.
    ///
    /// # Errors
    ///
    /// It is not what it should be; an unknown property is refused.
    pub fn parse(json: &str) -> Result<Self, Unusable> {
        // A list of values would be read as a struct too.
        serde_json::from_str::<serde_json::Map<_, _>>(json)?;
        let read: Self = serde_json::from_str(json)?;
        for (method, rule) in &read.rpc_configs {
            let named = method.trim_start_matches('/').split_once('/');
            if named.is_none_or(|(service, name)| service.is_empty() || name.is_empty() || name.contains('/')) {
                return Err(Unusable::Method(method.clone()));
            }
            if let Some(number) = rule.id_extraction_path.iter().find(|number| !(1..=LAST_FIELD).contains(*number)) {
                return Err(Unusable::Field { method: method.clone(), number: *number });
            }
        }
        Ok(read)
    }

    /// The rules as they are told to proxies.
    pub(crate) fn rules(&self) -> Vec<RpcRule> {
        let rule = |(method, rule): (&String, &RpcConfig)| RpcRule {
            method: method.trim_start_matches('/').to_owned(),
            id_path: rule.id_extraction_path.clone(),
            vmodel: rule.vmodel,
        };
        self.rpc_configs.iter().map(rule).collect()
    }
}

// === impl Source ===

impl Source {
    /// The configuration at start, and what follows it.
    ///
    /// # Errors
    ///
    /// There is none that could be used: no last good one either.
    pub(crate) fn open(&self) -> Result<(Dataplane, Option<Follower>), Error> {
        let unusable = |what: String| move |source| Error::Dataplane { what, source };
        match self {
            Self::BuiltIn => Ok((Dataplane::default(), None)),
            Self::Literal(json) => {
                Ok((Dataplane::parse(json).map_err(unusable("dataplane configuration".to_owned()))?, None))
            }
            Self::File(path) => {
                let mut follower = Follower { path: path.clone(), seen: None };
                let first = follower.read().map_err(unusable(follower.subject()))?;
                Ok((first, Some(follower)))
            }
        }
    }
}

// === impl Follower ===

impl Follower {
    /// What the configuration is called where something is said of it.
    fn subject(&self) -> String {
        format!("dataplane configuration {}", self.path.display())
    }

    /// Tells each configuration that the file comes to hold, and of one that cannot be used why, until nobody listens.
    pub(crate) async fn follow(mut self, events: mpsc::Sender<Event>) -> Result<(), Error> {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = looks.tick() => {}
                () = events.closed() => return Ok(()),
            }
            let (back, mut read) = self.look(false).await?;
            self = back;
            if matches!(read, Some(Err(_))) {
                sleep(AGAIN).await;
                (self, read) = self.look(true).await?;
            }
            let told = match read {
                None => continue,
                Some(Ok(dataplane)) => Ok(dataplane),
                Some(Err(error)) => {
                    let text = format!("it {error}; the last good one stays in force");
                    Err(Notice { subject: self.subject(), text })
                }
            };
            if events.send(Event::Dataplane(told)).await.is_err() {
                return Ok(());
            }
        }
    }

    /// Reads the file if it is another than before, or `anyway`.
    async fn look(mut self, anyway: bool) -> Result<(Self, Option<Result<Dataplane, Unusable>>), Error> {
        // On a thread that may block: a file system that hangs holds up this task alone.
        let looked = tokio::task::spawn_blocking(move || {
            let read = (anyway || Stamp::at(&self.path).ok() != self.seen).then(|| self.read());
            (self, read)
        });
        looked.await.map_err(|_| Error::Stopped("the look at the dataplane configuration"))
    }

    fn read(&mut self) -> Result<Dataplane, Unusable> {
        self.seen = Stamp::at(&self.path).ok();
        // A pipe would block whoever opens it.
        if !fs::metadata(&self.path)?.is_file() {
            return Err(Unusable::Read(io::Error::new(io::ErrorKind::InvalidInput, "it is no file")));
        }
        let mut json = String::new();
        fs::File::open(&self.path)?.take(LARGEST + 1).read_to_string(&mut json)?;
        if json.len() as u64 > LARGEST {
            return Err(Unusable::TooLarge);
        }
        Dataplane::parse(&json)
    }
}

// === impl Stamp ===

impl Stamp {
    /// Links are followed: a mounted ConfigMap is made of them.
    fn at(path: &Path) -> io::Result<Self> {
        fs::metadata(path).map(|metadata| Self::of(&metadata))
    }

    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}
