//! Between typed contents and the raw form.

use bytes::{BufMut, Bytes, BytesMut};
use modelring_proto::inference::InferTensorContents;

use crate::{datatype::DataType, tensor::Tensor};

/// The field of typed contents that carries a type; `None` for FP16, which only the raw form carries.
pub(crate) fn field(datatype: DataType) -> Option<&'static str> {
    match datatype {
        DataType::Bool => Some("bool_contents"),
        DataType::Int8 | DataType::Int16 | DataType::Int32 => Some("int_contents"),
        DataType::Int64 => Some("int64_contents"),
        DataType::Uint8 | DataType::Uint16 | DataType::Uint32 => Some("uint_contents"),
        DataType::Uint64 => Some("uint64_contents"),
        DataType::Fp16 => None,
        DataType::Fp32 => Some("fp32_contents"),
        DataType::Fp64 => Some("fp64_contents"),
        DataType::Bytes => Some("bytes_contents"),
    }
}

/// How many elements each field of the contents has, those without any left out.
pub(crate) fn counts(contents: &InferTensorContents) -> Vec<(&'static str, usize)> {
    let all = [
        ("bool_contents", contents.bool_contents.len()),
        ("int_contents", contents.int_contents.len()),
        ("int64_contents", contents.int64_contents.len()),
        ("uint_contents", contents.uint_contents.len()),
        ("uint64_contents", contents.uint64_contents.len()),
        ("fp32_contents", contents.fp32_contents.len()),
        ("fp64_contents", contents.fp64_contents.len()),
        ("bytes_contents", contents.bytes_contents.len()),
    ];
    all.into_iter().filter(|(_, count)| *count > 0).collect()
}

/// The raw form of typed contents. An element that its type does not hold is answered as the error.
pub(crate) fn to_raw(datatype: DataType, contents: &InferTensorContents) -> Result<Bytes, i64> {
    /// Packs numbers, each narrowed by `$narrow` where the wire type is wider.
    macro_rules! pack {
        ($values:expr) => {
            Ok($values.iter().flat_map(|value| value.to_le_bytes()).collect())
        };
        ($values:expr, $narrow:ty) => {{
            let mut raw = BytesMut::with_capacity($values.len() * size_of::<$narrow>());
            for value in $values {
                raw.put_slice(&<$narrow>::try_from(*value).map_err(|_| i64::from(*value))?.to_le_bytes());
            }
            Ok(raw.freeze())
        }};
    }
    match datatype {
        DataType::Bool => Ok(contents.bool_contents.iter().map(|value| u8::from(*value)).collect()),
        DataType::Int8 => pack!(&contents.int_contents, i8),
        DataType::Int16 => pack!(&contents.int_contents, i16),
        DataType::Int32 => pack!(&contents.int_contents),
        DataType::Int64 => pack!(&contents.int64_contents),
        DataType::Uint8 => pack!(&contents.uint_contents, u8),
        DataType::Uint16 => pack!(&contents.uint_contents, u16),
        DataType::Uint32 => pack!(&contents.uint_contents),
        DataType::Uint64 => pack!(&contents.uint64_contents),
        DataType::Fp16 => Ok(Bytes::new()),
        DataType::Fp32 => pack!(&contents.fp32_contents),
        DataType::Fp64 => pack!(&contents.fp64_contents),
        DataType::Bytes => Ok(join(contents.bytes_contents.iter())),
    }
}

/// The typed contents of a tensor; `None` for FP16.
pub(crate) fn from_raw(tensor: &Tensor) -> Option<InferTensorContents> {
    macro_rules! unpack {
        ($type:ty) => {
            tensor
                .data
                .chunks_exact(size_of::<$type>())
                .map(|chunk| <$type>::from_le_bytes(chunk.try_into().expect("the chunk has this size")).into())
                .collect()
        };
    }
    let mut contents = InferTensorContents::default();
    match tensor.datatype {
        DataType::Bool => contents.bool_contents = tensor.data.iter().map(|byte| *byte != 0).collect(),
        DataType::Int8 => contents.int_contents = unpack!(i8),
        DataType::Int16 => contents.int_contents = unpack!(i16),
        DataType::Int32 => contents.int_contents = unpack!(i32),
        DataType::Int64 => contents.int64_contents = unpack!(i64),
        DataType::Uint8 => contents.uint_contents = unpack!(u8),
        DataType::Uint16 => contents.uint_contents = unpack!(u16),
        DataType::Uint32 => contents.uint_contents = unpack!(u32),
        DataType::Uint64 => contents.uint64_contents = unpack!(u64),
        DataType::Fp16 => return None,
        DataType::Fp32 => contents.fp32_contents = unpack!(f32),
        DataType::Fp64 => contents.fp64_contents = unpack!(f64),
        DataType::Bytes => contents.bytes_contents = split(&tensor.data)?,
    }
    Some(contents)
}

/// The elements of BYTES in raw form; `None` where a length does not fit.
pub fn split(raw: &Bytes) -> Option<Vec<Bytes>> {
    let mut elements = Vec::new();
    let mut at = 0;
    while at < raw.len() {
        let (length, _) = raw[at..].split_first_chunk()?;
        let start = at + size_of::<u32>();
        at = start.checked_add(usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
        if at > raw.len() {
            return None;
        }
        elements.push(raw.slice(start..at));
    }
    Some(elements)
}

/// BYTES in raw form, of its elements.
pub fn join<T: AsRef<[u8]>>(elements: impl Iterator<Item = T>) -> Bytes {
    let mut raw = BytesMut::new();
    for element in elements {
        let element = element.as_ref();
        raw.put_u32_le(u32::try_from(element.len()).unwrap_or(u32::MAX));
        raw.put_slice(element);
    }
    raw.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(datatype: DataType, data: Bytes) -> Tensor {
        Tensor { datatype, shape: vec![], data }
    }

    #[test]
    fn typed_contents_survive_the_way_there_and_back() {
        let contents = InferTensorContents {
            int_contents: vec![-128, 0, 127],
            uint64_contents: vec![u64::MAX, 1],
            fp32_contents: vec![1.5, -0.0, f32::INFINITY],
            bool_contents: vec![true, false],
            bytes_contents: vec![Bytes::from_static(b""), Bytes::from_static(b"caf\xc3\xa9")],
            ..InferTensorContents::default()
        };
        let back = |datatype| from_raw(&tensor(datatype, to_raw(datatype, &contents).unwrap())).unwrap();
        assert_eq!(back(DataType::Int8).int_contents, contents.int_contents);
        assert_eq!(back(DataType::Uint64).uint64_contents, contents.uint64_contents);
        assert_eq!(back(DataType::Fp32).fp32_contents, contents.fp32_contents);
        assert_eq!(back(DataType::Bool).bool_contents, contents.bool_contents);
        assert_eq!(back(DataType::Bytes).bytes_contents, contents.bytes_contents);
    }

    #[test]
    fn the_raw_form_is_little_endian_and_lengths_stand_before_bytes() {
        let contents = InferTensorContents {
            int_contents: vec![258],
            bytes_contents: vec![Bytes::from_static(b"ab")],
            ..InferTensorContents::default()
        };
        assert_eq!(to_raw(DataType::Int16, &contents).unwrap().as_ref(), [2, 1]);
        assert_eq!(to_raw(DataType::Bytes, &contents).unwrap().as_ref(), [2, 0, 0, 0, b'a', b'b']);
    }

    #[test]
    fn a_value_beyond_its_type_is_told() {
        let contents =
            InferTensorContents { int_contents: vec![1, 300], uint_contents: vec![70_000], ..Default::default() };
        assert_eq!(to_raw(DataType::Int8, &contents), Err(300));
        assert_eq!(to_raw(DataType::Uint16, &contents), Err(70_000));
    }

    #[test]
    fn a_length_beyond_the_end_is_no_element() {
        for raw in [&[5, 0, 0, 0, b'a'][..], &[1, 0], &[255, 255, 255, 255]] {
            assert_eq!(split(&Bytes::copy_from_slice(raw)), None, "{raw:?}");
        }
    }
}
