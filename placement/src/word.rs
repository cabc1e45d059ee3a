//! A copy's state and its calls in flight in one atomic word (contract, section 4).
//!
//! A call increments first and looks at the state afterwards. Both are in one word, so the increment itself returns the
//! state that it met: if that is not READY the call takes its increment back and chooses again. A drain therefore never
//! misses a call: once [`CopyWord::store`] has written DRAINING, every later call sees it, and every earlier one is in
//! the count.
//!
//! **Ordering.** Every access is to the same word, so its modification order alone decides who saw what. `AcqRel` on
//! entering and storing, `Release` on leaving and `Acquire` on reading make more than the word visible: what was
//! published before READY was stored is seen by the calls that it lets in, and what the calls did is seen by the one
//! who reads 0 and sends the acknowledgement. No lock, no fence; a call costs two atomic additions.
//!
//! **Who waits for 0.** A call that is turned away counts for a moment, so the count can be above 0 although no call
//! runs. Whoever takes the last increment back from a copy that is not READY is told so ([`Left::Drained`]) and wakes
//! the watcher of that copy, which looks again. Only one task stores states (the one that reads the agent's stream), so
//! it knows which drain the count of 0 belongs to.

#[cfg(loom)]
use loom::sync::atomic::{AtomicU64, Ordering};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicU64, Ordering};

/// Bits of the count of calls in flight; the state lies above.
const COUNT_BITS: u32 = 32;
const COUNT: u64 = (1 << COUNT_BITS) - 1;

/// What the calls of this proxy need to know of a copy's state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum WordState {
    /// Unknown, queued, loading, failed or gone.
    #[default]
    Absent = 0,
    /// Serves.
    Ready = 1,
    /// Serves what is in flight.
    Draining = 2,
}

/// State and calls in flight of one copy.
#[derive(Debug)]
pub struct CopyWord(AtomicU64);

/// Whether a call was let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Entered {
    /// The copy is READY and the call counts; it ends with [`CopyWord::leave`].
    Ready {
        /// Calls in flight, this one included.
        in_flight: u32,
    },
    /// The copy is not READY; the increment is taken back.
    NotReady(Left),
}

/// What is left when a call has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Left {
    /// Nothing to do.
    Others,
    /// The copy was not READY and this was the last call: whoever waits to acknowledge its drain looks again.
    Drained,
}

// === impl WordState ===

impl WordState {
    const fn of(word: u64) -> Self {
        match word >> COUNT_BITS {
            1 => Self::Ready,
            2 => Self::Draining,
            _ => Self::Absent,
        }
    }
}

// === impl CopyWord ===

impl CopyWord {
    /// A copy in this state with no call in flight.
    #[must_use]
    pub fn new(state: WordState) -> Self {
        Self(AtomicU64::new((state as u64) << COUNT_BITS))
    }

    /// Counts a call in, if the copy is READY.
    #[inline]
    pub fn enter(&self) -> Entered {
        let before = self.0.fetch_add(1, Ordering::AcqRel);
        debug_assert!(before & COUNT < COUNT, "more calls in flight than the word can count");
        match WordState::of(before) {
            WordState::Ready => Entered::Ready { in_flight: count(before + 1) },
            _ => Entered::NotReady(self.leave()),
        }
    }

    /// Counts a call out. Exactly once per [`Entered::Ready`].
    #[inline]
    pub fn leave(&self) -> Left {
        let before = self.0.fetch_sub(1, Ordering::AcqRel);
        debug_assert!(before & COUNT > 0, "a call left that had not entered");
        if count(before) == 1 && WordState::of(before) != WordState::Ready { Left::Drained } else { Left::Others }
    }

    /// Sets the state and returns the calls in flight at that moment. With 0 a drain may be acknowledged at once.
    pub fn store(&self, state: WordState) -> u32 {
        let mut word = self.0.load(Ordering::Relaxed);
        loop {
            let next = (state as u64) << COUNT_BITS | word & COUNT;
            match self.0.compare_exchange_weak(word, next, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return count(word),
                Err(now) => word = now,
            }
        }
    }

    /// The state, for a look; only [`CopyWord::enter`] decides.
    #[must_use]
    #[inline]
    pub fn state(&self) -> WordState {
        WordState::of(self.0.load(Ordering::Acquire))
    }

    /// Calls in flight. 0 after DRAINING was stored means that the drain may be acknowledged.
    #[must_use]
    #[inline]
    pub fn in_flight(&self) -> u32 {
        count(self.0.load(Ordering::Acquire))
    }
}

impl Default for CopyWord {
    fn default() -> Self {
        Self::new(WordState::Absent)
    }
}

const fn count(word: u64) -> u32 {
    (word & COUNT) as u32
}
