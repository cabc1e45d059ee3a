//! A model server that takes nothing it should not be asked.

use std::collections::BTreeMap;

use modelring_placement::{id::ModelId, pod::Attempt};

#[derive(Debug, Default)]
pub(crate) struct Server {
    models: BTreeMap<ModelId, (Attempt, State)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Loading,
    /// Bytes.
    Loaded(u64),
    Failed,
    /// Bytes that are still in use.
    Unloading(u64),
}

impl Server {
    pub(crate) fn load(&mut self, model: &ModelId, attempt: Attempt, concurrency: usize) {
        let before = self.models.insert(model.clone(), (attempt, State::Loading));
        assert_eq!(before, None, "{model} is loaded a second time");
        let loading = self.models.values().filter(|(_, state)| *state == State::Loading).count();
        assert!(loading <= concurrency, "{loading} loads at once");
    }

    /// A load ends, with its bytes or in failure.
    pub(crate) fn answer(&mut self, model: &ModelId, bytes: Option<u64>) -> Attempt {
        let (attempt, state) = self.models.get_mut(model).expect("only loads that are under way are answered");
        assert_eq!(*state, State::Loading);
        *state = bytes.map_or(State::Failed, State::Loaded);
        *attempt
    }

    pub(crate) fn unload(&mut self, model: &ModelId, attempt: Attempt) {
        let (sent, state) = self.models.get_mut(model).unwrap_or_else(|| panic!("{model} is unloaded and not there"));
        assert_eq!(*sent, attempt, "{model}");
        *state = match *state {
            State::Loaded(bytes) => State::Unloading(bytes),
            State::Failed => State::Unloading(0),
            other => panic!("{model} is unloaded while {other:?}"),
        };
    }

    pub(crate) fn confirm(&mut self, model: &ModelId) -> Attempt {
        let (attempt, state) = self.models.remove(model).expect("only unloads that were sent are confirmed");
        assert!(matches!(state, State::Unloading(_)));
        attempt
    }

    /// The process is gone.
    pub(crate) fn crash(&mut self) {
        self.models.clear();
    }

    pub(crate) fn attempt(&self, model: &ModelId) -> Option<Attempt> {
        self.models.get(model).map(|(attempt, _)| *attempt)
    }

    pub(crate) fn serves(&self, model: &ModelId) -> bool {
        matches!(self.models.get(model), Some((_, State::Loaded(_))))
    }

    pub(crate) fn with(&self, which: impl Fn(State) -> bool) -> Vec<ModelId> {
        self.models.iter().filter(|(_, (_, state))| which(*state)).map(|(model, _)| model.clone()).collect()
    }

    pub(crate) fn loaded_bytes(&self) -> u64 {
        let loaded = self.models.values().map(|(_, state)| if let State::Loaded(bytes) = state { *bytes } else { 0 });
        loaded.sum()
    }
}
