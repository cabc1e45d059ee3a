//! Data of tensors: JSON into typed contents, and typed contents into the raw form.

use std::str::FromStr;

use bytes::Bytes;
use modelring_proto::inference::{InferTensorContents, model_infer_request::InferInputTensor};

use super::{
    bytes as byte_strings,
    datatype::Datatype,
    error::bad_input,
    half,
    json::{Kind, Reader},
    params, shape,
};
use crate::engine::answer::Answer;

/// Data of one input.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Data {
    /// In the field of its type.
    Typed(InferTensorContents),
    /// Little-endian, row-major.
    Raw(Bytes),
}

/// Reads the `data` of an input; `limit` bounds what strings may become, bytes.
pub(super) fn read(
    reader: &mut Reader<'_>,
    tensor: &InferInputTensor,
    datatype: Datatype,
    limit: usize,
) -> Result<Data, Answer> {
    let (name, dims) = (tensor.name.as_str(), tensor.shape.as_slice());
    let mut contents = InferTensorContents::default();
    match datatype {
        Datatype::Bool => {
            contents.bool_contents = shape::read(reader, name, dims, |r| {
                if r.peek()? == Kind::Bool { Ok(r.boolean()?) } else { Err(wrong(r, name, datatype, "true or false")) }
            })?;
        }
        Datatype::Int8 | Datatype::Int16 | Datatype::Int32 => {
            contents.int_contents = shape::read(reader, name, dims, |r| integer(r, name, datatype))?;
        }
        Datatype::Int64 => contents.int64_contents = shape::read(reader, name, dims, |r| integer(r, name, datatype))?,
        Datatype::Uint8 | Datatype::Uint16 | Datatype::Uint32 => {
            contents.uint_contents = shape::read(reader, name, dims, |r| integer(r, name, datatype))?;
        }
        Datatype::Uint64 => contents.uint64_contents = shape::read(reader, name, dims, |r| integer(r, name, datatype))?,
        Datatype::Fp32 => {
            contents.fp32_contents = shape::read(reader, name, dims, |r| {
                float(r, name, datatype, |text| text.parse().ok().filter(|value: &f32| value.is_finite()))
            })?;
        }
        Datatype::Fp64 => {
            contents.fp64_contents = shape::read(reader, name, dims, |r| float(r, name, datatype, finite))?;
        }
        Datatype::Fp16 | Datatype::Bf16 => {
            let narrow = if datatype == Datatype::Fp16 { half::fp16 } else { half::bf16 };
            let values =
                shape::read(reader, name, dims, |r| float(r, name, datatype, |text| finite(text).and_then(narrow)))?;
            return Ok(Data::Raw(values.into_iter().flat_map(u16::to_le_bytes).collect()));
        }
        Datatype::Bytes => {
            let content_type = params::text(&tensor.parameters, "content_type");
            let base64 = matches!(content_type, Some("base64" | "b64" | "BASE64" | "B64"));
            contents.bytes_contents = byte_strings::read(reader, name, dims, base64, limit)?;
        }
    }
    Ok(Data::Typed(contents))
}

/// Typed contents in the raw form; `None` where a value does not fit its datatype, or the datatype has no typed form.
pub(super) fn to_raw(datatype: Datatype, contents: &InferTensorContents) -> Option<Bytes> {
    fn each<T: Copy, const N: usize>(values: &[T], bytes: impl Fn(T) -> Option<[u8; N]>) -> Option<Bytes> {
        let mut raw = Vec::with_capacity(values.len() * N);
        for &value in values {
            raw.extend_from_slice(&bytes(value)?);
        }
        Some(raw.into())
    }
    match datatype {
        Datatype::Bool => each(&contents.bool_contents, |v| Some([u8::from(v)])),
        Datatype::Int8 => each(&contents.int_contents, |v| Some(i8::try_from(v).ok()?.to_le_bytes())),
        Datatype::Int16 => each(&contents.int_contents, |v| Some(i16::try_from(v).ok()?.to_le_bytes())),
        Datatype::Int32 => each(&contents.int_contents, |v| Some(v.to_le_bytes())),
        Datatype::Int64 => each(&contents.int64_contents, |v| Some(v.to_le_bytes())),
        Datatype::Uint8 => each(&contents.uint_contents, |v| Some(u8::try_from(v).ok()?.to_le_bytes())),
        Datatype::Uint16 => each(&contents.uint_contents, |v| Some(u16::try_from(v).ok()?.to_le_bytes())),
        Datatype::Uint32 => each(&contents.uint_contents, |v| Some(v.to_le_bytes())),
        Datatype::Uint64 => each(&contents.uint64_contents, |v| Some(v.to_le_bytes())),
        Datatype::Fp32 => each(&contents.fp32_contents, |v| Some(v.to_le_bytes())),
        Datatype::Fp64 => each(&contents.fp64_contents, |v| Some(v.to_le_bytes())),
        Datatype::Bytes => byte_strings::to_raw(&contents.bytes_contents),
        Datatype::Fp16 | Datatype::Bf16 => None,
    }
}

fn integer<T: FromStr>(reader: &mut Reader<'_>, tensor: &str, datatype: Datatype) -> Result<T, Answer> {
    let number = number(reader, tensor, datatype)?;
    number.parse().map_err(|_| unfit(tensor, datatype, number))
}

fn float<T>(
    reader: &mut Reader<'_>,
    tensor: &str,
    datatype: Datatype,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<T, Answer> {
    let number = number(reader, tensor, datatype)?;
    parse(number).ok_or_else(|| unfit(tensor, datatype, number))
}

fn number<'a>(reader: &mut Reader<'a>, tensor: &str, datatype: Datatype) -> Result<&'a str, Answer> {
    if reader.peek()? == Kind::Number {
        return Ok(reader.number()?);
    }
    Err(wrong(reader, tensor, datatype, "a number"))
}

fn finite(text: &str) -> Option<f64> {
    text.parse().ok().filter(|value: &f64| value.is_finite())
}

#[cold]
fn wrong(reader: &Reader<'_>, tensor: &str, datatype: Datatype, wanted: &str) -> Answer {
    bad_input(tensor, format_args!("{datatype} wants {wanted} at byte {} of the body", reader.at()))
}

#[cold]
fn unfit(tensor: &str, datatype: Datatype, number: &str) -> Answer {
    let shown: String = number.chars().take(40).collect();
    bad_input(tensor, format_args!("cannot take {shown} as {datatype}"))
}
