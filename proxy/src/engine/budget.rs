//! One budget for the bytes that the process holds for others: requests that wait, replays, answers to slow readers.
//!
//! A [`Held`] is a share of it, given back when dropped. Over the budget the answer is `OM`.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use super::answer::{Answer, Reason};

/// What a stream may hold without being charged for it, bytes.
const FREE: usize = 4 * 1024;

/// The budget of a process, shared by all its threads.
#[derive(Debug)]
pub struct Budget {
    limit: u64,
    used: AtomicU64,
}

/// The budget is spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the proxy holds as many bytes as it may for slow readers, waiting requests and replays")]
pub struct Spent;

/// Bytes held out of a budget.
#[derive(Debug)]
pub struct Held {
    budget: Arc<Budget>,
    bytes: u64,
}

// === impl Budget ===

impl Budget {
    /// A budget of `limit` bytes.
    #[must_use]
    pub fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self { limit, used: AtomicU64::new(0) })
    }

    /// Bytes held at this moment.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Bytes that may be held.
    #[must_use]
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// A share of no bytes yet.
    #[must_use]
    pub fn share(self: &Arc<Self>) -> Held {
        Held { budget: self.clone(), bytes: 0 }
    }

    /// # Errors
    ///
    /// [`Spent`] if `bytes` more would be over the limit.
    fn take(&self, bytes: u64) -> Result<(), Spent> {
        let fits = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= self.limit);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).map(drop).map_err(|_| Spent)
    }
}

// === impl Held ===

impl Held {
    /// Bytes of this share.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether more than half of the budget is spent.
    pub(super) fn is_scarce(&self) -> bool {
        self.budget.used() > self.budget.limit / 2
    }

    /// Charges what a stream holds beyond [`FREE`]: small calls go on while the budget is spent.
    ///
    /// # Errors
    ///
    /// As [`Held::resize`].
    pub(super) fn charge(&mut self, cost: usize) -> Result<(), Spent> {
        self.resize(if cost > FREE { cost } else { 0 })
    }

    /// Makes the share `bytes` large.
    ///
    /// # Errors
    ///
    /// [`Spent`] if the budget has no room for the growth; the share stays as it was.
    pub fn resize(&mut self, bytes: usize) -> Result<(), Spent> {
        let bytes = bytes as u64;
        if bytes > self.bytes {
            self.budget.take(bytes - self.bytes)?;
        } else if bytes < self.bytes {
            self.budget.used.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
        }
        self.bytes = bytes;
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

// === impl Spent ===

impl From<Spent> for Answer {
    fn from(spent: Spent) -> Self {
        Self::new(Reason::OM, spent.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_given_back_when_dropped_and_a_refused_growth_changes_nothing() {
        let budget = Budget::new(100);
        let mut first = budget.share();
        first.resize(60).expect("fits");
        let mut second = budget.share();
        assert_eq!(second.resize(41), Err(Spent));
        assert_eq!(second.bytes(), 0);
        second.resize(40).expect("fits exactly");
        first.resize(10).expect("shrinks");
        assert_eq!(budget.used(), 50);
        drop(second);
        drop(first);
        assert_eq!(budget.used(), 0);
    }
}
