//! The average latency of a copy.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use crate::time::Time;

/// What a failed call counts.
pub const FAILURE: Duration = Duration::from_secs(5);

/// Memory of the average: what is so old weighs 1/e.
const MEMORY: f32 = 10.0;
/// Least time between two samples that is reckoned with, seconds: in a burst the memory is the last 10,000 calls.
const STEP: f32 = 0.001;
/// Length of a tick of the packed time.
const TICKS_PER_SECOND: f32 = 1000.0;

/// Average over time that forgets: a sample weighs the more the longer ago the one before was, and an unused average
/// sinks, so that a copy that has failed is tried again.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Latency {
    /// Seconds; 0 = nothing known.
    average: f32,
    /// When the last sample came, milliseconds, wrapping after 49 days.
    at: u32,
}

/// A [`Latency`] in one atomic word, shared by threads.
#[derive(Debug, Default)]
pub struct SharedLatency(AtomicU64);

// === impl Latency ===

impl Latency {
    /// An answer took so long ([`FAILURE`] for a failure).
    #[must_use]
    pub fn observe(self, now: Time, took: Duration) -> Self {
        let at = ticks(now);
        let sample = took.as_secs_f32();
        if self.average == 0.0 {
            return Self { average: sample, at };
        }
        let keep = (-self.idle(at).max(STEP) / MEMORY).exp();
        Self { average: self.average * keep + sample * (1.0 - keep), at }
    }

    /// The average, sinking while no sample comes; zero = nothing known.
    #[must_use]
    pub fn average(self, now: Time) -> Duration {
        let average = self.average * (-self.idle(ticks(now)) / MEMORY).exp();
        Duration::try_from_secs_f32(average).unwrap_or(Duration::ZERO)
    }

    /// Seconds since the last sample; a time a little before it (another thread's) is no time at all.
    fn idle(self, at: u32) -> f32 {
        let passed = at.wrapping_sub(self.at);
        if passed > u32::MAX / 2 { 0.0 } else { passed as f32 / TICKS_PER_SECOND }
    }
}

fn ticks(now: Time) -> u32 {
    (now.as_nanos() / 1_000_000) as u32
}

// === impl SharedLatency ===

impl SharedLatency {
    /// An answer took so long ([`FAILURE`] for a failure). Lock-free.
    pub fn observe(&self, now: Time, took: Duration) {
        let mut word = self.0.load(Ordering::Relaxed);
        loop {
            let next = pack(unpack(word).observe(now, took));
            match self.0.compare_exchange_weak(word, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
                Err(seen) => word = seen,
            }
        }
    }

    /// The average, sinking while no sample comes; zero = nothing known.
    #[must_use]
    pub fn average(&self, now: Time) -> Duration {
        unpack(self.0.load(Ordering::Relaxed)).average(now)
    }
}

fn pack(latency: Latency) -> u64 {
    u64::from(latency.average.to_bits()) << 32 | u64::from(latency.at)
}

fn unpack(word: u64) -> Latency {
    Latency { average: f32::from_bits((word >> 32) as u32), at: word as u32 }
}
