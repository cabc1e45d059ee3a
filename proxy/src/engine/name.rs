//! Finds the model's name in the first message of a call, while its bytes arrive.
//!
//! The walker is fed pieces of any size, gRPC's five-byte prefix first, and follows a path of field numbers. The first
//! occurrence of each number counts. It decodes nothing else, keeps nothing but the name, and gives up after
//! [`LIMIT`] bytes of the message.

use super::policy::FieldPath;

/// Bytes of the message within which the field must lie; beyond them it counts as absent.
pub const LIMIT: u64 = 32 * 1024;

/// What is known after a piece.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    /// Not enough bytes yet.
    More,
    /// The field's bytes.
    Name(Vec<u8>),
    /// The message does not have the field.
    Absent,
    /// The first [`LIMIT`] bytes of the message do not have the field, which counts as absent.
    Beyond,
    /// This is no message with such a field.
    Malformed(&'static str),
}

/// Follows a path through one message.
#[derive(Debug)]
pub struct Walker {
    path: FieldPath,
    /// Fields of the path that were entered.
    depth: usize,
    /// Bytes of the message that were passed.
    at: u64,
    /// Where the innermost entered message ends.
    end: u64,
    state: State,
}

#[derive(Debug)]
enum State {
    Prefix { seen: usize, length: u32 },
    Tag(Varint),
    SkipVarint(Varint),
    Length { wanted: bool, varint: Varint },
    Enter { end: u64 },
    Skip { left: u64 },
    Name { left: u64, name: Vec<u8> },
    Done(Look),
}

#[derive(Clone, Copy, Debug, Default)]
struct Varint {
    value: u64,
    bytes: u32,
}

// === impl Walker ===

impl Walker {
    /// A walker along `path`, which must not be empty.
    #[must_use]
    pub fn new(path: FieldPath) -> Self {
        let state = if path.is_empty() { State::Done(Look::Absent) } else { State::Prefix { seen: 0, length: 0 } };
        Self { path, depth: 0, at: 0, end: 0, state }
    }

    /// Takes the next bytes of the call. Once the answer is not [`Look::More`] it stays.
    pub fn feed(&mut self, mut piece: &[u8]) -> Look {
        loop {
            let next = match &mut self.state {
                State::Done(look) => return look.clone(),
                State::Prefix { seen: 5, length } => {
                    self.end = u64::from(*length);
                    State::Tag(Varint::default())
                }
                State::Prefix { seen, length } => {
                    let Some(byte) = take(&mut piece) else { return Look::More };
                    match *seen {
                        0 if byte != 0 => State::Done(Look::Malformed("the message is compressed")),
                        0 => State::Prefix { seen: 1, length: 0 },
                        seen => State::Prefix { seen: seen + 1, length: *length << 8 | u32::from(byte) },
                    }
                }
                State::Tag(varint) if self.at == self.end && varint.bytes == 0 => State::Done(Look::Absent),
                State::Enter { end } => {
                    self.end = *end;
                    self.depth += 1;
                    State::Tag(Varint::default())
                }
                State::Skip { left: 0 } => State::Tag(Varint::default()),
                State::Name { left: 0, name } => State::Done(Look::Name(std::mem::take(name))),
                _ if self.at == self.end => State::Done(Look::Malformed("a field is longer than its message")),
                _ if self.at >= LIMIT => State::Done(Look::Beyond),
                State::Skip { left } => {
                    let step = (piece.len() as u64).min(*left);
                    piece = &piece[step as usize..];
                    self.at += step;
                    *left -= step;
                    if *left > 0 {
                        return Look::More;
                    }
                    continue;
                }
                State::Name { left, name } => {
                    let step = (piece.len() as u64).min(*left);
                    name.extend_from_slice(&piece[..step as usize]);
                    piece = &piece[step as usize..];
                    self.at += step;
                    *left -= step;
                    if *left > 0 {
                        return Look::More;
                    }
                    continue;
                }
                State::Tag(varint) | State::SkipVarint(varint) | State::Length { varint, .. } => {
                    let Some(byte) = take(&mut piece) else { return Look::More };
                    self.at += 1;
                    match varint.push(byte) {
                        Err(look) => State::Done(look),
                        Ok(false) => continue,
                        Ok(true) => self.varint_read(),
                    }
                }
            };
            self.state = next;
        }
    }

    /// The call ended: what was not found yet will not come.
    #[must_use]
    pub fn finish(&mut self) -> Look {
        match &self.state {
            State::Done(look) => look.clone(),
            State::Prefix { seen: 0, .. } => Look::Malformed("the call has no message"),
            _ => match self.feed(&[]) {
                Look::More => Look::Malformed("the message is cut off"),
                look => look,
            },
        }
    }

    /// A whole varint was read: where it leads.
    fn varint_read(&self) -> State {
        match self.state {
            State::Tag(Varint { value: tag, .. }) => {
                let (number, wire) = (tag >> 3, tag & 7);
                let wanted = number == u64::from(self.path[self.depth]);
                match wire {
                    _ if number == 0 || number > 0x1fff_ffff => {
                        State::Done(Look::Malformed("a field has no valid number"))
                    }
                    3 | 4 => State::Done(Look::Malformed("group fields are not supported")),
                    6 | 7 => State::Done(Look::Malformed("a field has no valid type")),
                    2 => State::Length { wanted, varint: Varint::default() },
                    _ if wanted => State::Done(Look::Malformed("the name's field is not a string")),
                    0 => State::SkipVarint(Varint::default()),
                    1 => State::Skip { left: 8 },
                    _ => State::Skip { left: 4 },
                }
            }
            State::Length { wanted, varint: Varint { value: length, .. } } => self.length_read(wanted, length),
            _ => State::Tag(Varint::default()),
        }
    }

    fn length_read(&self, wanted: bool, length: u64) -> State {
        let Some(end) = self.at.checked_add(length).filter(|end| *end <= self.end) else {
            return State::Done(Look::Malformed("a field is longer than its message"));
        };
        let last = self.depth + 1 == self.path.len();
        match wanted {
            true if !last => State::Enter { end },
            true if end > LIMIT => State::Done(Look::Beyond),
            true => State::Name { left: length, name: Vec::with_capacity(length as usize) },
            false if end >= LIMIT => State::Done(Look::Beyond),
            false => State::Skip { left: length },
        }
    }
}

// === impl Varint ===

impl Varint {
    /// Takes a byte; true once the number is whole.
    fn push(&mut self, byte: u8) -> Result<bool, Look> {
        if self.bytes == 9 && byte > 1 {
            return Err(Look::Malformed("a number is too long"));
        }
        self.value |= u64::from(byte & 0x7f) << (7 * self.bytes);
        self.bytes += 1;
        Ok(byte & 0x80 == 0)
    }
}

fn take(piece: &mut &[u8]) -> Option<u8> {
    let (first, rest) = piece.split_first()?;
    *piece = rest;
    Some(*first)
}
