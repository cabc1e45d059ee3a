//! How long loads of a type of model take, learned from those that were seen.
//!
//! The estimate is an upper one, as in ModelMesh ("assume loaded" age): at first max(3 s, load timeout / 3); after each of the
//! first three samples (2 x estimate + mean) / 3; then with every fourth sample mean + k x standard deviation, k = 5 up
//! to 20 samples, 3 beyond.

use std::{collections::HashMap, sync::Arc, time::Duration};

const LEAST_AT_FIRST: Duration = Duration::from_secs(3);
const FIRST_SAMPLES: u64 = 3;
const EVERY: u64 = 4;
const FEW_SAMPLES: u64 = 20;

/// The learned load time of one type.
#[derive(Clone, Debug, PartialEq)]
pub struct LoadTime {
    /// The estimate, seconds.
    estimate: f64,
    /// Loads seen.
    samples: u64,
    /// Their mean, seconds.
    mean: f64,
    /// Sum of their squared distances from the mean (Welford).
    squares: f64,
}

/// The learned load times by type. An entry per type that was ever loaded, no more than the table has types.
#[derive(Clone, Debug, Default)]
pub struct LoadTimes(HashMap<Arc<str>, LoadTime>);

// === impl LoadTime ===

impl LoadTime {
    /// What is believed before a load was seen: max(3 s, load timeout / 3).
    #[must_use]
    pub fn at_first(load_timeout: Duration) -> Duration {
        LEAST_AT_FIRST.max(load_timeout / 3)
    }

    /// Nothing learned yet, for models with this load timeout.
    #[must_use]
    pub fn new(load_timeout: Duration) -> Self {
        Self { estimate: Self::at_first(load_timeout).as_secs_f64(), samples: 0, mean: 0.0, squares: 0.0 }
    }

    /// How long a load may be expected to take at most.
    #[must_use]
    pub fn estimate(&self) -> Duration {
        Duration::try_from_secs_f64(self.estimate).unwrap_or(Duration::MAX)
    }

    /// A load took so long.
    pub fn observe(&mut self, took: Duration) {
        let took = took.as_secs_f64();
        self.samples += 1;
        let from_old = took - self.mean;
        self.mean += from_old / self.samples as f64;
        self.squares += from_old * (took - self.mean);
        if self.samples <= FIRST_SAMPLES {
            self.estimate = (2.0 * self.estimate + self.mean) / 3.0;
        } else if self.samples.is_multiple_of(EVERY) {
            let deviations = if self.samples <= FEW_SAMPLES { 5.0 } else { 3.0 };
            self.estimate = self.mean + deviations * (self.squares / self.samples as f64).max(0.0).sqrt();
        }
    }
}

// === impl LoadTimes ===

impl LoadTimes {
    /// How long a load of this type may be expected to take at most.
    #[must_use]
    pub fn estimate(&self, model_type: &str, load_timeout: Duration) -> Duration {
        self.0.get(model_type).map_or_else(|| LoadTime::at_first(load_timeout), LoadTime::estimate)
    }

    /// A load of this type took so long (LOADING to READY).
    pub fn observe(&mut self, model_type: &str, load_timeout: Duration, took: Duration) {
        match self.0.get_mut(model_type) {
            Some(known) => known.observe(took),
            None => {
                let mut new = LoadTime::new(load_timeout);
                new.observe(took);
                self.0.insert(model_type.into(), new);
            }
        }
    }
}
