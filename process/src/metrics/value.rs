//! Histograms with ModelMesh's buckets. Observing is two relaxed additions: no lock, no allocation.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// Upper bounds of a histogram.
#[derive(Debug)]
pub struct Buckets {
    /// In the unit that is observed, rising; each bound belongs to its bucket.
    pub bounds: &'static [u64],
    /// So many observed units are one of the unit that is shown.
    pub per: f64,
}

/// Milliseconds, observed in microseconds: 0.5 ms to 5 min.
pub static TIME: Buckets = Buckets {
    bounds: &[
        500,
        1_000,
        2_000,
        5_000,
        10_000,
        20_000,
        50_000,
        75_000,
        100_000,
        200_000,
        500_000,
        1_000_000,
        2_000_000,
        5_000_000,
        10_000_000,
        20_000_000,
        60_000_000,
        120_000_000,
        300_000_000,
    ],
    per: 1e3,
};

/// Milliseconds, observed in microseconds: 30 s to 90 days.
pub static AGE: Buckets = Buckets {
    bounds: &[
        30 * SECOND,
        5 * 60 * SECOND,
        15 * 60 * SECOND,
        3_600 * SECOND,
        4 * 3_600 * SECOND,
        12 * 3_600 * SECOND,
        DAY,
        7 * DAY,
        30 * DAY,
        90 * DAY,
    ],
    per: 1e3,
};

/// Bytes of a message: 128 B to 2 MiB.
pub static MESSAGE_SIZE: Buckets =
    Buckets { bounds: &[128, 512, 2_048, 8_192, 32_768, 131_072, 524_288, 2_097_152], per: 1.0 };

/// Bytes of a model: 256 KiB to 4 GiB.
pub static MODEL_SIZE: Buckets =
    Buckets { bounds: &[1 << 18, 1 << 20, 1 << 22, 1 << 24, 1 << 26, 1 << 28, 1 << 30, 1 << 32], per: 1.0 };

const SECOND: u64 = 1_000_000;
const DAY: u64 = 86_400 * SECOND;

/// Counts values by size.
#[derive(Debug)]
pub struct Histogram {
    buckets: &'static Buckets,
    /// One for each bound and one for what is above all.
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
}

/// What a histogram had counted at a moment; several of the same buckets can be added.
#[derive(Clone, Debug)]
pub struct Seen {
    buckets: &'static Buckets,
    counts: Vec<u64>,
    sum: u64,
}

// === impl Histogram ===

impl Histogram {
    /// Has counted nothing yet.
    #[must_use]
    pub fn new(buckets: &'static Buckets) -> Self {
        let counts = (0..=buckets.bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { buckets, counts, sum: AtomicU64::new(0) }
    }

    /// Counts a value.
    pub fn observe(&self, value: u64) {
        let at = self.buckets.bounds.partition_point(|bound| *bound < value);
        self.counts[at].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// Counts a time, in microseconds.
    pub fn observe_time(&self, took: Duration) {
        self.observe(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }

    /// What it has counted so far.
    #[must_use]
    pub fn seen(&self) -> Seen {
        let counts = self.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        Seen { buckets: self.buckets, counts, sum: self.sum.load(Ordering::Relaxed) }
    }
}

// === impl Seen ===

impl Seen {
    /// Adds what another one of the same buckets has counted.
    pub fn add(&mut self, other: &Self) {
        debug_assert!(std::ptr::eq(self.buckets, other.buckets), "histograms of different buckets");
        self.counts.iter_mut().zip(&other.counts).for_each(|(mine, theirs)| *mine += theirs);
        self.sum = self.sum.wrapping_add(other.sum);
    }

    /// Values counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Their sum, in the unit that is shown.
    #[must_use]
    pub fn sum(&self) -> f64 {
        self.sum as f64 / self.buckets.per
    }

    /// Upper bounds (in the unit that is shown; none = without end) and how many values are not above them.
    pub fn cumulated(&self) -> impl Iterator<Item = (Option<f64>, u64)> {
        let bounds = self.buckets.bounds.iter().map(|bound| Some(*bound as f64 / self.buckets.per)).chain([None]);
        let mut sum = 0;
        let counts = self.counts.iter().map(move |count| {
            sum += count;
            sum
        });
        bounds.zip(counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(buckets: &'static Buckets) -> Vec<f64> {
        Histogram::new(buckets).seen().cumulated().filter_map(|(bound, _)| bound).collect()
    }

    #[test]
    fn the_time_buckets_are_those_of_modelmesh() {
        let milliseconds =
            [0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 75.0, 100.0, 200.0, 500.0, 1e3, 2e3, 5e3, 1e4, 2e4, 6e4, 1.2e5, 3e5];
        assert_eq!(shown(&TIME), milliseconds);
    }

    #[test]
    fn the_age_buckets_are_those_of_modelmesh() {
        let minutes = [0.5, 5.0, 15.0, 60.0, 240.0, 720.0, 1440.0, 10_080.0, 43_200.0, 129_600.0];
        assert_eq!(shown(&AGE), minutes.map(|minutes| minutes * 60e3));
    }

    #[test]
    fn the_size_buckets_are_those_of_modelmesh() {
        let by_four = |from: f64| (0..8).map(|n| from * 4_f64.powi(n)).collect::<Vec<_>>();
        assert_eq!(shown(&MODEL_SIZE), by_four(256.0 * 1024.0));
        assert_eq!(shown(&MESSAGE_SIZE), by_four(128.0));
    }

    #[test]
    fn a_bound_belongs_to_its_bucket_and_histograms_add_up() {
        let (one, other) = (Histogram::new(&TIME), Histogram::new(&TIME));
        [0, 500, 501, 400_000_000].iter().for_each(|micros| one.observe(*micros));
        other.observe_time(Duration::from_millis(1));
        let mut seen = one.seen();
        seen.add(&other.seen());
        let counts: Vec<u64> = seen.cumulated().map(|(_, count)| count).collect();
        assert_eq!((counts[0], counts[1], counts[18], counts[19]), (2, 4, 4, 5));
        assert_eq!((seen.count(), seen.sum()), (5, 400_002.001));
    }
}
