//! A queue of byte pieces on their way out.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// Pieces below this length are copied together, so that a prefix, a short message and its tail leave in one frame.
const SMALL: usize = 1024;
/// Never is more than this copied together.
const MERGED: usize = 16 * 1024;
/// What a queued piece costs beside its bytes.
pub(super) const OVERHEAD: usize = 64;

/// Bytes in order.
#[derive(Debug, Default)]
pub struct Pieces {
    queue: VecDeque<Bytes>,
    length: usize,
}

// === impl Pieces ===

impl Pieces {
    /// Appends a piece; an empty one is nothing.
    pub fn push(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.length += piece.len();
            self.queue.push_back(piece);
        }
    }

    /// Bytes queued.
    #[must_use]
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether nothing is queued.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// What the queue costs the process.
    #[must_use]
    pub fn cost(&self) -> usize {
        self.length + self.queue.len() * OVERHEAD
    }

    /// Takes between 1 and `most` bytes from the front; empty only if `most` is 0 or nothing is queued.
    pub fn take(&mut self, most: usize) -> Bytes {
        let Some(front) = self.queue.front_mut().filter(|_| most > 0) else { return Bytes::new() };
        let taken = if front.len() > most {
            front.split_to(most)
        } else if front.len() >= SMALL || front.len() == self.length {
            self.queue.pop_front().unwrap_or_default()
        } else {
            self.merge(most.min(MERGED))
        };
        self.length -= taken.len();
        taken
    }

    /// Drops everything.
    pub fn clear(&mut self) {
        self.queue.clear();
        self.length = 0;
    }

    fn merge(&mut self, most: usize) -> Bytes {
        let mut merged = BytesMut::with_capacity(most.min(self.length));
        while let Some(front) = self.queue.front_mut() {
            let room = most - merged.len();
            if front.len() <= room && front.len() < SMALL {
                merged.extend_from_slice(front);
                self.queue.pop_front();
            } else {
                // A long piece is not copied, but fills the frame that was begun.
                merged.extend_from_slice(&front.split_to(room.min(SMALL).min(front.len())));
                if front.is_empty() {
                    self.queue.pop_front();
                }
                break;
            }
        }
        merged.freeze()
    }
}

impl Extend<Bytes> for Pieces {
    fn extend<I: IntoIterator<Item = Bytes>>(&mut self, pieces: I) {
        pieces.into_iter().for_each(|piece| self.push(piece));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_taken_is_what_was_pushed(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..3000), 0..12),
            steps in prop::collection::vec(1usize..20_000, 1..8),
        ) {
            let mut queue = Pieces::default();
            queue.extend(pieces.iter().cloned().map(Bytes::from));
            let mut out = Vec::new();
            for step in steps.iter().cycle() {
                let taken = queue.take(*step);
                prop_assert!(taken.len() <= *step);
                prop_assert_eq!(taken.is_empty(), queue.is_empty() && out.len() == pieces.concat().len() && taken.is_empty());
                if taken.is_empty() { break; }
                out.extend_from_slice(&taken);
            }
            prop_assert_eq!(out, pieces.concat());
            prop_assert_eq!(queue.cost(), 0);
        }
    }
}
