//! What users ask for, what their models are like, and what is kept for control.

use std::{collections::BTreeMap, sync::Arc};

use modelring_control::{
    Error, convert,
    crd::{InferenceService, RuntimeSpec, ServingRuntime, ServingRuntimeSpec},
    source::{ActiveMemory, ActiveRecord, Desired, InstanceSpec},
};
use modelring_placement::id::ModelId;
use parking_lot::Mutex;
use serde_json::json;

use crate::world::Shape;

/// Name of the only runtime.
pub const RUNTIME: &str = "sim";

/// What a model is like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Bytes that it needs.
    pub bytes: u64,
    /// Bytes that are predicted.
    pub predicted: u64,
    /// How long its load takes about, milliseconds.
    pub load_millis: u64,
    /// The server cannot load it.
    pub bad: bool,
    /// Its files are in the storage.
    pub is_there: bool,
    /// Most calls at once, 0 = no limit.
    pub limit: u32,
}

/// An InferenceService.
#[derive(Clone, Debug)]
pub struct Service {
    /// Path of its model.
    pub path: String,
    /// Fewest copies.
    pub min: u32,
    /// Most copies, 0 = no limit.
    pub max: u32,
}

/// All that users ask for.
#[derive(Debug)]
pub struct Desires {
    /// By path.
    profiles: BTreeMap<String, Profile>,
    /// By name.
    pub services: BTreeMap<String, Service>,
    state: Desired,
    load_timeout: String,
}

/// What is kept for controls: epochs by compare-and-swap, and the records of vmodels.
#[derive(Debug, Default)]
pub struct Store(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    epoch: u64,
    records: BTreeMap<String, ActiveRecord>,
}

// === impl Profile ===

impl Profile {
    /// A model of so many bytes that loads in so long.
    #[must_use]
    pub fn of(bytes: u64, load_millis: u64) -> Self {
        Self { bytes, predicted: bytes, load_millis, bad: false, is_there: true, limit: 0 }
    }
}

// === impl Desires ===

impl Desires {
    /// Pods and a runtime, no service.
    #[must_use]
    pub fn new(shape: &Shape) -> Self {
        let runtime = json!({
            "multiModel": true, "containers": [], "protocolVersions": ["grpc-v2"],
            "supportedModelFormats": [{"name": "sim", "autoSelect": true}],
        });
        let runtime: RuntimeSpec = serde_json::from_value(runtime).expect("it is a runtime");
        let runtime = ServingRuntime::new(RUNTIME, ServingRuntimeSpec(runtime));
        let seconds = |duration: std::time::Duration| duration.as_secs();
        let config = format!(
            "proxy:\n  placeTimeout: {}s\nagent:\n  drainTimeout: {}s\n",
            seconds(shape.place_timeout),
            seconds(shape.drain_timeout)
        );
        let instance = InstanceSpec { runtime: RUNTIME.to_owned(), ..InstanceSpec::default() };
        let state = Desired {
            runtimes: BTreeMap::from([(RUNTIME.to_owned(), Arc::new(runtime))]),
            config: Some(config),
            instances: (0..shape.pods).map(|n| (crate::agent::Pod::new(n).address, instance.clone())).collect(),
            ..Desired::default()
        };
        let load_timeout = format!("{}s", seconds(shape.load_timeout));
        Self { profiles: BTreeMap::new(), services: BTreeMap::new(), state, load_timeout }
    }

    /// What a model at a path is like.
    #[must_use]
    pub fn profile(&self, path: &str) -> &Profile {
        self.profiles.get(path).expect("only paths that were asked for are loaded")
    }

    /// What a model at a path is like from now on.
    pub fn set_profile(&mut self, path: &str, profile: Profile) {
        self.profiles.insert(path.to_owned(), profile);
    }

    /// Asks for a service, or changes it.
    pub fn set(&mut self, name: &str, path: &str, profile: Profile, min: u32, max: u32) {
        self.set_profile(path, profile);
        self.services.insert(name.to_owned(), Service { path: path.to_owned(), min, max });
        let service = Arc::new(self.manifest(name, path, min, max));
        self.state.inference_services.insert(name.to_owned(), service);
    }

    /// Asks for a service no more.
    pub fn remove(&mut self, name: &str) {
        self.services.remove(name);
        self.state.inference_services.remove(name);
    }

    /// The storage Secret has changed.
    pub fn change_secret(&mut self) {
        self.state.storage_changes += 1;
    }

    /// The state that a source reads.
    #[must_use]
    pub fn state(&self) -> Desired {
        self.state.clone()
    }

    /// The id of the model that a service asks for.
    #[must_use]
    pub fn model(&self, name: &str) -> Option<ModelId> {
        let service = self.state.inference_services.get(name)?;
        convert::convert(service).ok().map(|converted| ModelId::from(converted.model.id))
    }

    fn manifest(&self, name: &str, path: &str, min: u32, max: u32) -> InferenceService {
        let mut annotations = BTreeMap::from([
            ("serving.kserve.io/deploymentMode", "ModelMesh".to_owned()),
            ("modelring.dev/min-copies", min.to_string()),
            ("modelring.dev/load-timeout", self.load_timeout.clone()),
        ]);
        if max > 0 {
            annotations.insert("modelring.dev/max-copies", max.to_string());
        }
        let manifest = json!({
            "apiVersion": "serving.kserve.io/v1beta1",
            "kind": "InferenceService",
            "metadata": {"name": name, "annotations": annotations},
            "spec": {"predictor": {"model": {
                "modelFormat": {"name": "sim"}, "storage": {"key": "store", "path": path},
            }}},
        });
        serde_json::from_value(manifest).expect("it is an InferenceService")
    }
}

// === impl Store ===

impl Store {
    /// The records as they are now.
    #[must_use]
    pub fn records(&self) -> BTreeMap<String, ActiveRecord> {
        self.0.lock().records.clone()
    }

    /// What was kept is lost, as with a folder that is restored from an old copy.
    pub fn lose_epoch(&self) {
        self.0.lock().epoch = 0;
    }

    /// The last epoch taken.
    #[must_use]
    pub fn last_epoch(&self) -> u64 {
        self.0.lock().epoch
    }
}

impl ActiveMemory for Store {
    fn read(&self) -> Result<BTreeMap<String, ActiveRecord>, Error> {
        Ok(self.records())
    }

    fn write(&self, name: &str, record: &ActiveRecord, _replaces: bool) -> Result<(), Error> {
        let mut kept = self.0.lock();
        if kept.epoch > record.epoch {
            return Err(Error::Superseded { theirs: kept.epoch, ours: record.epoch });
        }
        kept.records.insert(name.to_owned(), record.clone());
        Ok(())
    }

    fn remove(&self, name: &str) -> Result<(), Error> {
        self.0.lock().records.remove(name);
        Ok(())
    }

    fn epoch(&self) -> Result<u64, Error> {
        Ok(self.last_epoch())
    }

    fn next_epoch(&self, above: u64) -> Result<u64, Error> {
        let mut kept = self.0.lock();
        kept.epoch = kept.epoch.max(above) + 1;
        Ok(kept.epoch)
    }
}
