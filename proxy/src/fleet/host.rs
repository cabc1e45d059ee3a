//! What the request threads know of an instance: its lease, where it serves, how its methods carry the id.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use modelring_placement::{
    id::{BootId, InstanceId, ModelRef},
    rules::never_unready::LEASE,
    time::Time,
};
use modelring_process::tls::Connector;
use modelring_proto::v1::{self, data_endpoint::Kind};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::peer::{Command, Peer};
use crate::{
    clock::Clock,
    engine::target::{Confirm, Target},
};

/// Load timeout of a runtime that does not say its own.
pub const LOAD_TIMEOUT: Duration = Duration::from_secs(90);
/// How long the answer to a ping on demand is waited for.
const CONFIRM: Duration = Duration::from_secs(2);
/// So many lost attempts in a row eject an instance.
const EJECT_AFTER: u32 = 3;
/// How long it stays ejected.
const EJECTED: Duration = Duration::from_secs(5);

/// One instance, shared by all threads.
pub struct Host {
    /// Instance id.
    pub id: InstanceId,
    /// Its clock.
    pub clock: Clock,
    /// Wakes the watcher when the last call has left a copy that is not ready.
    pub(super) drained: Notify,
    lease: watch::Sender<(BootId, Time)>,
    lease_until: AtomicU64,
    /// As its agent says.
    leaving: AtomicBool,
    /// As the table says.
    listed_leaving: AtomicBool,
    serving: ArcSwapOption<Serving>,
    /// Uid of the pod that serves, and what tells that it is gone: its data connections close.
    pod: Mutex<(Arc<str>, CancellationToken)>,
    lost: AtomicU32,
    ejected_until: AtomicU64,
}

/// Where and how an instance serves, as its agent said in the last `Hello`.
pub struct Serving {
    /// Boot of the agent that said so.
    pub boot: BootId,
    /// How long a load may take where the model does not say.
    pub load_timeout: Duration,
    direct: Option<Arc<Target>>,
    relay: Option<Arc<Target>>,
    relayed: AtomicBool,
    methods: HashMap<Box<str>, Paths>,
    allow_any: bool,
}

/// Where the messages of a method carry the id; empty = nowhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Paths {
    /// In a request, the concrete id.
    pub request: Arc<[u32]>,
    /// In a response, the name.
    pub response: Arc<[u32]>,
}

// === impl Host ===

impl Host {
    /// An instance of which nothing is known.
    #[must_use]
    pub fn new(id: InstanceId, clock: Clock) -> Self {
        Self {
            id,
            clock,
            drained: Notify::new(),
            lease: watch::Sender::new((0, Time::ZERO)),
            lease_until: AtomicU64::new(0),
            leaving: AtomicBool::new(false),
            listed_leaving: AtomicBool::new(false),
            serving: ArcSwapOption::empty(),
            pod: Mutex::default(),
            lost: AtomicU32::new(0),
            ejected_until: AtomicU64::new(0),
        }
    }

    /// Whether what its agent said may still be believed.
    #[must_use]
    pub fn is_live(&self, now: Time) -> bool {
        now.as_nanos() < self.lease_until.load(Ordering::Acquire)
    }

    /// The boot that the lease is of, and when it ends.
    #[must_use]
    pub fn lease(&self) -> (BootId, Time) {
        *self.lease.borrow()
    }

    /// Whether it is going away.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Relaxed) || self.listed_leaving.load(Ordering::Relaxed)
    }

    /// Whether it is passed over because calls to it were lost.
    #[must_use]
    pub fn is_ejected(&self, now: Time) -> bool {
        now.as_nanos() < self.ejected_until.load(Ordering::Relaxed)
    }

    /// Where it serves, if its agent has said so.
    #[must_use]
    pub fn serving(&self) -> Option<Arc<Serving>> {
        self.serving.load_full()
    }

    /// How long a load of this model may take here.
    #[must_use]
    pub fn load_timeout(&self, model: &ModelRef) -> Duration {
        let of_runtime = || self.serving.load().as_ref().map_or(LOAD_TIMEOUT, |serving| serving.load_timeout);
        model.load_timeout.unwrap_or_else(of_runtime)
    }

    /// An attempt did not reach it, or was lost.
    pub fn lost(&self, now: Time) {
        if self.lost.fetch_add(1, Ordering::Relaxed) + 1 >= EJECT_AFTER {
            self.ejected_until.store((now + EJECTED).as_nanos(), Ordering::Relaxed);
        }
    }

    /// An attempt was answered.
    pub fn answered(&self) {
        if self.lost.load(Ordering::Relaxed) > 0 {
            self.lost.store(0, Ordering::Relaxed);
            self.ejected_until.store(0, Ordering::Relaxed);
        }
    }

    /// The lease of this boot now ends at `until`; returns whether it had run out before.
    pub(super) fn set_lease(&self, boot: BootId, until: Time) -> bool {
        let before = Time::from_nanos(self.lease_until.swap(until.as_nanos(), Ordering::AcqRel));
        self.lease.send_replace((boot, until));
        before <= self.clock.now()
    }

    pub(super) fn set_leaving(&self, leaving: bool) {
        self.leaving.store(leaving, Ordering::Relaxed);
    }

    pub(super) fn set_listed_leaving(&self, leaving: bool) {
        self.listed_leaving.store(leaving, Ordering::Relaxed);
    }

    pub(super) fn set_serving(&self, serving: Serving) {
        self.lost.store(0, Ordering::Relaxed);
        self.ejected_until.store(0, Ordering::Relaxed);
        self.serving.store(Some(Arc::new(serving)));
    }

    /// The instance is no more: its data connections take no new calls, and close after those that are on.
    pub(super) fn retire(&self) {
        self.pod.lock().1.cancel();
    }

    /// What tells that the pod of this uid is gone. Another uid than before says so of the pod before.
    fn gone(&self, pod_uid: &Arc<str>) -> CancellationToken {
        let mut pod = self.pod.lock();
        if pod.0 != *pod_uid {
            pod.1.cancel();
            *pod = (pod_uid.clone(), CancellationToken::new());
        }
        pod.1.clone()
    }

    /// See [`Confirm`]: a ping on demand, answered by the agent of this boot.
    fn confirm(&self, boot: BootId, pings: mpsc::Sender<Command>) -> Confirm {
        let clock = self.clock.clone();
        let lease = self.lease.subscribe();
        Arc::new(move || {
            let (clock, pings, mut lease) = (clock.clone(), pings.clone(), lease.clone());
            Box::pin(async move {
                let asked = clock.now();
                // Where the queue is full a ping is due anyway.
                let _ = pings.try_send(Command::Ping);
                let told = |(of, until): &(BootId, Time)| *of != boot || *until >= asked + LEASE;
                let answer = tokio::time::timeout(CONFIRM, lease.wait_for(told)).await;
                answer.is_ok_and(|seen| seen.is_ok_and(|seen| seen.0 == boot))
            })
        })
    }
}

// === impl Serving ===

impl Serving {
    /// What a `Hello` says. Host names of endpoints are resolved here, once; an endpoint on no particular host is where the
    /// agent is. Relay endpoints are dialled by `relays`.
    pub(super) async fn from_hello(peer: &Peer, hello: &v1::Hello, relays: &Connector) -> Self {
        let pod_uid: Arc<str> = hello.pod_uid.as_str().into();
        let gone = peer.host.gone(&pod_uid);
        let confirm = peer.host.confirm(hello.boot_id, peer.commands.clone());
        let key = (Arc::from(hello.instance_id.as_str()), pod_uid);
        let mut endpoints = [None, None];
        for endpoint in &hello.endpoints {
            let (at, connector) = match endpoint.kind() {
                Kind::Direct => (0, Connector::plaintext()),
                Kind::Relay => (1, relays.clone()),
                Kind::Unspecified => continue,
            };
            if endpoints[at].is_none() {
                let address = resolve(&endpoint.address, &peer.listed.address).await;
                endpoints[at] = address.map(|address| {
                    let (key, confirm, gone) = (key.clone(), confirm.clone(), gone.clone());
                    Arc::new(Target { key, address, connector, confirm, gone })
                });
            }
        }
        let [direct, relay] = endpoints;
        let paths = |method: &v1::Method| {
            let paths = Paths { request: path(&method.request_path), response: path(&method.response_path) };
            (method.name.trim_start_matches('/').into(), paths)
        };
        Self {
            boot: hello.boot_id,
            load_timeout: match hello.load_timeout_millis {
                0 => LOAD_TIMEOUT,
                millis => Duration::from_millis(millis),
            },
            relayed: AtomicBool::new(direct.is_none()),
            direct,
            relay,
            methods: hello.methods.iter().map(paths).collect(),
            allow_any: hello.allow_any_method,
        }
    }

    /// The endpoint to use, if there is one.
    #[must_use]
    pub fn target(&self) -> Option<&Arc<Target>> {
        let relayed = self.relayed.load(Ordering::Relaxed);
        self.relay.as_ref().filter(|_| relayed).or(self.direct.as_ref()).or(self.relay.as_ref())
    }

    /// The endpoint could not be connected: the relay is used from now on where there is one. Returns whether that is new.
    pub fn cannot_connect(&self, address: SocketAddr) -> bool {
        let was_direct = self.direct.as_ref().is_some_and(|direct| direct.address == address);
        was_direct && self.relay.is_some() && !self.relayed.swap(true, Ordering::Relaxed)
    }

    /// Whether the runtime names the method among those that carry the id.
    #[must_use]
    pub fn names(&self, method: &str) -> bool {
        self.methods.get(method).is_some_and(|paths| !paths.request.is_empty())
    }

    /// How a method carries the id; `None` = it may not be called.
    #[must_use]
    pub fn paths(&self, method: &str) -> Option<Paths> {
        match self.methods.get(method) {
            Some(paths) => Some(paths.clone()),
            None if self.methods.is_empty() || self.allow_any => Some(Paths::usual(method)),
            None => None,
        }
    }
}

// === impl Paths ===

impl Paths {
    /// KServe v2, where the runtime says nothing of a method.
    #[must_use]
    pub fn usual(method: &str) -> Self {
        let name: Arc<[u32]> = Arc::from([1]);
        match method.strip_prefix("inference.GRPCInferenceService/") {
            Some("ModelInfer" | "ModelMetadata") => Self { request: name.clone(), response: name },
            Some("ModelConfig") => Self { request: name, response: Arc::from([1, 1]) },
            // The first differs between servers, the second has no name, the third has a list of them.
            Some("ModelStreamInfer" | "ModelReady" | "ModelStatistics") => {
                Self { request: name, response: Arc::default() }
            }
            _ => Self::default(),
        }
    }
}

/// Where an endpoint is; one on no particular host (`0.0.0.0`) is on the host of the agent.
async fn resolve(address: &str, agent: &str) -> Option<SocketAddr> {
    let unspecified = address.parse::<SocketAddr>().ok().filter(|address| address.ip().is_unspecified());
    let beside = unspecified.and_then(|address| Some(format!("{}:{}", agent.rsplit_once(':')?.0, address.port())));
    match tokio::net::lookup_host(beside.as_deref().unwrap_or(address)).await {
        Ok(mut addresses) => addresses.next(),
        Err(error) => {
            tracing::warn!(address, %error, "data endpoint is no address");
            None
        }
    }
}

/// A path of field numbers that protobuf knows; another one is none.
fn path(fields: &[u32]) -> Arc<[u32]> {
    let known = fields.iter().all(|field| (1..=0x1fff_ffff).contains(field));
    if known { Arc::from(fields) } else { Arc::default() }
}
