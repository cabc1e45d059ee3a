//! A pod among proxies, a strict server and slow storage, where anything may happen in any order.

use std::collections::{BTreeMap, BTreeSet};

use modelring_placement::{
    id::{BootId, ModelId, Seq},
    pod::{Action, Attempt, CopyState, Event, Hints, LoadedModel, Pod, ServerLife, Settings, Told, WaiterId, Why},
    time::Time,
    view::ViewEvent,
};

use crate::{
    kit::{error, limits, reference, secs},
    proxy::{Delivered, Proxy},
    server::{Server, State},
};

pub(crate) const MODELS: [&str; 6] = ["a", "b", "c", "d", "e", "huge"];
const CAPACITY: u64 = 100;
const CONCURRENCY: usize = 2;

pub(crate) struct World {
    pub(crate) now: Time,
    pub(crate) pod: Pod,
    settings: Settings,
    boot: BootId,
    pub(crate) server: Server,
    /// The life that the pod was told of, and whether that process is there.
    life: ServerLife,
    up: bool,
    pub(crate) proxies: Vec<Proxy>,
    pub(crate) sizes: BTreeMap<ModelId, Attempt>,
    pub(crate) pulls: BTreeMap<ModelId, Attempt>,
    /// Bytes promised to loads.
    reserved: BTreeMap<ModelId, u64>,
    /// Who waits, and on whose behalf.
    pub(crate) waiters: BTreeMap<WaiterId, usize>,
    asked: WaiterId,
    draining: BTreeMap<ModelId, Time>,
    /// Beliefs up to this seq were ended without the proxies: by the drain timeout, NOT_FOUND or the end of the server.
    excused: BTreeMap<(BootId, ModelId), Seq>,
}

impl World {
    pub(crate) fn new(settings: Settings) -> Self {
        let now = Time::from_millis(1_000_000);
        let mut world = Self {
            now,
            pod: Pod::new(1, settings.clone(), now),
            settings,
            boot: 1,
            server: Server::default(),
            life: 0,
            up: false,
            proxies: ["p0", "p1"].map(|id| Proxy::new(id, now)).into(),
            sizes: BTreeMap::new(),
            pulls: BTreeMap::new(),
            reserved: BTreeMap::new(),
            waiters: BTreeMap::new(),
            asked: 0,
            draining: BTreeMap::new(),
            excused: BTreeMap::new(),
        };
        world.start_server();
        world
    }

    /// Hands an event to the pod, does what it wants done and looks at the rules.
    pub(crate) fn send(&mut self, event: Event) {
        let missing = matches!(event, Event::Missing { .. });
        let server_ended = match event {
            Event::ServerGone(life) => life == self.life,
            Event::ServerReady(..) => true,
            _ => false,
        };
        for action in self.pod.handle(self.now, event) {
            match action {
                Action::Size(model, attempt) => {
                    assert_eq!(self.sizes.insert(model.id, attempt), None, "sized twice at once");
                }
                Action::Pull(model, attempt) => {
                    assert_eq!(self.pulls.insert(model.id, attempt), None, "pulled twice at once");
                }
                Action::CancelPull(model, attempt) => {
                    let sizing = self.sizes.get(&model) == Some(&attempt) && self.sizes.remove(&model).is_some();
                    let pulling = self.pulls.get(&model) == Some(&attempt) && self.pulls.remove(&model).is_some();
                    assert!(sizing || pulling, "{model} is given up and not on its way");
                    self.reserved.remove(&model);
                }
                Action::Load(model, attempt) if self.up => self.server.load(&model.id, attempt, CONCURRENCY),
                Action::Unload(model, attempt) if self.up => {
                    self.excuse_if_forced(&model, missing);
                    self.server.unload(&model, attempt);
                }
                // The process is gone and the agent has not noticed yet.
                Action::Load(..) | Action::Unload(..) => {}
                Action::Emit(change) => {
                    self.note(&change.model, &change.state);
                    for proxy in self.proxies.iter_mut().filter(|proxy| proxy.open) {
                        let (seq, model, state) = (change.seq, change.model.clone(), change.state.clone());
                        proxy.down.push_back(ViewEvent::Copy { seq, model, state });
                    }
                }
                Action::Tell(waiter, told) => self.tell(waiter, told),
            }
        }
        if server_ended {
            self.reserved.clear();
            self.excuse_all();
        }
        self.check();
    }

    fn note(&mut self, model: &ModelId, state: &CopyState) {
        match state {
            CopyState::Draining { evict: true, .. } => drop(self.draining.insert(model.clone(), self.now)),
            CopyState::Loading { bytes } => {
                let taken = self.pod.ledger(self.now);
                assert!(taken.loaded + taken.reserved + taken.unloading <= CAPACITY, "granted beyond: {taken:?}");
                assert_eq!(self.reserved.insert(model.clone(), *bytes), None);
            }
            _ => {}
        }
    }

    fn tell(&mut self, waiter: WaiterId, told: Told) {
        let proxy = *self.waiters.get(&waiter).unwrap_or_else(|| panic!("{waiter} does not wait and is told {told:?}"));
        if let Told::Accepted { .. } = told {
            return;
        }
        self.waiters.remove(&waiter);
        if let Told::Loaded { seq } = told {
            let model = self.pod.copies().find(|copy| copy.seq == seq).map(|copy| copy.model);
            if let Some(model) = model {
                self.proxies[proxy].told.push_back((self.boot, seq, model));
            }
        }
    }

    /// An unload after the drain timeout, or of what is missing, does not wait for what proxies believe.
    fn excuse_if_forced(&mut self, model: &ModelId, missing: bool) {
        let timed_out = self.draining.get(model).is_some_and(|since| *since + self.settings.drain_timeout <= self.now);
        if missing || timed_out {
            self.excused.insert((self.boot, model.clone()), self.pod.last_seq());
        }
    }

    /// A call begins; where the view allows it, the server must hold the model.
    pub(crate) fn call(&mut self, proxy: usize, model: &ModelId) {
        let Some((boot, seq)) = self.proxies[proxy].call(self.now, model) else { return };
        let excused = !self.up || self.excused.get(&(boot, model.clone())).is_some_and(|last| seq <= *last);
        assert!(excused || self.server.serves(model), "a call goes to {model}, which is not there: {:?}", self.server);
    }

    pub(crate) fn deliver(&mut self, proxy: usize) -> bool {
        if self.proxies[proxy].wants_to_open() && !self.pod.server_ready() {
            // Until the handshake is done a stream stays silent: it waits in front of the door.
            return false;
        }
        match self.proxies[proxy].deliver(self.now, &self.pod) {
            None => return false,
            Some(Delivered::Nothing) => {}
            Some(Delivered::Event(event)) => self.send(event),
            Some(Delivered::Ping(event, n)) => {
                if !self.up && self.life > 0 {
                    self.send(Event::ServerGone(self.life));
                }
                self.send(event);
                if self.proxies[proxy].open {
                    self.proxies[proxy].down.push_back(ViewEvent::Pong(n));
                }
            }
        }
        true
    }

    pub(crate) fn ask(&mut self, proxy: usize, model: &str, why: Why, replaces: Option<&str>) {
        self.asked += 1;
        let waiter = self.asked;
        self.waiters.insert(waiter, proxy);
        self.send(Event::Ask { waiter, model: reference(model), why, replaces: replaces.map(ModelId::from) });
    }

    pub(crate) fn hang_up(&mut self, nth: usize) {
        let nth = self.waiters.keys().nth(nth % self.waiters.len().max(1)).copied();
        if let Some(waiter) = nth {
            self.waiters.remove(&waiter);
            self.send(Event::WaiterGone(waiter));
        }
    }

    pub(crate) fn answer_size(&mut self, nth: usize, bytes: Option<u64>) {
        let nth = self.sizes.keys().nth(nth % self.sizes.len().max(1)).cloned();
        let Some((model, attempt)) = nth.and_then(|model| self.sizes.remove_entry(&model)) else { return };
        let bytes = if model.as_str() == "huge" { Some(CAPACITY + 1) } else { bytes };
        self.send(Event::Sized(model, attempt, bytes.ok_or_else(|| error("storage is away", true))));
    }

    pub(crate) fn answer_pull(&mut self, nth: usize, ok: bool) {
        let nth = self.pulls.keys().nth(nth % self.pulls.len().max(1)).cloned();
        let Some((model, attempt)) = nth.and_then(|model| self.pulls.remove_entry(&model)) else { return };
        if !ok {
            self.reserved.remove(&model);
        }
        self.send(Event::Pulled(model, attempt, if ok { Ok(()) } else { Err(error("denied", false)) }));
    }

    pub(crate) fn answer_load(&mut self, nth: usize, bytes: Option<u64>) {
        let loading = self.server.with(|state| state == State::Loading);
        let Some(model) = loading.get(nth % loading.len().max(1)) else { return };
        let attempt = self.server.answer(model, bytes);
        self.reserved.remove(model);
        let loaded = bytes.map(|bytes| LoadedModel { bytes: Some(bytes), concurrency_limit: 0 });
        self.send(Event::Loaded(model.clone(), attempt, loaded.ok_or_else(|| error("bad model", false))));
    }

    pub(crate) fn confirm_unload(&mut self, nth: usize) {
        let unloading = self.server.with(|state| matches!(state, State::Unloading(_)));
        let Some(model) = unloading.get(nth % unloading.len().max(1)) else { return };
        let attempt = self.server.confirm(model);
        self.send(Event::Unloaded(model.clone(), attempt));
    }

    /// A proxy was told NOT_FOUND: rightly or not, once for what it believes.
    pub(crate) fn miss(&mut self, proxy: usize, model: &ModelId) {
        let Some(seen) = self.proxies[proxy].view.copy(model).cloned() else { return };
        self.send(Event::Missing { model: model.clone(), boot: seen.boot, seq: seen.seq });
    }

    pub(crate) fn hint(&mut self, epoch: u64, keep: u8, surplus: u8, gone: u8) {
        let set = |bits: u8| {
            let of = MODELS.iter().enumerate().filter(move |(n, _)| bits & (1 << n) != 0);
            of.map(|(_, model)| ModelId::from(*model)).collect()
        };
        self.send(Event::Hints(Hints { epoch, keep: set(keep), surplus: set(surplus), gone: set(gone) }));
    }

    /// The server process ends; the agent is told at the latest before its next pong.
    pub(crate) fn crash_server(&mut self) {
        self.up = false;
        self.server.crash();
    }

    pub(crate) fn start_server(&mut self) {
        let purging = self.pod.may_purge_at() > self.now;
        if !purging && (!self.up || !self.pod.server_ready()) {
            self.up = true;
            self.life += 1;
            self.send(Event::ServerReady(self.life, limits(CAPACITY, CONCURRENCY)));
        }
    }

    /// The agent notices that the process is gone.
    pub(crate) fn notice_the_server(&mut self) {
        if !self.up {
            self.send(Event::ServerGone(self.life));
        }
    }

    /// Answers that belong to an attempt that is over, or never was.
    pub(crate) fn stale(&mut self, model: &ModelId, attempt: Attempt) {
        if self.sizes.get(model) != Some(&attempt) {
            self.send(Event::Sized(model.clone(), attempt, Ok(1)));
        }
        if self.pulls.get(model) != Some(&attempt) {
            self.send(Event::Pulled(model.clone(), attempt, Ok(())));
        }
        if self.server.attempt(model) != Some(attempt) {
            let loaded = LoadedModel { bytes: Some(1), concurrency_limit: 0 };
            self.send(Event::Loaded(model.clone(), attempt, Ok(loaded)));
            self.send(Event::Unloaded(model.clone(), attempt));
        }
        self.send(Event::ServerGone(self.life + 7));
    }

    /// The agent's process is killed and starts anew; the server goes on with what it holds and does.
    pub(crate) fn restart_agent(&mut self) {
        self.boot += 1;
        self.settings.started_before = true;
        self.pod = Pod::new(self.boot, self.settings.clone(), self.now);
        self.life = 0;
        for proxy in &mut self.proxies {
            proxy.cut(self.now);
        }
        (self.sizes, self.pulls) = (BTreeMap::new(), BTreeMap::new());
        (self.reserved, self.waiters, self.draining) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    }

    /// After its time, a new agent has the server unload whatever it holds; nobody may believe in any of it.
    pub(crate) fn purge(&mut self) {
        if self.pod.server_ready() || self.pod.may_purge_at() > self.now {
            return;
        }
        let held: BTreeSet<_> = self.server.with(|_| true).into_iter().collect();
        for (proxy, model) in self.proxies.iter().flat_map(|proxy| held.iter().map(move |model| (proxy, model))) {
            if let Some(seen) = proxy.view.copy(model) {
                let excused = self.excused.get(&(seen.boot, model.clone())).is_some_and(|last| seen.seq <= *last);
                assert!(excused || !proxy.believes(self.now, model), "{model} is purged and believed in");
            }
        }
        self.server.crash();
        self.start_server();
    }

    pub(crate) fn wait(&mut self, millis: u64) {
        let end = self.now + std::time::Duration::from_millis(millis);
        while let Some(wake) = self.pod.next_wake().filter(|wake| *wake <= end) {
            assert!(wake > self.now || self.now == Time::ZERO, "woken at {wake}, now is {}", self.now);
            self.now = wake;
            self.send(Event::Tick);
        }
        self.now = end;
        self.send(Event::Tick);
    }

    /// Everything that is under way goes well until nothing is under way any more.
    pub(crate) fn settle(&mut self) {
        for _ in 0..600 {
            self.purge();
            self.start_server();
            for nth in 0..MODELS.len() {
                self.answer_size(nth, Some(30));
                self.answer_pull(nth, true);
                self.answer_load(nth, Some(30));
                self.confirm_unload(nth);
            }
            for proxy in 0..self.proxies.len() {
                MODELS.iter().for_each(|model| self.proxies[proxy].end_call(&ModelId::from(*model)));
                self.flow(proxy);
            }
            if self.is_settled() {
                return;
            }
            self.wait(1000);
        }
        panic!("it does not settle: {} wait, {:#?}", self.waiters.len(), self.pod);
    }

    /// A ping goes out, and all messages of a proxy arrive, both ways.
    pub(crate) fn flow(&mut self, proxy: usize) {
        self.proxies[proxy].ping(self.now);
        while self.deliver(proxy) || self.proxies[proxy].read(self.now) {}
    }

    fn is_settled(&self) -> bool {
        let ledger = self.pod.ledger(self.now);
        let idle = (ledger.reserved, ledger.unloading, ledger.overrun, ledger.queue) == (0, 0, 0, 0);
        let draining = self.pod.copies().any(|copy| matches!(copy.state, CopyState::Draining { evict: true, .. }));
        idle && !draining && self.waiters.is_empty() && self.pod.server_ready()
    }

    /// The account says what is there, and grants nothing beyond the capacity.
    fn check(&self) {
        let ledger = self.pod.ledger(self.now);
        if !self.pod.server_ready() || !self.up {
            return;
        }
        assert_eq!(ledger.reserved, self.reserved.values().sum::<u64>(), "{ledger:?}, {:?}", self.server);
        assert_eq!(ledger.loaded, self.server.loaded_bytes(), "{ledger:?}, {:?}", self.server);
        let unloading = self.server.with(|state| matches!(state, State::Unloading(_)));
        assert!(ledger.unloading == 0 || !unloading.is_empty(), "{ledger:?}, {:?}", self.server);
        let taken = ledger.loaded + ledger.reserved + ledger.unloading;
        assert_eq!(ledger.overrun, taken.saturating_sub(ledger.capacity));
    }

    fn excuse_all(&mut self) {
        for model in MODELS {
            self.excused.insert((self.boot, ModelId::from(model)), self.pod.last_seq());
        }
    }

    /// Settings that leave the churn guard on or off.
    pub(crate) fn settings(guard: bool, lru: bool) -> Settings {
        use modelring_placement::pod::EvictionPolicy::{Gdsf, Lru};
        Settings {
            min_churn_age: (!guard).then_some(secs(0)),
            eviction: if lru { Lru } else { Gdsf },
            drain_timeout: secs(10),
            started_before: false,
        }
    }
}
