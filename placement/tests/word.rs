//! A copy's state and its calls in flight in one word.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use modelring_placement::word::{CopyWord, Entered, Left, WordState};

#[test]
fn only_a_ready_copy_lets_calls_in() {
    let word = CopyWord::default();
    assert!(matches!(word.enter(), Entered::NotReady(_)));
    assert_eq!(word.in_flight(), 0);

    assert_eq!(word.store(WordState::Ready), 0);
    assert_eq!(word.enter(), Entered::Ready { in_flight: 1 });
    assert_eq!(word.enter(), Entered::Ready { in_flight: 2 });
    assert_eq!((word.state(), word.in_flight()), (WordState::Ready, 2));
}

#[test]
fn the_last_call_of_a_draining_copy_is_told_so() {
    let word = CopyWord::new(WordState::Ready);
    let _ = (word.enter(), word.enter());
    assert_eq!(word.leave(), Left::Others);
    assert_eq!(word.store(WordState::Draining), 1);
    assert_eq!(word.state(), WordState::Draining);
    assert_eq!(word.leave(), Left::Drained);
    assert_eq!(word.in_flight(), 0);
}

#[test]
fn a_call_turned_away_last_is_told_so_too() {
    let word = CopyWord::new(WordState::Draining);
    assert_eq!(word.enter(), Entered::NotReady(Left::Drained));
}

#[test]
fn a_ready_copy_is_not_drained_by_its_last_call() {
    let word = CopyWord::new(WordState::Ready);
    let _ = word.enter();
    assert_eq!(word.leave(), Left::Others);
}

#[test]
fn a_drain_called_off_keeps_the_count() {
    let word = CopyWord::new(WordState::Ready);
    let _ = word.enter();
    word.store(WordState::Draining);
    assert_eq!(word.store(WordState::Ready), 1);
    assert_eq!(word.enter(), Entered::Ready { in_flight: 2 });
}

#[test]
fn no_call_runs_once_a_drain_was_seen_at_zero() {
    let word = Arc::new(CopyWord::new(WordState::Ready));
    let unloaded = Arc::new(AtomicBool::new(false));
    let stop = Arc::new(AtomicBool::new(false));
    let (served, wakes) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));

    let callers: Vec<_> = (0..3)
        .map(|_| {
            let (word, unloaded, stop) = (Arc::clone(&word), Arc::clone(&unloaded), Arc::clone(&stop));
            let (served, wakes) = (Arc::clone(&served), Arc::clone(&wakes));
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let left = match word.enter() {
                        Entered::Ready { .. } => {
                            assert!(!unloaded.load(Ordering::SeqCst), "a call runs on an unloaded copy");
                            served.fetch_add(1, Ordering::Relaxed);
                            thread::yield_now();
                            assert!(!unloaded.load(Ordering::SeqCst), "the copy was unloaded under a call");
                            word.leave()
                        }
                        Entered::NotReady(left) => left,
                    };
                    if left == Left::Drained {
                        wakes.fetch_add(1, Ordering::SeqCst);
                    }
                }
            })
        })
        .collect();

    for _ in 0..40 {
        let before = served.load(Ordering::Relaxed);
        while served.load(Ordering::Relaxed) == before {
            thread::yield_now();
        }
        let woken = wakes.load(Ordering::SeqCst);
        if word.store(WordState::Draining) > 0 {
            // Somebody must say that the last call is gone; only then is the count looked at.
            while wakes.load(Ordering::SeqCst) == woken {
                thread::yield_now();
            }
            while word.in_flight() > 0 {
                thread::yield_now();
            }
        }
        unloaded.store(true, Ordering::SeqCst);
        thread::yield_now();
        unloaded.store(false, Ordering::SeqCst);
        word.store(WordState::Ready);
    }
    stop.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.join().expect("no caller saw an unloaded copy");
    }
    assert_eq!(word.in_flight(), 0);
}
