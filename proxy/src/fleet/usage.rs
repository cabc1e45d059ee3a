//! What control is told of the calls: per copy that served, per model that was waited for.

use std::{collections::HashMap, time::Duration};

use modelring_placement::id::ModelId;
use modelring_proto::v1;
use parking_lot::Mutex;

/// Models whose holds are told apart between two reports; more are counted only as calls of their copies.
const MODELS: usize = 16_384;

/// Holds since the last report.
#[derive(Default)]
pub struct Holds(Mutex<HashMap<ModelId, (u64, Duration)>>);

// === impl Holds ===

impl Holds {
    /// A call for this model was held so long.
    pub fn held(&self, model: &ModelId, took: Duration) {
        let mut holds = self.0.lock();
        if holds.len() >= MODELS && !holds.contains_key(model) {
            return;
        }
        let (calls, sum) = holds.entry(model.clone()).or_default();
        *calls += 1;
        *sum += took;
    }

    /// The report, and begins the next.
    pub(super) fn take(&self) -> Vec<v1::ModelUsage> {
        let holds = std::mem::take(&mut *self.0.lock());
        let report = holds.into_iter().map(|(model, (held, sum))| v1::ModelUsage {
            model: model.to_string(),
            held,
            hold_micros: u64::try_from(sum.as_micros()).unwrap_or(u64::MAX),
        });
        report.collect()
    }
}
