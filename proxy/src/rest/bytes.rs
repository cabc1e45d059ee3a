//! BYTES tensors in JSON: strings, base64 strings, or arrays of byte values.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::{BufMut as _, Bytes, BytesMut};

use super::{
    error::{bad, bad_input},
    json::{Kind, Reader},
    shape,
};
use crate::engine::answer::{Answer, Reason};

/// What an element costs beside its bytes, in the bound of a tensor's size.
const ELEMENT: usize = 8;

/// Elements that share one buffer.
#[derive(Default)]
struct Elements {
    buffer: Vec<u8>,
    ends: Vec<usize>,
}

/// The elements of a BYTES tensor, whose bytes and number are bounded by `limit` bytes.
pub(super) fn read(
    reader: &mut Reader<'_>,
    tensor: &str,
    dims: &[i64],
    base64: bool,
    limit: usize,
) -> Result<Vec<Bytes>, Answer> {
    if dims.len() <= 1 && reader.is_null()? {
        return Ok(Vec::new());
    }
    if reader.peek()? != Kind::Array {
        return Err(shape::not_an_array());
    }
    let count = shape::input_elements(tensor, dims)?;
    let mut elements = Elements::default();
    let (depth, kind) = match look_ahead(reader)? {
        // Nothing but empty arrays: elements without bytes, where the shape has elements below the outermost.
        (depth, None) if depth > 1 && count > 0 => (depth, Some(Kind::Number)),
        found => found,
    };
    match kind {
        Some(Kind::Number) => {
            let lists = depth - 1;
            if lists == 0 {
                return Err(bad("invalid tensor data: must be an array of byte arrays"));
            }
            if lists != 1 && lists != dims.len() {
                return Err(bad(BYTE_ARRAY_NESTING));
            }
            walk(reader, lists, BYTE_ARRAY_NESTING, &mut |reader| {
                elements.push_byte_array(reader)?;
                elements.bounded(tensor, limit)
            })?;
        }
        Some(Kind::String) | None => {
            if kind.is_some() && depth != 1 && depth != dims.len() {
                return Err(bad(STRING_NESTING));
            }
            walk(reader, depth, STRING_NESTING, &mut |reader| {
                elements.push_string(reader, base64)?;
                if elements.ends.len() > count {
                    return Err(bad("more strings than expected for tensor shape"));
                }
                elements.bounded(tensor, limit)
            })?;
        }
        Some(_) => return Err(bad(NOT_STRINGS)),
    }
    Ok(elements.finish())
}

/// Raw form: a little-endian length of four bytes before each element.
pub(super) fn to_raw(elements: &[Bytes]) -> Option<Bytes> {
    let mut raw = BytesMut::with_capacity(elements.iter().map(|element| element.len() + 4).sum());
    for element in elements {
        raw.put_u32_le(u32::try_from(element.len()).ok()?);
        raw.put_slice(element);
    }
    Some(raw.freeze())
}

/// The elements of the raw form, each with its bytes; `None` in place of one that is cut off.
pub(super) fn split(mut raw: &[u8]) -> impl Iterator<Item = Option<&[u8]>> {
    std::iter::from_fn(move || {
        if raw.is_empty() {
            return None;
        }
        let cut = raw
            .split_first_chunk()
            .and_then(|(length, rest)| rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?));
        raw = cut.map_or(&[], |(_, rest)| rest);
        Some(cut.map(|(element, _)| element))
    })
}

const STRING_NESTING: &str = "data array nesting does not match tensor shape";
const BYTE_ARRAY_NESTING: &str = "array nesting does not match tensor shape";
const NOT_STRINGS: &str = "tensor data must be a flat or nested json array of strings";

/// How deep the first value stands in arrays, and its kind; without any value, how deep the arrays go.
fn look_ahead(reader: &Reader<'_>) -> Result<(usize, Option<Kind>), Answer> {
    let mut ahead = reader.clone();
    ahead.enter_array()?;
    let (mut open, mut deepest, mut first) = (1, 1, true);
    while open > 0 {
        if !ahead.next_element(&mut first)? {
            open -= 1;
            continue;
        }
        match ahead.peek()? {
            Kind::Array => ahead.enter_array()?,
            kind => return Ok((open, Some(kind))),
        }
        (open, first) = (open + 1, true);
        deepest = deepest.max(open);
    }
    Ok((deepest, None))
}

/// Calls `one` for each value that stands `depth` arrays deep, and refuses any at another depth. Not recursive: the
/// depth is the caller's text.
fn walk(
    reader: &mut Reader<'_>,
    depth: usize,
    nesting: &'static str,
    one: &mut dyn FnMut(&mut Reader<'_>) -> Result<(), Answer>,
) -> Result<(), Answer> {
    reader.enter_array()?;
    let (mut open, mut first) = (1, true);
    while open > 0 {
        if !reader.next_element(&mut first)? {
            open -= 1;
        } else if open == depth {
            one(reader)?;
        } else if reader.peek()? == Kind::Array {
            reader.enter_array()?;
            open += 1;
            first = true;
        } else {
            return Err(bad(nesting));
        }
    }
    Ok(())
}

// === impl Elements ===

impl Elements {
    fn push_string(&mut self, reader: &mut Reader<'_>, base64: bool) -> Result<(), Answer> {
        match reader.peek()? {
            Kind::String => {}
            Kind::Array => return Err(bad(STRING_NESTING)),
            _ => return Err(bad(NOT_STRINGS)),
        }
        let string = reader.string()?;
        if base64 {
            STANDARD
                .decode_vec(string.as_bytes(), &mut self.buffer)
                .map_err(|error| bad(format!("error decoding json string as base64: {error}")))?;
        } else {
            self.buffer.extend_from_slice(string.as_bytes());
        }
        self.ends.push(self.buffer.len());
        Ok(())
    }

    fn push_byte_array(&mut self, reader: &mut Reader<'_>) -> Result<(), Answer> {
        if reader.peek()? != Kind::Array {
            return Err(bad(BYTE_ARRAY_NESTING));
        }
        reader.enter_array()?;
        let mut first = true;
        while reader.next_element(&mut first)? {
            if reader.peek()? == Kind::Array {
                return Err(bad(BYTE_ARRAY_NESTING));
            }
            let number = reader.number()?;
            self.buffer.push(number.parse().map_err(|_| bad(format!("cannot take {number} as a byte of BYTES")))?);
        }
        self.ends.push(self.buffer.len());
        Ok(())
    }

    fn bounded(&self, tensor: &str, limit: usize) -> Result<(), Answer> {
        if self.buffer.len() + ELEMENT * self.ends.len() <= limit {
            return Ok(());
        }
        let text = bad_input(tensor, "its strings are too many or too long").text;
        Err(Answer::new(Reason::TL, text))
    }

    fn finish(self) -> Vec<Bytes> {
        let buffer = Bytes::from(self.buffer);
        let mut start = 0;
        self.ends.into_iter().map(|end| buffer.slice(std::mem::replace(&mut start, end)..end)).collect()
    }
}
