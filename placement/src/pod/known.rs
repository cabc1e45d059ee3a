//! What models were last found to need here, so that a load that nobody waits for can be refused without being shown as
//! queued and sized first: control asks again and again, and every watcher would hear of each time.
//!
//! A model may have become smaller: what is remembered ends after [`COUNTS`], and counts for nothing where callers wait.

use std::{collections::BTreeMap, time::Duration};

use crate::{id::ModelId, time::Time};

/// How long a size counts.
const COUNTS: Duration = Duration::from_secs(10 * 60);
/// Most sizes; beyond, the oldest is forgotten.
const MOST: usize = 10_000;

#[derive(Debug, Default)]
pub(super) struct Known {
    sizes: BTreeMap<ModelId, (Time, u64)>,
}

// === impl Known ===

impl Known {
    /// A model needs so many bytes.
    pub(super) fn learn(&mut self, now: Time, model: &ModelId, bytes: u64) {
        if self.sizes.len() >= MOST && !self.sizes.contains_key(model) {
            let oldest = self.sizes.iter().min_by_key(|(_, (at, _))| *at).map(|(model, _)| model.clone());
            oldest.map(|oldest| self.sizes.remove(&oldest));
        }
        self.sizes.insert(model.clone(), (now, bytes));
    }

    /// What it needs, if that was found out lately.
    pub(super) fn get(&self, now: Time, model: &ModelId) -> Option<u64> {
        self.sizes.get(model).filter(|(at, _)| *at + COUNTS > now).map(|(_, bytes)| *bytes)
    }

    /// Nothing is known any more.
    pub(super) fn clear(&mut self) {
        self.sizes.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_of_too_many_sizes_is_forgotten_and_each_after_ten_minutes() {
        let mut known = Known::default();
        let id = |n: usize| ModelId::from(format!("m{n}"));
        for n in 0..=MOST {
            known.learn(Time::from_millis(n as u64), &id(n), 7);
        }
        let now = Time::from_millis(20_000);
        assert_eq!((known.sizes.len(), known.get(now, &id(0)), known.get(now, &id(MOST))), (MOST, None, Some(7)));
        assert_eq!(known.get(Time::from_millis(610_000), &id(MOST)), None);
    }
}
