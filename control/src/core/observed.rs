//! What observers are told beside the table: which table each proxy has in force, and how much models are used.

use std::{cmp::Reverse, collections::HashMap, time::Duration};

use modelring_placement::{id::ModelId, time::Time};
use modelring_proto::v1::{CopyUsage, ModelHeat, Observed};

use super::Core;

/// Time between two tellings.
const EVERY: Duration = Duration::from_secs(1);
/// Rates forget a call within about so long.
const MEMORY: f64 = 10.0;
/// What has not been used for so long is not told.
const COLD: Duration = Duration::from_secs(60 * 60);
/// Models that are told, most; the hottest.
const MOST: usize = 1_000;

/// Use of models.
#[derive(Debug, Default)]
pub(super) struct Heats {
    models: HashMap<ModelId, Heat>,
    told: Option<Time>,
}

#[derive(Clone, Copy, Debug)]
struct Heat {
    used: Time,
    /// Calls, those of long ago forgotten; as of `used`.
    calls: f64,
    in_flight: u32,
}

// === impl Heats ===

impl Heats {
    /// A proxy has told of a copy.
    pub(super) fn report(&mut self, now: Time, model: &ModelId, usage: &CopyUsage) {
        let heat = self.models.entry(model.clone()).or_insert(Heat { used: now, calls: 0.0, in_flight: 0 });
        *heat = Heat { used: now, calls: heat.calls(now) + usage.requests as f64, in_flight: usage.in_flight };
    }

    /// The hottest models, hottest first; forgets the cold ones and those that are in no table.
    fn hottest(&mut self, now: Time, is_known: impl Fn(&ModelId) -> bool) -> Vec<ModelHeat> {
        self.models.retain(|model, heat| now.since(heat.used) < COLD && is_known(model));
        let mut hottest: Vec<_> = self.models.iter().collect();
        let order = |heat: &Heat| Reverse(((heat.calls(now) * 1e3) as u64, heat.used));
        hottest.sort_unstable_by(|(a, hot_a), (b, hot_b)| order(hot_a).cmp(&order(hot_b)).then_with(|| a.cmp(b)));
        let told = hottest.into_iter().take(MOST).map(|(model, heat)| ModelHeat {
            model: model.to_string(),
            age_millis: u64::try_from(now.since(heat.used).as_millis()).unwrap_or(u64::MAX),
            calls_per_second: heat.calls(now) / MEMORY,
            in_flight: if now.since(heat.used) > EVERY * 3 { 0 } else { heat.in_flight },
        });
        told.collect()
    }
}

// === impl Heat ===

impl Heat {
    fn calls(&self, now: Time) -> f64 {
        self.calls * (-now.since(self.used).as_secs_f64() / MEMORY).exp()
    }
}

// === impl Core ===

impl Core {
    /// Tells observers how it stands, if there are any and it is time.
    pub(super) fn tell_observers(&mut self) {
        let now = self.now();
        if self.observed.receiver_count() == 0 {
            // The next observer begins with nothing rather than with what was once.
            self.heats.told = None;
            self.observed.send_if_modified(|last| std::mem::take(last) != Observed::default());
            return;
        }
        if self.heats.told.is_some_and(|told| now.since(told) < EVERY) {
            return;
        }
        self.heats.told = Some(now);
        let models = &self.published.table().models;
        let heat = self.heats.hottest(now, |model| models.contains_key(model.as_str()));
        let next = Observed { proxies: self.proxies.states(), models: heat };
        self.observed.send_if_modified(|last| {
            let changed = *last != next;
            *last = next;
            changed
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_used_models_come_first_and_the_cold_are_forgotten() {
        let mut heats = Heats::default();
        let calls = |requests| CopyUsage { requests, in_flight: 2, ..CopyUsage::default() };
        for second in 1..=60 {
            heats.report(Time::from_millis(second * 1000), &"hot".into(), &calls(50));
            if second == 30 {
                heats.report(Time::from_millis(second * 1000), &"warm".into(), &calls(1));
            }
        }
        let now = Time::from_millis(60_000);
        let told = heats.hottest(now, |_| true);
        assert_eq!(told.iter().map(|heat| heat.model.as_str()).collect::<Vec<_>>(), ["hot", "warm"]);
        assert!((45.0..60.0).contains(&told[0].calls_per_second), "{told:?}");
        assert_eq!((told[0].in_flight, told[1].in_flight, told[1].age_millis), (2, 0, 30_000));
        assert!(heats.hottest(now + COLD, |_| true).is_empty());
    }
}
