//! What is to happen, in the order of virtual time; what is due at the same moment in the order in which it was planned.

use std::collections::BTreeMap;

/// Nanoseconds of the world's own time, which no process sees.
pub type Nanos = u64;

/// Events to come.
#[derive(Debug)]
pub struct Queue<E> {
    events: BTreeMap<(Nanos, u64), E>,
    planned: u64,
}

// === impl Queue ===

impl<E> Queue<E> {
    /// Plans an event.
    pub fn push(&mut self, at: Nanos, event: E) {
        self.planned += 1;
        self.events.insert((at, self.planned), event);
    }

    /// The next event that is due by `end`.
    pub fn pop(&mut self, end: Nanos) -> Option<(Nanos, E)> {
        let first = self.events.first_entry().filter(|first| first.key().0 <= end)?;
        let ((at, _), event) = first.remove_entry();
        Some((at, event))
    }
}

impl<E> Default for Queue<E> {
    fn default() -> Self {
        Self { events: BTreeMap::new(), planned: 0 }
    }
}
