//! A pod whose answers of storage and server are given by hand.

use std::{collections::BTreeMap, time::Duration};

use modelring_placement::{
    id::{ModelId, ModelRef, Seq, WatcherId},
    pod::{
        Action, Attempt, Change, CopyState, Event, EvictionPolicy, Hints, LoadError, LoadedModel, Pod, ServerLimits,
        Settings, Told, Touch, WaiterId, Why,
    },
    time::Time,
};

pub(crate) const BOOT: u64 = 7;

pub(crate) struct Kit {
    pub(crate) pod: Pod,
    pub(crate) now: Time,
    pub(crate) actions: Vec<Action>,
    waiters: WaiterId,
    attempts: BTreeMap<ModelId, Attempt>,
}

/// Settings of most tests: no churn guard, least recently used goes first, drains of 10 s, a first start.
pub(crate) fn settings() -> Settings {
    Settings {
        min_churn_age: Some(Duration::ZERO),
        eviction: EvictionPolicy::Lru,
        drain_timeout: secs(10),
        started_before: false,
    }
}

pub(crate) fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

pub(crate) fn id(model: &str) -> ModelId {
    ModelId::from(model)
}

pub(crate) fn reference(model: &str) -> ModelRef {
    ModelRef {
        id: id(model),
        model_type: "mt:onnx".to_owned(),
        path: format!("models/{model}"),
        key: "{}".to_owned(),
        size_hint: None,
        load_timeout: None,
    }
}

pub(crate) fn limits(capacity: u64, loading_concurrency: usize) -> ServerLimits {
    ServerLimits { capacity, loading_concurrency, load_timeout: secs(60), default_size: 10 }
}

pub(crate) fn error(text: &str, passing: bool) -> LoadError {
    LoadError { code: if passing { 14 } else { 3 }, text: text.to_owned(), passing }
}

// === impl Kit ===

impl Kit {
    /// A pod with 100 bytes and two loads at once.
    pub(crate) fn new() -> Self {
        Self::with(settings(), limits(100, 2))
    }

    pub(crate) fn with(settings: Settings, limits: ServerLimits) -> Self {
        let now = Time::from_millis(1_000_000);
        let pod = Pod::new(BOOT, settings, now);
        let mut kit = Self { pod, now, actions: Vec::new(), waiters: 0, attempts: BTreeMap::new() };
        kit.send(Event::ServerReady(1, limits));
        kit
    }

    pub(crate) fn send(&mut self, event: Event) -> &[Action] {
        self.actions = self.pod.handle(self.now, event);
        for action in &self.actions {
            if let Action::Size(model, attempt) = action {
                self.attempts.insert(model.id.clone(), *attempt);
            }
        }
        if let Some(wake) = self.pod.next_wake() {
            assert!(wake > self.now, "it wants to be woken at {wake}, now is {}", self.now);
        }
        &self.actions
    }

    /// Lets time pass and wakes the pod as often as it asks for; what it does on the way is collected.
    pub(crate) fn wait(&mut self, time: Duration) -> &[Action] {
        let end = self.now + time;
        let mut all = Vec::new();
        while let Some(wake) = self.pod.next_wake().filter(|wake| *wake <= end) {
            self.now = wake;
            all.extend_from_slice(self.send(Event::Tick));
        }
        self.now = end;
        all.extend_from_slice(self.send(Event::Tick));
        self.actions = all;
        &self.actions
    }

    pub(crate) fn ask(&mut self, model: &str) -> WaiterId {
        self.ask_as(model, Why::Waiter, None)
    }

    pub(crate) fn ask_as(&mut self, model: &str, why: Why, replaces: Option<&str>) -> WaiterId {
        self.waiters += 1;
        let waiter = self.waiters;
        self.send(Event::Ask { waiter, model: reference(model), why, replaces: replaces.map(id) });
        waiter
    }

    pub(crate) fn gone(&mut self, waiter: WaiterId) {
        self.send(Event::WaiterGone(waiter));
    }

    pub(crate) fn sized(&mut self, model: &str, bytes: u64) -> Attempt {
        let attempt = self.attempt(model);
        self.send(Event::Sized(id(model), attempt, Ok(bytes)));
        attempt
    }

    pub(crate) fn pulled(&mut self, model: &str, attempt: Attempt) {
        self.send(Event::Pulled(id(model), attempt, Ok(())));
    }

    pub(crate) fn loaded(&mut self, model: &str, attempt: Attempt, bytes: u64) {
        let loaded = LoadedModel { bytes: Some(bytes), concurrency_limit: 0 };
        self.send(Event::Loaded(id(model), attempt, Ok(loaded)));
    }

    /// Asks for a model and lets size, pull and load follow; it must be free to go all the way.
    pub(crate) fn load(&mut self, model: &str, bytes: u64) -> Attempt {
        let waiter = self.ask(model);
        let attempt = self.sized(model, bytes);
        self.pulled(model, attempt);
        self.loaded(model, attempt, bytes);
        assert!(matches!(self.told(waiter), Some(Told::Loaded { .. })), "{model} is not ready: {:?}", self.actions);
        attempt
    }

    pub(crate) fn unloaded(&mut self, model: &str, attempt: Attempt) {
        self.send(Event::Unloaded(id(model), attempt));
    }

    pub(crate) fn ping(&mut self, watcher: &str) {
        self.send(Event::Ping(WatcherId::from(watcher)));
    }

    pub(crate) fn ack(&mut self, watcher: &str, model: &str, seq: Seq) {
        self.send(Event::DrainAck { watcher: WatcherId::from(watcher), model: id(model), boot: BOOT, seq });
    }

    pub(crate) fn touch(&mut self, model: &str, in_flight: u32) {
        let touch = Touch { model: id(model), last_used: self.now, count: 1, in_flight };
        self.send(Event::Touches { watcher: WatcherId::from("p1"), touches: vec![touch] });
    }

    pub(crate) fn hint(&mut self, epoch: u64, keep: &[&str], surplus: &[&str], gone: &[&str]) {
        let ids = |models: &[&str]| models.iter().map(|model| id(model)).collect();
        self.send(Event::Hints(Hints { epoch, keep: ids(keep), surplus: ids(surplus), gone: ids(gone) }));
    }

    /// What the last event told a waiter.
    pub(crate) fn told(&self, waiter: WaiterId) -> Option<&Told> {
        self.actions.iter().rev().find_map(|action| match action {
            Action::Tell(to, told) if *to == waiter => Some(told),
            _ => None,
        })
    }

    /// The last attempt that began for a model.
    pub(crate) fn attempt(&self, model: &str) -> Attempt {
        *self.attempts.get(&id(model)).unwrap_or_else(|| panic!("nothing ever began for {model}"))
    }

    pub(crate) fn did(&self, which: impl Fn(&Action) -> bool) -> bool {
        self.actions.iter().any(which)
    }

    pub(crate) fn unloads(&self, model: &str) -> bool {
        self.did(|action| matches!(action, Action::Unload(of, _) if *of == id(model)))
    }

    /// States of a model that the last event made known, in order.
    pub(crate) fn shown(&self, model: &str) -> Vec<&CopyState> {
        let shown = self.actions.iter().filter_map(|action| match action {
            Action::Emit(change) if change.model == id(model) => Some(&change.state),
            _ => None,
        });
        shown.collect()
    }

    pub(crate) fn copy(&self, model: &str) -> Option<Change> {
        self.pod.copies().find(|copy| copy.model == id(model))
    }

    pub(crate) fn seq(&self, model: &str) -> Seq {
        self.copy(model).unwrap_or_else(|| panic!("no copy of {model}")).seq
    }

    pub(crate) fn state(&self, model: &str) -> &'static str {
        match self.copy(model).map(|copy| copy.state) {
            None | Some(CopyState::Gone) => "GONE",
            Some(CopyState::Queued) => "QUEUED",
            Some(CopyState::Loading { .. }) => "LOADING",
            Some(CopyState::Ready { .. }) => "READY",
            Some(CopyState::Draining { evict: true, .. }) => "DRAINING",
            Some(CopyState::Draining { evict: false, .. }) => "LEAVING",
            Some(CopyState::Failed { .. }) => "FAILED",
        }
    }

    /// Bytes loaded, reserved, unloading and overrun.
    pub(crate) fn account(&self) -> (u64, u64, u64, u64) {
        let ledger = self.pod.ledger(self.now);
        (ledger.loaded, ledger.reserved, ledger.unloading, ledger.overrun)
    }
}
