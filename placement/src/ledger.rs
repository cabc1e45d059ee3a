//! The account of a pod's memory: what may be promised to a load, and what is charged until when.
//!
//! Bytes are reserved before a pull, belong to a copy once the server has loaded it, and stay charged until the server
//! has confirmed the unload. What a model turns out to need beyond its reservation may exceed the capacity; that is
//! `overrun`, and nothing is promised until it is paid back.

use crate::rules;

/// The account of one life of one model server. All numbers are bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    capacity: u64,
    loaded: u64,
    reserved: u64,
    unloading: u64,
    overrun: u64,
}

/// Where bytes that become `unloading` were charged before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Account {
    /// A copy that was loaded.
    Loaded,
    /// A load that the server has answered with an error, or that nobody wants any more.
    Reserved,
}

// === impl Ledger ===

impl Ledger {
    /// An empty account.
    #[must_use]
    pub fn new(capacity: u64) -> Self {
        Self { capacity, ..Self::default() }
    }

    /// Bytes that models may fill.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Bytes of loaded copies.
    #[must_use]
    pub fn loaded(&self) -> u64 {
        self.loaded
    }

    /// Bytes promised to loads.
    #[must_use]
    pub fn reserved(&self) -> u64 {
        self.reserved
    }

    /// Bytes being freed.
    #[must_use]
    pub fn unloading(&self) -> u64 {
        self.unloading
    }

    /// Bytes above the capacity because a model turned out larger than its reservation.
    #[must_use]
    pub fn overrun(&self) -> u64 {
        self.overrun
    }

    /// All bytes charged.
    #[must_use]
    pub fn taken(&self) -> u64 {
        self.loaded.saturating_add(self.reserved).saturating_add(self.unloading)
    }

    /// Bytes that may be promised.
    #[must_use]
    pub fn free(&self) -> u64 {
        self.capacity.saturating_sub(self.taken())
    }

    /// Bytes that must be freed before `bytes` may be promised.
    #[must_use]
    pub fn shortage(&self, bytes: u64) -> u64 {
        self.taken().saturating_add(bytes).saturating_sub(self.capacity)
    }

    /// Promises `bytes` to a load; false, and nothing changes, where rule `ledger` forbids it.
    #[must_use]
    pub fn reserve(&mut self, bytes: u64) -> bool {
        let granted = rules::ledger::may_reserve(self, bytes);
        if granted {
            self.reserved += bytes;
        }
        granted
    }

    /// Takes back the promise to a load that was never sent to the server.
    pub fn release(&mut self, bytes: u64) {
        take(&mut self.reserved, bytes);
        self.pay_back();
    }

    /// The server has loaded a model: what it needs takes the place of what was reserved for it.
    pub fn settle(&mut self, reserved: u64, bytes: u64) {
        take(&mut self.reserved, reserved);
        self.loaded = self.loaded.saturating_add(bytes);
        if bytes > reserved {
            self.overrun = self.taken().saturating_sub(self.capacity);
        } else {
            self.pay_back();
        }
    }

    /// An unload was sent: the bytes stay charged.
    pub fn unload(&mut self, from: Account, bytes: u64) {
        take(if from == Account::Loaded { &mut self.loaded } else { &mut self.reserved }, bytes);
        self.unloading = self.unloading.saturating_add(bytes);
    }

    /// The server has confirmed an unload.
    pub fn credit(&mut self, bytes: u64) {
        take(&mut self.unloading, bytes);
        self.pay_back();
    }

    fn pay_back(&mut self) {
        self.overrun = self.overrun.min(self.taken().saturating_sub(self.capacity));
    }
}

fn take(account: &mut u64, bytes: u64) {
    debug_assert!(*account >= bytes, "{bytes} bytes taken from an account of {account}");
    *account = account.saturating_sub(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_promised_beyond_the_capacity() {
        let mut ledger = Ledger::new(100);
        assert!(ledger.reserve(60));
        assert!(!ledger.reserve(41));
        assert!(ledger.reserve(40));
        assert_eq!((ledger.free(), ledger.shortage(1)), (0, 1));
    }

    #[test]
    fn bytes_stay_charged_until_the_unload_is_confirmed() {
        let mut ledger = Ledger::new(100);
        assert!(ledger.reserve(100));
        ledger.settle(100, 100);
        ledger.unload(Account::Loaded, 100);
        assert!(!ledger.reserve(1));
        ledger.credit(100);
        assert!(ledger.reserve(100));
    }

    #[test]
    fn a_smaller_model_gives_back_what_it_does_not_need() {
        let mut ledger = Ledger::new(100);
        assert!(ledger.reserve(100));
        ledger.settle(100, 30);
        assert_eq!((ledger.free(), ledger.overrun()), (70, 0));
    }

    #[test]
    fn a_larger_model_takes_free_memory_first_and_overruns_only_beyond_it() {
        let mut ledger = Ledger::new(100);
        assert!(ledger.reserve(50) && ledger.reserve(40));
        ledger.settle(50, 55);
        assert_eq!(ledger.overrun(), 0);
        ledger.settle(40, 60);
        assert_eq!((ledger.overrun(), ledger.free()), (15, 0));
        assert!(!ledger.reserve(1));
        ledger.unload(Account::Loaded, 55);
        assert_eq!(ledger.overrun(), 15);
        ledger.credit(55);
        assert_eq!((ledger.overrun(), ledger.free()), (0, 40));
    }
}
