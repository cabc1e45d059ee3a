//! Shapes, and arrays that follow them.

use super::{
    error::{bad, bad_input},
    json::{Kind, Reader},
};
use crate::engine::answer::Answer;

/// Dimensions that a tensor may have.
const MAX_RANK: usize = 64;

/// An array that is being read, flat or nested as its tensor's shape.
struct Nest<'a, T, F> {
    tensor: &'a str,
    shape: &'a [i64],
    /// Index at each depth above the one being read.
    place: Vec<usize>,
    values: Vec<T>,
    one: F,
}

/// How many elements a tensor of this shape has (1 without dimensions).
pub(super) fn elements(shape: &[i64]) -> Option<usize> {
    shape.iter().try_fold(1usize, |product, &dim| product.checked_mul(usize::try_from(dim).ok()?))
}

/// The same of an input; the error names the tensor.
pub(super) fn input_elements(tensor: &str, shape: &[i64]) -> Result<usize, Answer> {
    elements(shape).ok_or_else(|| bad_input(tensor, format_args!("no tensor has the shape {shape:?}")))
}

/// The dimensions of an input.
pub(super) fn read_shape(reader: &mut Reader<'_>) -> Result<Vec<i64>, Answer> {
    let mut shape = Vec::new();
    if reader.is_null()? {
        return Ok(shape);
    }
    reader.enter_array()?;
    let mut first = true;
    while reader.next_element(&mut first)? {
        let number = reader.number()?;
        shape.push(number.parse().map_err(|_| bad(format!("cannot take {number} as a dimension of a shape")))?);
        if shape.len() > MAX_RANK {
            return Err(bad(format!("a shape has more than {MAX_RANK} dimensions")));
        }
    }
    Ok(shape)
}

/// The elements of an array that is flat, or nested as `shape`; `one` reads an element. Their number must be what the
/// shape says; only `null` of rank 0 and 1 is no elements whatever it says.
pub(super) fn read<T>(
    reader: &mut Reader<'_>,
    tensor: &str,
    shape: &[i64],
    one: impl FnMut(&mut Reader<'_>) -> Result<T, Answer>,
) -> Result<Vec<T>, Answer> {
    if shape.len() <= 1 && reader.is_null()? {
        return Ok(Vec::new());
    }
    if reader.peek()? != Kind::Array {
        return Err(not_an_array());
    }
    let count = input_elements(tensor, shape)?;
    let nested = shape.len() > 1 && is_nested(reader)?;
    // An element takes two bytes of text, so a shape cannot ask for more than the text can hold.
    let values = Vec::with_capacity(count.min(reader.left() / 2 + 1));
    let mut nest = Nest { tensor, shape, place: Vec::new(), values, one };
    if nested {
        nest.level(reader)?
    } else {
        nest.flat(reader, count)?
    }
    Ok(nest.values)
}

/// `data` is something else than an array.
pub(super) fn not_an_array() -> Answer {
    bad("invalid tensor data: not a json array")
}

fn is_nested(reader: &Reader<'_>) -> Result<bool, Answer> {
    let mut ahead = reader.clone();
    ahead.enter_array()?;
    Ok(ahead.next_element(&mut true)? && ahead.peek()? == Kind::Array)
}

// === impl Nest ===

impl<T, F: FnMut(&mut Reader<'_>) -> Result<T, Answer>> Nest<'_, T, F> {
    fn flat(&mut self, reader: &mut Reader<'_>, count: usize) -> Result<(), Answer> {
        reader.enter_array()?;
        let mut first = true;
        while reader.next_element(&mut first)? {
            self.values.push((self.one)(reader)?);
        }
        if self.values.len() == count {
            return Ok(());
        }
        let (found, shape) = (self.values.len(), self.shape);
        Err(bad_input(self.tensor, format_args!("data has {found} elements, the shape {shape:?} has {count}")))
    }

    /// Reads the array of one index in `place`.
    fn level(&mut self, reader: &mut Reader<'_>) -> Result<(), Answer> {
        let depth = self.place.len();
        if reader.peek()? != Kind::Array {
            return Err(self.misfit("is not an array"));
        }
        reader.enter_array()?;
        let (mut found, mut first) = (0, true);
        while reader.next_element(&mut first)? {
            if depth + 1 == self.shape.len() {
                self.values.push((self.one)(reader)?);
            } else {
                self.place.push(found);
                self.level(reader)?;
                self.place.pop();
            }
            found += 1;
        }
        if usize::try_from(self.shape[depth]) == Ok(found) {
            return Ok(());
        }
        Err(self.misfit(&format!("has {found} elements")))
    }

    #[cold]
    fn misfit(&self, what: &str) -> Answer {
        let place: String = self.place.iter().map(|index| format!("[{index}]")).collect();
        let (shape, wanted) = (self.shape, self.shape[self.place.len()]);
        bad_input(self.tensor, format_args!("data{place} {what}, the shape {shape:?} wants {wanted} there"))
    }
}
