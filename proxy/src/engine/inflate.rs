//! Makes compressed request messages plain, so that they can be read and appended to.
//!
//! A compressed message is inflated as it arrives, collected up to the size limit, and goes on as a plain one. The
//! request's `grpc-encoding` never reaches the server.

use std::io::{self, Write};

use bytes::{BufMut, Bytes, BytesMut};
use flate2::write::GzDecoder;
use http::HeaderMap;

use super::{
    answer::{Answer, Reason},
    tail::PREFIX,
};

/// Reads the messages of a call whose `grpc-encoding` is gzip.
pub(super) struct Inflate {
    limit: usize,
    state: State,
}

enum State {
    Prefix { seen: usize, bytes: [u8; PREFIX] },
    Plain { left: usize },
    Packed { left: usize, decoder: Box<GzDecoder<Capped>> },
}

struct Capped {
    bytes: Vec<u8>,
    limit: usize,
    over: bool,
}

const START: State = State::Prefix { seen: 0, bytes: [0; PREFIX] };

// === impl Inflate ===

impl Inflate {
    /// What the encoding of a call asks for; `None` where its messages are plain.
    ///
    /// # Errors
    ///
    /// `MN` for an encoding that is not known here.
    pub(super) fn of(headers: &HeaderMap, limit: usize) -> Result<Option<Self>, Answer> {
        match headers.get("grpc-encoding").map(http::HeaderValue::as_bytes) {
            None | Some(b"identity") => Ok(None),
            Some(b"gzip") => Ok(Some(Self { limit, state: START })),
            Some(other) => {
                let other = String::from_utf8_lossy(other);
                let text = format!("message encoding `{other}` is not supported: use gzip or identity");
                Err(Answer::new(Reason::MN, text))
            }
        }
    }

    /// Takes bytes and hands on plain ones.
    ///
    /// # Errors
    ///
    /// `TL` over the limit, `BR` if this is no gzip.
    pub(super) fn push(&mut self, mut piece: Bytes, mut out: impl FnMut(Bytes)) -> Result<(), Answer> {
        while !piece.is_empty() {
            match &mut self.state {
                State::Prefix { seen, bytes } => {
                    let step = piece.len().min(PREFIX - *seen);
                    bytes[*seen..*seen + step].copy_from_slice(&piece.split_to(step));
                    *seen += step;
                    if *seen == PREFIX {
                        let bytes = *bytes;
                        self.begin(bytes, &mut out)?;
                    }
                }
                State::Plain { left } => {
                    let step = piece.len().min(*left);
                    out(piece.split_to(step));
                    *left -= step;
                }
                State::Packed { left, decoder } => {
                    let step = piece.len().min(*left);
                    let written = decoder.write_all(&piece.split_to(step));
                    *left -= step;
                    written.map_err(|error| refuse(decoder, &error))?;
                }
            }
            self.end(&mut out)?;
        }
        Ok(())
    }

    /// Bytes held.
    pub(super) fn cost(&self) -> usize {
        match &self.state {
            State::Packed { decoder, .. } => decoder.get_ref().bytes.capacity(),
            _ => 0,
        }
    }

    fn begin(&mut self, bytes: [u8; PREFIX], out: &mut impl FnMut(Bytes)) -> Result<(), Answer> {
        let [flag, length @ ..] = bytes;
        let left = u32::from_be_bytes(length) as usize;
        self.state = match flag {
            1 if left > self.limit => return Err(too_large(self.limit)),
            1 => {
                let sink = Capped { bytes: Vec::new(), limit: self.limit, over: false };
                State::Packed { left, decoder: Box::new(GzDecoder::new(sink)) }
            }
            0 => {
                out(Bytes::copy_from_slice(&bytes));
                State::Plain { left }
            }
            _ => return Err(Answer::new(Reason::BR, "a message has no valid compression flag")),
        };
        Ok(())
    }

    fn end(&mut self, out: &mut impl FnMut(Bytes)) -> Result<(), Answer> {
        match &mut self.state {
            State::Plain { left: 0 } => self.state = START,
            State::Packed { left: 0, decoder } => {
                decoder.try_finish().map_err(|error| refuse(decoder, &error))?;
                let message = std::mem::take(&mut decoder.get_mut().bytes);
                let mut prefix = BytesMut::with_capacity(PREFIX);
                prefix.put_u8(0);
                prefix.put_u32(u32::try_from(message.len()).map_err(|_| too_large(self.limit))?);
                out(prefix.freeze());
                out(message.into());
                self.state = START;
            }
            _ => {}
        }
        Ok(())
    }
}

fn too_large(limit: usize) -> Answer {
    Answer::new(Reason::TL, format!("a message is larger than the limit of {limit} bytes when inflated"))
}

fn refuse(decoder: &GzDecoder<Capped>, error: &io::Error) -> Answer {
    match decoder.get_ref() {
        sink if sink.over => too_large(sink.limit),
        _ => Answer::new(Reason::BR, format!("a message is no valid gzip: {error}")),
    }
}

// === impl Capped ===

impl Write for Capped {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + piece.len() > self.limit {
            self.over = true;
            return Err(io::Error::from(io::ErrorKind::FileTooLarge));
        }
        self.bytes.extend_from_slice(piece);
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use flate2::{Compression, write::GzEncoder};

    use super::*;

    fn framed(flag: u8, message: &[u8]) -> Vec<u8> {
        let mut bytes = vec![flag];
        bytes.extend_from_slice(&(message.len() as u32).to_be_bytes());
        bytes.extend_from_slice(message);
        bytes
    }

    fn gzip(message: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(message).expect("writes");
        encoder.finish().expect("finishes")
    }

    fn reader(limit: usize) -> Inflate {
        let headers = HeaderMap::from_iter([("grpc-encoding".parse().expect("name"), "gzip".parse().expect("value"))]);
        Inflate::of(&headers, limit).expect("known").expect("gzip")
    }

    #[test]
    fn plain_and_packed_messages_come_out_plain_at_every_split() {
        let wire = [framed(1, &gzip(b"first")), framed(0, b"second"), framed(1, &gzip(b"")), framed(0, b"")].concat();
        let plain = [framed(0, b"first"), framed(0, b"second"), framed(0, b""), framed(0, b"")].concat();
        for size in 1..=wire.len() {
            let (mut inflate, mut out) = (reader(1000), Vec::new());
            for piece in wire.chunks(size) {
                inflate.push(Bytes::copy_from_slice(piece), |b| out.extend_from_slice(&b)).expect("is valid");
            }
            assert_eq!(out, plain);
        }
    }

    #[test]
    fn a_gzip_bomb_stops_at_the_limit() {
        let bomb = framed(1, &gzip(&vec![0; 1 << 20]));
        let refused = reader(1 << 16).push(bomb.into(), |_| {}).expect_err("is too large");
        assert_eq!(refused.reason, Some(Reason::TL));
    }

    #[test]
    fn what_is_no_gzip_is_refused() {
        let refused = reader(1000).push(framed(1, b"not gzip at all").into(), |_| {}).expect_err("is no gzip");
        assert_eq!(refused.reason, Some(Reason::BR));
    }
}
