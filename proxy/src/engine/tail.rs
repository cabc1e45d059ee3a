//! Appends bytes to every message of a direction.
//!
//! Protobuf takes the last value of a field and merges sub-messages, so a value appended to a message is the one that is
//! read, wherever the field stood before, was absent or repeated. The length in gRPC's prefix grows by the tail's
//! constant size; nothing but the prefix is ever held back.

use bytes::{BufMut, Bytes, BytesMut};

use super::pieces::Pieces;

/// Length of gRPC's message prefix.
pub const PREFIX: usize = 5;

/// A message over the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a message of {length} bytes is larger than the limit of {limit} bytes")]
pub struct TooLarge {
    /// Length that its prefix announces.
    pub length: usize,
    /// The limit.
    pub limit: usize,
}

/// Rewrites one direction of a call.
#[derive(Debug)]
pub struct Tail {
    suffix: Bytes,
    limit: usize,
    state: State,
    bytes: u64,
}

#[derive(Debug)]
enum State {
    Prefix { seen: usize, bytes: [u8; PREFIX] },
    Body { left: usize, plain: bool },
}

const START: State = State::Prefix { seen: 0, bytes: [0; PREFIX] };

// === impl Tail ===

impl Tail {
    /// Appends `suffix` (may be empty) to each message of at most `limit` bytes.
    #[must_use]
    pub fn new(suffix: Bytes, limit: usize) -> Self {
        Self { suffix, limit, state: START, bytes: 0 }
    }

    /// Takes the next piece and puts what may leave into `out`.
    ///
    /// # Errors
    ///
    /// [`TooLarge`] as soon as the prefix of a message announces it.
    pub fn push(&mut self, mut piece: Bytes, out: &mut Pieces) -> Result<(), TooLarge> {
        while !piece.is_empty() {
            match &mut self.state {
                State::Prefix { seen, bytes } => {
                    let step = piece.len().min(PREFIX - *seen);
                    bytes[*seen..*seen + step].copy_from_slice(&piece.split_to(step));
                    *seen += step;
                    if *seen == PREFIX {
                        let [flag, length @ ..] = *bytes;
                        self.begin(flag, u32::from_be_bytes(length), out)?;
                    }
                }
                State::Body { left, .. } => {
                    let step = piece.len().min(*left);
                    out.push(piece.split_to(step));
                    *left -= step;
                    self.end(out);
                }
            }
        }
        Ok(())
    }

    /// Lengths of all messages begun, as they came.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether the last message is whole.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        matches!(self.state, State::Prefix { seen: 0, .. })
    }

    fn begin(&mut self, flag: u8, length: u32, out: &mut Pieces) -> Result<(), TooLarge> {
        let left = length as usize;
        // A compressed message cannot be appended to; requests are inflated before they come here.
        let plain = flag == 0;
        let grown = if plain { left.saturating_add(self.suffix.len()) } else { left };
        let Some(grown) = u32::try_from(grown).ok().filter(|_| left <= self.limit) else {
            return Err(TooLarge { length: left, limit: self.limit });
        };
        self.bytes += left as u64;
        let mut prefix = BytesMut::with_capacity(PREFIX);
        prefix.put_u8(flag);
        prefix.put_u32(grown);
        out.push(prefix.freeze());
        self.state = State::Body { left, plain };
        self.end(out);
        Ok(())
    }

    fn end(&mut self, out: &mut Pieces) {
        if let State::Body { left: 0, plain } = self.state {
            if plain {
                out.push(self.suffix.clone());
            }
            self.state = START;
        }
    }
}

/// The bytes that set the string at `path` to `value`: `[1]` gives `0a len value`, `[2, 1]` gives `12 len 0a len value`.
#[must_use]
pub fn suffix(path: &[u32], value: &[u8]) -> Bytes {
    path.iter().rev().fold(Bytes::copy_from_slice(value), |inner, number| {
        let mut outer = BytesMut::with_capacity(inner.len() + 10);
        prost::encoding::encode_varint(u64::from(*number) << 3 | 2, &mut outer);
        prost::encoding::encode_varint(inner.len() as u64, &mut outer);
        outer.put(inner);
        outer.freeze()
    })
}
