//! One at a time, per key, in the order of arrival.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;

/// Turns by key.
#[derive(Debug, Default)]
pub(crate) struct Serial {
    locks: Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>,
}

/// A turn; the next of the same key begins when it is dropped.
pub(crate) type Turn = OwnedMutexGuard<()>;

// === impl Serial ===

impl Serial {
    /// Waits for the turn of `key`.
    pub(crate) async fn turn(&self, key: &str) -> Turn {
        let lock = self.lock(key);
        lock.lock_owned().await
    }

    /// The lock of a key lives as long as someone holds it or waits for it.
    fn lock(&self, key: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut locks = self.locks.lock();
        if let Some(lock) = locks.get(key).and_then(Weak::upgrade) {
            return lock;
        }
        locks.retain(|_, lock| lock.strong_count() > 0);
        let lock = Arc::default();
        locks.insert(key.to_owned(), Arc::downgrade(&lock));
        lock
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn turns_of_one_key_follow_each_other_and_others_do_not_wait() {
        let serial = Serial::default();
        let first = serial.turn("a").await;
        let _other = serial.turn("b").await;
        let mut second = Box::pin(serial.turn("a"));
        tokio::select! {
            biased;
            _ = &mut second => panic!("the first turn is not over"),
            () = std::future::ready(()) => {}
        }
        drop(first);
        second.await;
    }

    #[tokio::test]
    async fn locks_that_nobody_holds_are_forgotten() {
        let serial = Serial::default();
        for n in 0..100 {
            drop(serial.turn(&n.to_string()).await);
        }
        assert_eq!(serial.locks.lock().len(), 1);
    }
}
