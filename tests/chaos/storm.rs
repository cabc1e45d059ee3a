//! Steady calls over more models than there is room for, steered so that loading takes about a third of the machine.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use harness::{
    Fleet, FleetSetup, Folder,
    fleet::{Call, Connection, Observer, Outcome, Pattern, Steady, model},
};
use modelring_proto::v1::copy_state::State;

use crate::kit::{DEADLINE, call_each, fleet};

/// Models that are called.
pub(crate) const MODELS: usize = 60;
/// Models for which each of three instances has room.
pub(crate) const ROOM: u64 = 8;
/// How long a load works at least.
const WORK: Duration = Duration::from_millis(20);
/// Between two looks at the rate.
const STEER: Duration = Duration::from_secs(1);
/// So many calls in flight mean that the machine does not keep up.
const BACKLOG: usize = 60;
/// How much of this machine loading should take.
const SHARE: f64 = 1.0 / 3.0;

/// A fleet under steady calls.
pub(crate) struct Storm {
    /// What is called.
    pub(crate) fleet: Fleet,
    /// What its agents say.
    pub(crate) observer: Arc<Observer>,
    /// When the calls began.
    pub(crate) begin: Instant,
    _folder: Folder,
    steady: Arc<Steady>,
    ending: Arc<AtomicBool>,
    steering: tokio::task::JoinHandle<()>,
}

/// Memory and descriptors of each process, by name.
pub(crate) type Resources = BTreeMap<String, (u64, usize)>;

// === impl Storm ===

impl Storm {
    /// Starts a fleet, and calls it for `warm` before anything is judged.
    pub(crate) async fn start(setup: FleetSetup, deadline: Duration, warm: Duration) -> Self {
        // The models load in a moment: a guard made for those that take seconds would let the calls wait for nothing.
        let agent_flags = ["--min-churn-age", "100ms"].map(ToOwned::to_owned).to_vec();
        let setup = FleetSetup { room: ROOM, load_work: WORK, agent_flags, ..setup };
        let (folder, fleet) = fleet(MODELS, setup).await;
        let observer = Arc::new(fleet.observe());
        for proxy in fleet.grpc() {
            call_each(&Connection::new(vec![proxy], 0), 0..2).await;
        }
        let steady = Arc::new(Steady::start(Pattern {
            proxies: fleet.grpc(),
            connections: 8,
            models: MODELS,
            skew: 0.9,
            rate: 40.0,
            deadline,
        }));
        let ending = Arc::new(AtomicBool::new(false));
        let steering = tokio::spawn(steer(steady.clone(), observer.clone(), ending.clone()));
        tokio::time::sleep(warm).await;
        Self { fleet, observer, begin: Instant::now(), _folder: folder, steady, ending, steering }
    }

    /// A storm as most tests want it.
    pub(crate) async fn usual(links: bool) -> Self {
        Self::start(FleetSetup { links, ..FleetSetup::default() }, DEADLINE, Duration::from_secs(4)).await
    }

    /// Calls that began since `since` and are over.
    pub(crate) fn calls_since(&self, since: Instant) -> Vec<Call> {
        self.steady.calls().into_iter().filter(|call| call.begin >= since).collect()
    }

    /// Loads so far.
    pub(crate) fn loads(&self) -> usize {
        self.observer.changes(State::Ready, "")
    }

    /// Memory and descriptors now, of the processes that run.
    pub(crate) fn resources(&self) -> Resources {
        self.fleet.parts().map(|part| (part.name.clone(), (part.rss_kib(), part.descriptors()))).collect()
    }

    /// Prints of some calls that got no answer what the agents said of their models meanwhile.
    fn explain(observer: &Observer, begin: Instant, calls: &[Call]) {
        for call in calls.iter().filter(|call| !call.is_right()).take(5) {
            let name = model(call.model);
            let after = call.begin.saturating_duration_since(begin);
            println!(
                "{name} through {:?}, {after:?} after the begin, took {:?}: {:?}",
                call.proxy,
                call.took(),
                call.outcome
            );
            for line in observer.history(&name, call.begin, call.end) {
                println!("    {line}");
            }
        }
    }

    /// Ends the calls, checks what must always hold, and gives the fleet and every call.
    pub(crate) async fn stop(self) -> (Fleet, Vec<Call>) {
        self.ending.store(true, Ordering::Relaxed);
        self.steering.await.expect("steering does not panic");
        let steady = Arc::into_inner(self.steady).expect("nobody else holds it");
        let calls = steady.stop().await;
        let wrong: Vec<_> = calls.iter().filter(|call| matches!(call.outcome, Outcome::Wrong(_))).collect();
        assert!(wrong.is_empty(), "answers of wrong models: {wrong:?}");
        Self::explain(&self.observer, self.begin, &calls);
        self.fleet.assert_spans();
        self.observer.assert_ledger();
        (self.fleet, calls)
    }
}

async fn steer(steady: Arc<Steady>, observer: Arc<Observer>, ending: Arc<AtomicBool>) {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from) as f64;
    let (mut rate, mut loads, mut at) = (40.0_f64, observer.changes(State::Ready, ""), Instant::now());
    while !ending.load(Ordering::Relaxed) {
        tokio::time::sleep(STEER).await;
        let now = observer.changes(State::Ready, "");
        let share = (now - loads) as f64 * WORK.as_secs_f64() / at.elapsed().as_secs_f64() / cpus;
        // A machine that does not keep up loads little: more calls would only queue.
        let change = if steady.in_flight() > BACKLOG { 0.7 } else { (SHARE / share.max(0.01)).clamp(0.7, 1.3) };
        rate = (rate * change).clamp(10.0, 120.0);
        steady.set_rate(rate);
        (loads, at) = (now, Instant::now());
    }
}

/// Checks that no process has more descriptors or much more memory than before.
pub(crate) fn assert_flat(before: &Resources, after: &Resources) {
    for (name, (rss, descriptors)) in after {
        let Some((rss_before, descriptors_before)) = before.get(name) else { continue };
        assert!(
            *descriptors <= descriptors_before + 24,
            "{name}: {descriptors_before} descriptors, then {descriptors}"
        );
        let most = rss_before + rss_before / 2 + 24 * 1024;
        assert!(*rss <= most, "{name}: {rss_before} KiB, then {rss} KiB");
    }
}
