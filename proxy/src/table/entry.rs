//! What a table holds.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use modelring_placement::{
    id::{InstanceId, ModelId, ModelRef},
    ring::{Member, Ring, RingParameters},
};

use super::rules::Rules;

/// Version of a table: epochs order control processes, n the updates of one of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// Taken by a control process at its start.
    pub epoch: u64,
    /// Counts its updates.
    pub n: u64,
}

/// A model.
pub struct Model {
    /// What agents load it by.
    pub reference: ModelRef,
    /// Id of its class.
    pub class: Arc<str>,
    /// Most copies that it may have; 0 = no limit.
    pub max_copies: u32,
    /// First candidates as the ring of its class orders them; kept until that changes.
    order: ArcSwapOption<Order>,
}

/// So many candidates are kept per model; who needs more computes them.
const KEPT: usize = 8;

struct Order {
    generation: u64,
    candidates: Arc<[InstanceId]>,
}

/// The stable name that clients call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VModel {
    /// The model that serves it.
    pub active: ModelId,
    /// The model that shall serve it.
    pub target: Option<ModelId>,
    /// Percent of the calls that go to the target.
    pub target_weight: u32,
}

/// A compatibility class.
#[derive(Clone)]
pub struct Class {
    /// The type string of its models.
    pub id: Arc<str>,
    /// The runtimes that may serve it; empty when none takes the type.
    pub runtimes: Vec<Arc<str>>,
    members: Arc<BTreeMap<InstanceId, Member>>,
    parameters: RingParameters,
    ring: Arc<Ring>,
    /// Tells orders of this ring from those of another; 0 = no ring yet.
    generation: u64,
}

/// A runtime pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// Instance id.
    pub id: InstanceId,
    /// Uid of the pod.
    pub pod_uid: Arc<str>,
    /// Where the agent's gRPC is, `host:port`.
    pub address: Arc<str>,
    /// Name of its runtime.
    pub runtime: Arc<str>,
    /// Node, if known.
    pub node: Arc<str>,
    /// Zone, if known.
    pub zone: Arc<str>,
    /// Whether it may get new copies.
    pub accepts_new: bool,
    /// Ready copies may be used, nothing new is put there.
    pub leaving: bool,
}

/// Settings of the proxies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// How long a held call may wait for a place.
    pub place_timeout: Duration,
    /// How long a drain may take, at least 3 s.
    pub drain_timeout: Duration,
    /// Largest message either way, bytes.
    pub max_message: usize,
    /// Which methods carry an id in their messages.
    pub rules: Rules,
}

// === impl Version ===

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.n)
    }
}

// === impl Model ===

impl Model {
    /// A model whose candidates are not known yet.
    #[must_use]
    pub fn new(reference: ModelRef, class: Arc<str>, max_copies: u32) -> Self {
        Self { reference, class, max_copies, order: ArcSwapOption::empty() }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> &ModelId {
        &self.reference.id
    }

    /// The first instances that may hold it, best first. Computed at the first use after the ring changed.
    #[must_use]
    pub fn candidates(&self, class: &Class) -> Arc<[InstanceId]> {
        if let Some(order) = self.order.load().as_ref().filter(|order| order.generation == class.generation) {
            return order.candidates.clone();
        }
        let candidates: Arc<[InstanceId]> = class.ring.first(self.id(), KEPT, |id| class.members.get(id)).into();
        self.order.store(Some(Arc::new(Order { generation: class.generation, candidates: candidates.clone() })));
        candidates
    }

    /// All instances that may hold it, best first; computed anew, for when none of the first can be asked.
    #[must_use]
    pub fn all_candidates(&self, class: &Class) -> Vec<InstanceId> {
        class.ring.order(self.id(), |id| class.members.get(id))
    }
}

// === impl Class ===

impl Class {
    /// A class whose instances are not known yet.
    #[must_use]
    pub fn new(id: Arc<str>, runtimes: Vec<Arc<str>>) -> Self {
        let parameters = RingParameters::default();
        let ring = Arc::new(Ring::new(parameters, []));
        Self { id, runtimes, members: Arc::default(), parameters, ring, generation: 0 }
    }

    /// Instances that belong to it.
    pub fn members(&self) -> impl ExactSizeIterator<Item = &Member> {
        self.members.values()
    }

    /// The class with these instances: the same where nothing changed, its ring where only marks changed.
    #[must_use]
    pub fn with(self: &Arc<Self>, members: BTreeMap<InstanceId, Member>, parameters: RingParameters) -> Arc<Self> {
        let same_parameters = self.parameters == parameters;
        if self.generation > 0 && same_parameters && *self.members == members {
            return self.clone();
        }
        let ring = if self.generation > 0 && same_parameters && self.members.keys().eq(members.keys()) {
            self.ring.clone()
        } else {
            Arc::new(Ring::new(parameters, members.keys().cloned()))
        };
        let generation = GENERATIONS.fetch_add(1, Ordering::Relaxed);
        let Self { id, runtimes, .. } = Self::clone(self);
        Arc::new(Self { id, runtimes, members: Arc::new(members), parameters, ring, generation })
    }
}

static GENERATIONS: AtomicU64 = AtomicU64::new(1);

// === impl Instance ===

impl Instance {
    /// As the ring sees it.
    #[must_use]
    pub fn member(&self) -> Member {
        let known = |name: &Arc<str>| (!name.is_empty()).then(|| name.clone());
        Member {
            id: self.id.clone(),
            node: known(&self.node),
            zone: known(&self.zone),
            accepts_new: self.accepts_new,
            leaving: self.leaving,
        }
    }
}

// === impl Tuning ===

impl Default for Tuning {
    fn default() -> Self {
        Self {
            place_timeout: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(30),
            max_message: 16 << 20,
            rules: Rules::default(),
        }
    }
}
