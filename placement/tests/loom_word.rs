//! A copy's word under every order of events that the memory model allows (contract, section 4): a call increments and
//! then looks at the state; a drain stores the state and then looks for a count of 0. Run by `./dev loom`.
//!
//! The callers do what the proxy's copy does: enter, take the increment back where they met another state or too many
//! others, leave, and wake the drain's watcher where they are told so. The watcher does what the fleet's peer does: it
//! stores the state, and acknowledges at once where no call is in flight, else when it is woken and sees 0.

#![cfg(loom)]

use loom::{
    cell::UnsafeCell,
    sync::{
        Arc, Notify,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
};
use modelring_placement::word::{CopyWord, Entered, Left, WordState};

/// A copy as callers and the watcher of its drains share it.
struct Copy {
    word: CopyWord,
    /// What calls use and an unload takes away. Loom fails where the two meet.
    memory: UnsafeCell<()>,
    loaded: AtomicBool,
    /// Told to the calls that READY lets in.
    limit: AtomicU32,
    /// By which the watcher is woken.
    woken: Notify,
}

impl Copy {
    fn new(state: WordState) -> Arc<Self> {
        Arc::new(Self {
            word: CopyWord::new(state),
            memory: UnsafeCell::new(()),
            loaded: AtomicBool::new(true),
            limit: AtomicU32::new(0),
            woken: Notify::new(),
        })
    }

    fn left(&self, left: Left) {
        if left == Left::Drained {
            self.woken.notify();
        }
    }

    /// A call; whether it ran. With a limit it may be turned away by others that are in flight.
    fn call(&self, limit: u32) -> bool {
        match self.word.enter() {
            Entered::Ready { in_flight } if in_flight <= limit => {
                self.memory.with(|_| ());
                assert!(self.loaded.load(Ordering::Relaxed), "a call runs on an unloaded copy");
                self.left(self.word.leave());
                true
            }
            Entered::Ready { .. } => {
                self.left(self.word.leave());
                false
            }
            Entered::NotReady(left) => {
                self.left(left);
                false
            }
        }
    }

    /// Stores DRAINING and waits until the acknowledgement may be sent. Loom fails where the wake is lost.
    fn drain(&self) {
        if self.word.store(WordState::Draining) == 0 {
            return;
        }
        while self.word.in_flight() > 0 {
            self.woken.wait();
        }
    }

    fn unload(&self) {
        self.memory.with_mut(|_| ());
        self.loaded.store(false, Ordering::Relaxed);
    }
}

/// Every order with at most so many preemptions; of two callers and a watcher more are more than can be gone through.
fn bounded(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}

#[test]
fn no_call_runs_on_a_copy_whose_drain_was_acknowledged() {
    bounded(|| {
        let copy = Copy::new(WordState::Ready);
        let callers: Vec<_> = (0..2)
            .map(|_| {
                let copy = copy.clone();
                thread::spawn(move || copy.call(u32::MAX))
            })
            .collect();
        copy.drain();
        copy.unload();
        callers.into_iter().for_each(|caller| assert!(caller.join().is_ok()));
        assert_eq!(copy.word.in_flight(), 0);
    });
}

#[test]
fn a_call_that_is_turned_away_does_not_keep_a_drain_waiting() {
    bounded(|| {
        let copy = Copy::new(WordState::Ready);
        let callers: Vec<_> = (0..2)
            .map(|_| {
                let copy = copy.clone();
                thread::spawn(move || copy.call(1))
            })
            .collect();
        copy.drain();
        copy.unload();
        callers.into_iter().for_each(|caller| assert!(caller.join().is_ok()));
    });
}

#[test]
fn after_a_drain_that_is_called_off_the_next_one_waits_for_the_calls_between() {
    loom::model(|| {
        let copy = Copy::new(WordState::Ready);
        let caller = {
            let copy = copy.clone();
            thread::spawn(move || {
                copy.call(u32::MAX);
                copy.call(u32::MAX);
            })
        };
        copy.word.store(WordState::Draining);
        copy.word.store(WordState::Ready);
        copy.drain();
        copy.unload();
        caller.join().unwrap();
    });
}

#[test]
fn what_was_told_before_ready_is_seen_by_the_calls_that_it_lets_in() {
    loom::model(|| {
        let copy = Copy::new(WordState::Absent);
        let caller = {
            let copy = copy.clone();
            thread::spawn(move || match copy.word.enter() {
                Entered::Ready { .. } => {
                    assert_eq!(copy.limit.load(Ordering::Relaxed), 3, "let in before the limit was told");
                    copy.left(copy.word.leave());
                }
                Entered::NotReady(left) => copy.left(left),
            })
        };
        copy.limit.store(3, Ordering::Relaxed);
        copy.word.store(WordState::Ready);
        caller.join().unwrap();
    });
}
