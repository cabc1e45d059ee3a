//! The core alone, without network and disk: that what is derived bit by bit is what is derived as a whole, and what a
//! change costs among many services. Times are printed, not judged
//! (`cargo nextest run -p modelring-control --test derive --no-capture`).
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::AtomicU64, atomic::Ordering},
    time::{Duration, Instant},
};

use modelring_control::{
    Config, Error,
    core::{Answer, Ask, Core, Event, Heard, Outside, ProxyMessage, Table},
    crd::{InferenceService, ServingRuntime},
    source::{ActiveMemory, ActiveRecord, Desired, InstanceSpec},
};
use modelring_placement::time::Time;
use modelring_proto::v1::{
    AgentEvent, CopyState, CopyUsage, Hello, Hints, Leaving, LedgerState, Pong, SnapshotEnd, Usage, agent_event,
    copy_state::State,
};
use parking_lot::Mutex;
use proptest::prelude::*;
use serde_json::json;
use tokio::sync::watch;

const SERVICES: usize = 20_000;
const AGENTS: usize = 10;
/// Ready copies on each agent.
const COPIES: usize = 200;

/// Keeps nothing, and lets all happen.
struct Nothing;

struct Quiet {
    nanos: Arc<AtomicU64>,
    hints: HintsByAddress,
}

type HintsByAddress = Arc<Mutex<BTreeMap<String, watch::Receiver<Hints>>>>;

struct Bench {
    core: Core,
    nanos: Arc<AtomicU64>,
    hints: HintsByAddress,
    desired: Desired,
}

impl ActiveMemory for Nothing {
    fn read(&self) -> Result<BTreeMap<String, ActiveRecord>, Error> {
        Ok(BTreeMap::new())
    }
    fn write(&self, _: &str, _: &ActiveRecord, _: bool) -> Result<(), Error> {
        Ok(())
    }
    fn remove(&self, _: &str) -> Result<(), Error> {
        Ok(())
    }
    fn epoch(&self) -> Result<u64, Error> {
        Ok(1)
    }
    fn next_epoch(&self, _: u64) -> Result<u64, Error> {
        Ok(1)
    }
}

impl Outside for Quiet {
    fn now(&self) -> Time {
        Time::from_nanos(self.nanos.load(Ordering::Relaxed))
    }
    fn watch(&mut self, address: &str, hints: watch::Receiver<Hints>) -> Result<(), String> {
        self.hints.lock().insert(address.to_owned(), hints);
        Ok(())
    }
    fn unwatch(&mut self, address: &str) {
        self.hints.lock().remove(address);
    }
    fn ask(&mut self, _: &str, _: Ask) {}
}

fn service(n: usize, path: &str) -> (String, Arc<InferenceService>) {
    let name = format!("service-{n:05}");
    let spec = json!({
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": name, "annotations": {"serving.kserve.io/deploymentMode": "ModelMesh"}},
        "spec": {"predictor": {"model": {"modelFormat": {"name": "onnx"}, "storage": {"key": "k", "path": path}}}},
    });
    (name, Arc::new(serde_json::from_value(spec).unwrap()))
}

fn runtime() -> ServingRuntime {
    serde_json::from_value(json!({
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": "ServingRuntime",
        "metadata": {"name": "small"},
        "spec": {
            "multiModel": true, "containers": [], "protocolVersions": ["grpc-v2"],
            "supportedModelFormats": [{"name": "onnx", "autoSelect": true}],
        },
    }))
    .unwrap()
}

fn address(agent: usize) -> String {
    format!("127.0.0.1:{}", 20_000 + agent)
}

impl Bench {
    fn new(services: usize, agents: usize) -> Self {
        let nanos = Arc::new(AtomicU64::new(1));
        let hints = HintsByAddress::default();
        let config = Config {
            dir: "/nowhere".into(),
            listen: "127.0.0.1:0".parse().unwrap(),
            namespace: "default".to_owned(),
            instances: Vec::new(),
            built_in_runtimes: Vec::new(),
            dataplane: Default::default(),
            tls: None,
        };
        let outside = Quiet { nanos: nanos.clone(), hints: hints.clone() };
        let core = Core::over(config, Arc::new(Nothing), Box::new(outside)).unwrap();
        let spec = InstanceSpec { runtime: "small".to_owned(), ..InstanceSpec::default() };
        let desired = Desired {
            inference_services: (0..services).map(|n| service(n, "one")).collect(),
            runtimes: BTreeMap::from([("small".to_owned(), Arc::new(runtime()))]),
            instances: (0..agents).map(|agent| (address(agent), spec.clone())).collect(),
            ..Desired::default()
        };
        Self { core, nanos, hints, desired }
    }

    fn timed(&mut self, what: &str, event: Event) {
        let began = Instant::now();
        self.core.handle(event).unwrap();
        let handled = began.elapsed();
        self.core.evaluate().unwrap();
        println!("{what}: taken in {handled:?}, derived in {:?}", began.elapsed().saturating_sub(handled));
    }

    fn says(&mut self, agent: usize, seq: u64, event: agent_event::Event) {
        let heard = Heard::Said(AgentEvent { seq, event: Some(event) });
        self.core.handle(Event::Agent { address: address(agent), heard }).unwrap();
    }

    fn hears(&mut self, agent: usize, heard: Heard) {
        self.core.handle(Event::Agent { address: address(agent), heard }).unwrap();
    }

    /// An agent says what it holds, under a lease.
    fn hello(&mut self, agent: usize, seq: u64, models: &[String]) {
        let hello = Hello {
            protocol: 1,
            instance_id: format!("i{agent}"),
            boot_id: 1,
            namespace: "default".to_owned(),
            runtime: "small".to_owned(),
            ..Hello::default()
        };
        self.says(agent, seq, agent_event::Event::Hello(hello));
        for (n, model) in models.iter().enumerate() {
            self.says(agent, seq + n as u64 + 1, copy(model, State::Ready));
        }
        let last = seq + models.len() as u64;
        self.says(agent, last, agent_event::Event::SnapshotEnd(SnapshotEnd {}));
        self.says(agent, last, agent_event::Event::Ledger(LedgerState { capacity: 1 << 40, ..Default::default() }));
        self.ping_one(agent, last);
    }

    fn ping_one(&mut self, agent: usize, seq: u64) {
        self.hears(agent, Heard::PingSent(seq));
        self.says(agent, seq, agent_event::Event::Pong(Pong { n: seq }));
    }
}

fn copy(model: &str, state: State) -> agent_event::Event {
    agent_event::Event::Copy(CopyState {
        model: model.to_owned(),
        state: state.into(),
        bytes: 1000,
        ..Default::default()
    })
}

#[test]
fn a_change_of_one_service_among_twenty_thousand_changes_one_entry() {
    let mut bench = Bench::new(SERVICES, AGENTS);
    bench.nanos.fetch_add(6_000_000_000, Ordering::Relaxed);
    let all = bench.desired.clone();
    bench.core.handle(Event::Desired(all.clone())).unwrap();
    bench.nanos.fetch_add(6_000_000_000, Ordering::Relaxed);
    bench.timed("the same state and the first table", Event::Desired(all));
    // Not shared: a table that is being sent to a proxy is copied at the next change.
    let before = BTreeMap::clone(&bench.core.published().vmodels);
    assert_eq!(before.len(), SERVICES);
    let models: Vec<String> = before.values().map(|vmodel| vmodel.active.clone()).collect();
    for agent in 0..AGENTS {
        bench.hello(agent, 0, &models[agent * COPIES..][..COPIES]);
    }
    bench.timed("all agents say what they hold", Event::Desired(bench.desired.clone()));
    bench.timed("nothing", Event::Desired(bench.desired.clone()));

    let (name, changed) = service(7, "two");
    bench.desired.inference_services.insert(name.clone(), changed);
    bench.timed("one service changes", Event::Desired(bench.desired.clone()));
    let after = bench.core.published();
    let others = after.vmodels.iter().filter(|(of, vmodel)| **of != name && before.get(*of) != Some(vmodel));
    assert_eq!(others.count(), 0);
    assert!(!after.vmodels[&name].target.is_empty());

    let heard = |model: &str, seq, state| {
        let heard = Heard::Said(AgentEvent { seq, event: Some(copy(model, state)) });
        Event::Agent { address: address(0), heard }
    };
    bench.timed("a copy of another begins to load", heard(&models[9000], 1001, State::Loading));
    bench.timed("it is ready", heard(&models[9000], 1002, State::Ready));

    let copies = (0..500).map(|n| CopyUsage {
        model: models[n].clone(),
        instance: "i0".to_owned(),
        requests: 10,
        busy_micros: 1000,
        ..CopyUsage::default()
    });
    let usage = Usage { copies: copies.collect(), models: Vec::new() };
    bench.timed("a proxy reports 500 copies", Event::Proxy(ProxyMessage::Usage { usage }));
    bench.nanos.fetch_add(Duration::from_millis(250).as_nanos() as u64, Ordering::Relaxed);
    let began = Instant::now();
    bench.core.evaluate().unwrap();
    println!("a tick: {:?}", began.elapsed());
}

/// Something that happens to a small mesh.
#[derive(Clone, Debug)]
enum Happening {
    Service { n: usize, path: usize, min: u32 },
    Removed(usize),
    Runtime(bool),
    Hello(usize),
    Copy { agent: usize, model: usize, state: State },
    Ledger { agent: usize, hung: u32, free: bool },
    Leaves(usize),
    Ended(usize),
    Refused(usize),
    Asked { model: usize, agent: usize, loaded: bool },
    Usage { model: usize, saturated: bool },
    Time(u64),
}

fn happening() -> impl Strategy<Value = Happening> {
    let state = prop_oneof![
        3 => Just(State::Ready),
        1 => Just(State::Loading),
        1 => Just(State::Queued),
        1 => Just(State::Draining),
        1 => Just(State::Failed),
        1 => Just(State::Gone),
    ];
    prop_oneof![
        2 => (0_usize..4, 0_usize..3, 0_u32..3).prop_map(|(n, path, min)| Happening::Service { n, path, min }),
        1 => (0_usize..4).prop_map(Happening::Removed),
        1 => any::<bool>().prop_map(Happening::Runtime),
        2 => (0_usize..3).prop_map(Happening::Hello),
        8 => (0_usize..3, 0_usize..13, state)
            .prop_map(|(agent, model, state)| Happening::Copy { agent, model, state }),
        1 => (0_usize..3, 0_u32..2, any::<bool>())
            .prop_map(|(agent, hung, free)| Happening::Ledger { agent, hung, free }),
        1 => (0_usize..3).prop_map(Happening::Leaves),
        1 => (0_usize..3).prop_map(Happening::Ended),
        1 => (0_usize..3).prop_map(Happening::Refused),
        2 => (0_usize..12, 0_usize..3, any::<bool>())
            .prop_map(|(model, agent, loaded)| Happening::Asked { model, agent, loaded }),
        2 => (0_usize..12, any::<bool>()).prop_map(|(model, saturated)| Happening::Usage { model, saturated }),
        4 => (1_u64..20_000).prop_map(Happening::Time),
    ]
}

impl Bench {
    /// What proxies and agents are told.
    fn told(&self) -> (Table, Vec<Hints>) {
        let hints = self.hints.lock().values().map(|hints| hints.borrow().clone()).collect();
        (self.core.published().clone(), hints)
    }

    fn happens(&mut self, happening: &Happening, models: &[String], seq: u64) {
        let refused = |text: &str| Answer::Refused {
            reason: modelring_proto::v1::refused::Reason::Full,
            retry_after: Duration::ZERO,
            text: text.to_owned(),
        };
        match happening {
            Happening::Service { n, path, min } => {
                let (name, manifest) = service(*n, ["one", "two", "three"][*path]);
                let mut manifest = InferenceService::clone(&manifest);
                let annotations = manifest.metadata.annotations.get_or_insert_default();
                annotations.insert("modelring.dev/min-copies".to_owned(), min.to_string());
                self.desired.inference_services.insert(name, Arc::new(manifest));
                self.core.handle(Event::Desired(self.desired.clone())).unwrap();
            }
            Happening::Removed(n) => {
                self.desired.inference_services.remove(&service(*n, "one").0);
                self.core.handle(Event::Desired(self.desired.clone())).unwrap();
            }
            Happening::Runtime(there) => {
                self.desired.runtimes.clear();
                self.desired.runtimes.extend(there.then(|| ("small".to_owned(), Arc::new(runtime()))));
                self.core.handle(Event::Desired(self.desired.clone())).unwrap();
            }
            Happening::Hello(agent) => self.hello(*agent, seq, &[]),
            Happening::Copy { agent, model, state } => {
                let stranger = "stranger__isvc-0".to_owned();
                self.says(*agent, seq, copy(models.get(*model).unwrap_or(&stranger), *state));
            }
            Happening::Ledger { agent, hung, free } => {
                let next_victim_age_millis = (!free).then_some(1000);
                let loaded = if *free { 0 } else { 100 };
                let ledger =
                    LedgerState { capacity: 100, loaded, hung: *hung, next_victim_age_millis, ..Default::default() };
                self.says(*agent, seq, agent_event::Event::Ledger(ledger));
            }
            Happening::Leaves(agent) => self.says(*agent, seq, agent_event::Event::Leaving(Leaving {})),
            Happening::Ended(agent) => self.hears(*agent, Heard::Ended),
            Happening::Refused(agent) => {
                self.hears(*agent, Heard::Unreachable { refused: true, text: "nobody".to_owned() });
            }
            Happening::Asked { model, agent, loaded } => {
                let answer = if *loaded { Answer::Loaded { boot: 1, seq } } else { refused("full") };
                let place = (models[*model].as_str().into(), format!("i{agent}").into());
                self.core.handle(Event::Asked { place, makes_room_for: None, answer }).unwrap();
            }
            Happening::Usage { model, saturated } => {
                let copy = CopyUsage {
                    model: models[*model].clone(),
                    instance: "i0".to_owned(),
                    requests: 1,
                    saturated: *saturated,
                    ..CopyUsage::default()
                };
                let usage = Usage { copies: vec![copy], models: Vec::new() };
                self.core.handle(Event::Proxy(ProxyMessage::Usage { usage })).unwrap();
            }
            Happening::Time(millis) => {
                self.nanos.fetch_add(millis * 1_000_000, Ordering::Relaxed);
                if millis % 3 > 0 {
                    (0..3).for_each(|agent| self.ping_one(agent, seq));
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn what_is_derived_bit_by_bit_is_what_is_derived_as_a_whole(
        happenings in proptest::collection::vec(happening(), 1..60),
    ) {
        let mut bench = Bench::new(3, 3);
        let desired = bench.desired.clone();
        bench.core.handle(Event::Desired(desired)).unwrap();
        (0..3).for_each(|agent| bench.hello(agent, 0, &[]));
        let ids = |n| ["one", "two", "three"].map(|path| model_id(n, path));
        let models: Vec<String> = (0..4).flat_map(ids).collect();
        for (happening, seq) in happenings.iter().zip(1..) {
            bench.happens(happening, &models, seq);
            // A change may take several steps, each of which waits for the table with the one before.
            for _ in 0..8 {
                bench.core.evaluate().unwrap();
            }
            let told = bench.told();
            bench.core.derive_all();
            bench.core.evaluate().unwrap();
            let whole = bench.told();
            prop_assert_eq!(&told.1, &whole.1, "hints after {:?}", happening);
            prop_assert_eq!(&told.0, &whole.0, "table after {:?}", happening);
            prop_assert!(whole.0.models.values().all(|model| whole.0.classes.contains_key(&model.class)));
            prop_assert!(whole.0.wanted.keys().all(|model| whole.0.models.contains_key(model)));
            prop_assert_eq!(whole.0.classes.is_empty(), whole.0.models.is_empty());
        }
    }
}

/// The id of the model of a service at a path.
fn model_id(n: usize, path: &str) -> String {
    modelring_control::convert::convert(&service(n, path).1).unwrap().model.id
}
