//! `ModelInferResponse` -> the body of the answer.

use std::mem;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use modelring_proto::inference::{
    InferTensorContents, ModelInferResponse, infer_parameter::ParameterChoice as Choice,
    model_infer_response::InferOutputTensor,
};
use serde::{Serialize, Serializer as _, ser::SerializeSeq as _};

use super::{binary::OutputForm, bytes as byte_strings, datatype::Datatype, error::unshowable, params, shape, tensor};
use crate::engine::answer::Answer;

/// An encoded answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// The body.
    pub body: Vec<u8>,
    /// Bytes of JSON at its front where binary tensors follow: the value of `Inference-Header-Content-Length`, and the
    /// content type is `application/octet-stream`; else all is JSON.
    pub header_length: Option<usize>,
}

/// Where the data of an output is.
enum Source<'a> {
    Raw(&'a Bytes),
    Typed(&'a InferTensorContents),
    /// Nowhere, and its shape has no elements either.
    Nothing,
}

/// Encodes an answer: each output in JSON, or behind it where `form` says so.
///
/// Empty members are left out and data is flat. NaN and infinities, which JSON has not, are `null`.
///
/// # Errors
///
/// What the model server sent cannot be shown: data that does not fit its shape, or FP16, BF16 or an unknown datatype
/// asked for as JSON.
pub fn encode(message: &ModelInferResponse, form: &OutputForm) -> Result<Encoded, Answer> {
    let mut out = Vec::with_capacity(256 + message.raw_output_contents.iter().map(Bytes::len).sum::<usize>());
    let mut tail: Vec<Bytes> = Vec::new();
    let mut lead = b'{';
    for (name, text) in
        [("model_name", &message.model_name), ("model_version", &message.model_version), ("id", &message.id)]
    {
        if !text.is_empty() {
            member(&mut out, &mut lead, name);
            value(&mut out, text);
        }
    }
    if !message.parameters.is_empty() {
        member(&mut out, &mut lead, "parameters");
        params::write(&mut out, &message.parameters, None);
    }
    if !message.outputs.is_empty() {
        member(&mut out, &mut lead, "outputs");
        for (index, output) in message.outputs.iter().enumerate() {
            out.push(if index == 0 { b'[' } else { b',' });
            let source = source(message, index, output)?;
            write_output(&mut out, &mut tail, output, &source, form.is_binary(&output.name))?;
        }
        out.push(b']');
    }
    if lead == b'{' {
        out.push(b'{');
    }
    out.push(b'}');

    let binary = message.outputs.iter().any(|output| form.is_binary(&output.name));
    let header_length = binary.then_some(out.len());
    out.reserve_exact(tail.iter().map(Bytes::len).sum());
    for raw in tail {
        out.extend_from_slice(&raw);
    }
    Ok(Encoded { body: out, header_length })
}

/// Appends a value as JSON; writing to memory does not fail.
pub(super) fn value<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    let written = serde_json::to_writer(out, value);
    debug_assert!(written.is_ok(), "only scalars, texts and lists of them are written");
}

/// Where the data of an output is: if the answer has any raw data, there; else in the output.
fn source<'a>(
    message: &'a ModelInferResponse,
    index: usize,
    output: &'a InferOutputTensor,
) -> Result<Source<'a>, Answer> {
    let found = match &output.contents {
        _ if !message.raw_output_contents.is_empty() => message.raw_output_contents.get(index).map(Source::Raw),
        Some(contents) => Some(Source::Typed(contents)),
        None if shape::elements(&output.shape) == Some(0) => Some(Source::Nothing),
        None => None,
    };
    found.ok_or_else(|| bad_output(output, "the model server sent no data"))
}

fn write_output(
    out: &mut Vec<u8>,
    tail: &mut Vec<Bytes>,
    output: &InferOutputTensor,
    source: &Source<'_>,
    binary: bool,
) -> Result<(), Answer> {
    let mut lead = b'{';
    member(out, &mut lead, "name");
    value(out, &output.name);
    member(out, &mut lead, "datatype");
    value(out, &output.datatype);
    if !output.shape.is_empty() {
        member(out, &mut lead, "shape");
        value(out, &output.shape);
    }
    let datatype = Datatype::parse(&output.datatype);
    let extra = if binary {
        let raw = raw(output, datatype, source)?;
        let size = i64::try_from(raw.len()).unwrap_or(i64::MAX);
        tail.push(raw);
        Some(("binary_data_size", Choice::Int64Param(size)))
    } else {
        let base64 = || ("content_type", Choice::StringParam("base64".to_owned()));
        (datatype == Some(Datatype::Bytes)).then(base64)
    };
    if extra.is_some() || !output.parameters.is_empty() {
        member(out, &mut lead, "parameters");
        params::write(out, &output.parameters, extra);
    }
    if !binary {
        member(out, &mut lead, "data");
        write_data(out, output, datatype, source)?;
    }
    out.push(b'}');
    Ok(())
}

/// Raw bytes of an output. What the server sent raw is passed on as it is, whatever the datatype.
fn raw(output: &InferOutputTensor, datatype: Option<Datatype>, source: &Source<'_>) -> Result<Bytes, Answer> {
    match source {
        Source::Raw(raw) => Ok(Bytes::clone(raw)),
        Source::Nothing => Ok(Bytes::new()),
        Source::Typed(contents) => {
            let raw = datatype.and_then(|datatype| tensor::to_raw(datatype, contents));
            raw.ok_or_else(|| bad_output(output, format!("its data does not fit {}", output.datatype)))
        }
    }
}

fn write_data(
    out: &mut Vec<u8>,
    output: &InferOutputTensor,
    datatype: Option<Datatype>,
    source: &Source<'_>,
) -> Result<(), Answer> {
    let datatype = match datatype {
        None => {
            let name = &output.datatype;
            return Err(unshowable(format!("unsupported datatype in inference response outputs: {name}")));
        }
        Some(half @ (Datatype::Fp16 | Datatype::Bf16)) => {
            let name = &output.name;
            return Err(unshowable(format!("{half} tensors not supported in JSON (response tensor {name})")));
        }
        Some(datatype) => datatype,
    };
    match source {
        Source::Nothing => out.extend_from_slice(b"[]"),
        Source::Typed(contents) => {
            let start = out.len();
            write_typed(out, datatype, contents);
            if out.len() - start == 2 && shape::elements(&output.shape) != Some(0) {
                return Err(bad_output(output, "the model server sent no data"));
            }
        }
        Source::Raw(raw) => {
            let count = shape::elements(&output.shape)
                .ok_or_else(|| bad_output(output, format!("no tensor has the shape {:?}", output.shape)))?;
            match datatype.size() {
                None => write_raw_bytes(out, raw, count)?,
                Some(size) => {
                    let raw = count.checked_mul(size).and_then(|size| raw.get(..size)).ok_or_else(|| {
                        let (found, shape) = (raw.len(), &output.shape);
                        bad_output(output, format!("{found} bytes are less than {datatype} of shape {shape:?} takes"))
                    })?;
                    write_raw(out, datatype, raw);
                }
            }
        }
    }
    Ok(())
}

fn write_typed(out: &mut Vec<u8>, datatype: Datatype, contents: &InferTensorContents) {
    match datatype {
        Datatype::Bool => value(out, &contents.bool_contents),
        Datatype::Int8 | Datatype::Int16 | Datatype::Int32 => value(out, &contents.int_contents),
        Datatype::Int64 => value(out, &contents.int64_contents),
        Datatype::Uint8 | Datatype::Uint16 | Datatype::Uint32 => value(out, &contents.uint_contents),
        Datatype::Uint64 => value(out, &contents.uint64_contents),
        Datatype::Fp32 => value(out, &contents.fp32_contents),
        Datatype::Fp64 => value(out, &contents.fp64_contents),
        Datatype::Bytes | Datatype::Fp16 | Datatype::Bf16 => {
            write_base64(out, contents.bytes_contents.iter().map(|element| &element[..]));
        }
    }
}

/// Little-endian elements; a cut-off one at the end is not there, the caller has measured.
fn write_raw(out: &mut Vec<u8>, datatype: Datatype, raw: &[u8]) {
    fn each<const N: usize, T: Serialize>(out: &mut Vec<u8>, raw: &[u8], read: impl Fn([u8; N]) -> T) {
        let elements = raw.as_chunks().0;
        let written = (|| {
            let mut list = serde_json::Serializer::new(out);
            let mut list = list.serialize_seq(Some(elements.len()))?;
            for &element in elements {
                list.serialize_element(&read(element))?;
            }
            list.end()
        })();
        debug_assert!(written.is_ok(), "only scalars are written, and to memory");
    }
    match datatype {
        Datatype::Bool => each(out, raw, |[byte]| byte != 0),
        Datatype::Int8 => each(out, raw, i8::from_le_bytes),
        Datatype::Int16 => each(out, raw, i16::from_le_bytes),
        Datatype::Int32 => each(out, raw, i32::from_le_bytes),
        Datatype::Int64 => each(out, raw, i64::from_le_bytes),
        Datatype::Uint8 => each(out, raw, u8::from_le_bytes),
        Datatype::Uint16 => each(out, raw, u16::from_le_bytes),
        Datatype::Uint32 => each(out, raw, u32::from_le_bytes),
        Datatype::Uint64 => each(out, raw, u64::from_le_bytes),
        Datatype::Fp32 => each(out, raw, f32::from_le_bytes),
        Datatype::Fp64 => each(out, raw, f64::from_le_bytes),
        Datatype::Fp16 | Datatype::Bf16 | Datatype::Bytes => {}
    }
}

fn write_raw_bytes(out: &mut Vec<u8>, raw: &[u8], count: usize) -> Result<(), Answer> {
    let mut elements = Vec::new();
    for element in byte_strings::split(raw) {
        elements.push(element.ok_or_else(|| unshowable("unexpected end of raw tensor bytes"))?);
        if elements.len() > count {
            return Err(unshowable("more raw tensor bytes than expected"));
        }
    }
    if elements.len() < count {
        return Err(unshowable("unexpected end of raw tensor bytes"));
    }
    write_base64(out, elements.into_iter());
    Ok(())
}

fn write_base64<'a>(out: &mut Vec<u8>, elements: impl Iterator<Item = &'a [u8]>) {
    out.push(b'[');
    for (index, element) in elements.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.push(b'"');
        let start = out.len();
        out.resize(start + element.len().div_ceil(3) * 4, 0);
        let written = STANDARD.encode_slice(element, &mut out[start..]);
        debug_assert_eq!(written, Ok(out.len() - start), "base64 takes four bytes for three");
        out.push(b'"');
    }
    out.push(b']');
}

/// Begins a member of an object; `lead` is what stands before it.
pub(super) fn member(out: &mut Vec<u8>, lead: &mut u8, name: &str) {
    out.push(mem::replace(lead, b','));
    value(out, name);
    out.push(b':');
}

fn bad_output(output: &InferOutputTensor, what: impl Into<String>) -> Answer {
    unshowable(format!("output tensor {:?}: {}", output.name, what.into()))
}
