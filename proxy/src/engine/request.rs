//! What the caller has sent and no server has taken yet, or may have to be sent again.
//!
//! Pieces are kept as they came (no copy). An attempt reads them by a cursor; what it has passed is kept for a replay
//! until the response begins or the request outgrows [`REPLAY`]; beyond [`SMALL`] only while the budget is not half spent.

use std::{
    collections::VecDeque,
    task::{Context, Poll},
};

use bytes::Bytes;

use super::{
    answer::Answer,
    client::{Client, Gone},
    inflate::Inflate,
    pieces::OVERHEAD,
};

/// Largest request that is kept for a replay, bytes: a message of the default limit.
const REPLAY: usize = 17 << 20;
/// What is larger is kept only while memory is plenty, bytes.
const SMALL: usize = 256 * 1024;

/// The request half of a call.
#[derive(Default)]
pub(super) struct Request {
    pieces: VecDeque<Bytes>,
    /// Pieces before this were passed to the attempt that is on.
    cursor: usize,
    cost: usize,
    /// Nothing of the request was dropped, and nothing may be.
    kept: bool,
    ended: bool,
    /// Bytes received that the caller got no credit for.
    owed: usize,
    inflate: Option<Inflate>,
}

/// Why reading stopped.
pub(super) enum Broken {
    Gone,
    Refused(Answer),
}

// === impl Request ===

impl Request {
    pub(super) fn new(inflate: Option<Inflate>) -> Self {
        Self { kept: true, inflate, ..Self::default() }
    }

    /// Reads all that has come; true if something did.
    pub(super) fn poll_read(&mut self, client: &mut impl Client, cx: &mut Context<'_>) -> Result<bool, Broken> {
        let mut progress = false;
        while !self.ended {
            match client.poll_request(cx) {
                Poll::Pending => break,
                Poll::Ready(None) => self.ended = true,
                Poll::Ready(Some(Err(Gone))) => return Err(Broken::Gone),
                Poll::Ready(Some(Ok(piece))) => self.take(piece, client).map_err(Broken::Refused)?,
            }
            progress = true;
        }
        Ok(progress)
    }

    fn take(&mut self, piece: Bytes, client: &mut impl Client) -> Result<(), Answer> {
        let (pieces, cost) = (&mut self.pieces, &mut self.cost);
        let mut push = |piece: Bytes| {
            if !piece.is_empty() {
                *cost += piece.len() + OVERHEAD;
                pieces.push_back(piece);
            }
        };
        match &mut self.inflate {
            // What is collected must not wait for credit that comes with its departure.
            Some(inflate) => {
                client.credit(piece.len());
                inflate.push(piece, push)
            }
            None => {
                self.owed += piece.len();
                push(piece);
                Ok(())
            }
        }
    }

    /// The next piece for the attempt that is on.
    pub(super) fn next(&mut self) -> Option<Bytes> {
        let piece = self.pieces.get(self.cursor)?.clone();
        self.cursor += 1;
        if self.kept && self.cost > REPLAY {
            self.kept = false;
        }
        if !self.kept {
            self.drop_passed();
        }
        Some(piece)
    }

    /// So many bytes have left for the server: the caller may send as many; all that is owed once `drained`.
    pub(super) fn passed(&mut self, client: &mut impl Client, bytes: usize, drained: bool) {
        let due = if drained && self.cursor == self.pieces.len() { self.owed } else { bytes.min(self.owed) };
        if due > 0 {
            self.owed -= due;
            client.credit(due);
        }
    }

    /// A new attempt begins with the first byte.
    pub(super) fn rewind(&mut self) {
        debug_assert!(self.kept || self.cursor == 0, "a request that was passed in part cannot be replayed");
        self.cursor = 0;
    }

    /// Whether its replay has to go before others have to.
    pub(super) fn is_large(&self) -> bool {
        self.kept && self.cost > SMALL
    }

    /// There will be no replay: drops what was passed.
    pub(super) fn forget(&mut self) {
        self.kept = false;
        self.drop_passed();
    }

    fn drop_passed(&mut self) {
        let passed = self.pieces.drain(..self.cursor).map(|piece| piece.len() + OVERHEAD).sum::<usize>();
        self.cost -= passed;
        self.cursor = 0;
    }

    /// Whether it can be sent again from its first byte.
    pub(super) fn is_replayable(&self) -> bool {
        self.kept
    }

    /// Whether the caller has ended it.
    pub(super) fn is_ended(&self) -> bool {
        self.ended
    }

    /// Whether everything that will ever come was passed to the attempt.
    pub(super) fn is_passed(&self) -> bool {
        self.ended && self.cursor == self.pieces.len()
    }

    /// All pieces that came, from the first.
    pub(super) fn pieces(&self) -> impl Iterator<Item = &Bytes> {
        self.pieces.iter()
    }

    /// Bytes held.
    pub(super) fn cost(&self) -> usize {
        self.cost + self.inflate.as_ref().map_or(0, Inflate::cost)
    }
}
