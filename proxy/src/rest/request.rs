//! The body of an inference -> `ModelInferRequest`.

use bytes::Bytes;
use modelring_proto::inference::{
    ModelInferRequest,
    model_infer_request::{InferInputTensor, InferRequestedOutputTensor},
};

pub use super::binary::{OutputForm, raw_input};
use super::{
    binary::Tail,
    datatype::Datatype,
    error::{bad, bad_input},
    json::{Kind, Reader},
    params::{self, Items},
    shape,
    tensor::{self, Data},
};
use crate::engine::answer::Answer;

/// A decoded body.
#[derive(Clone, Debug, PartialEq)]
pub struct Infer {
    /// The request; its model's name and version come from the path.
    pub message: ModelInferRequest,
    /// How the caller wants the outputs.
    pub outputs: OutputForm,
}

/// A body that is being read.
struct Body {
    tail: Tail,
    items: Items,
    limit: usize,
    message: ModelInferRequest,
    /// Data of each input, in their order.
    data: Vec<Data>,
    outputs: OutputForm,
}

/// Decodes a body.
///
/// `header_length` is `Inference-Header-Content-Length` where the caller sent it: the JSON's part of the body, the rest
/// being binary tensors. Without it only the first JSON value counts. `limit` is the largest message, bytes.
///
/// Data goes into the typed contents, unless some input is binary, FP16 or BF16: then all are raw, since the two must
/// not be mixed in a message.
///
/// # Errors
///
/// `BR` with a text that says what is wrong and with which input; `TL` where strings become larger than `limit`.
pub fn decode(body: &Bytes, header_length: Option<usize>, limit: usize) -> Result<Infer, Answer> {
    let (json, tail) = Tail::split(body, header_length)?;
    let mut reader = Reader::new(&json);
    let mut body = Body {
        tail,
        items: Items::default(),
        limit,
        message: ModelInferRequest::default(),
        data: Vec::new(),
        outputs: OutputForm::default(),
    };
    if !reader.is_end() && !reader.is_null()? {
        body.read(&mut reader)?;
    }
    body.finish()
}

// === impl Body ===

impl Body {
    fn read(&mut self, reader: &mut Reader<'_>) -> Result<(), Answer> {
        reader.enter_object()?;
        let mut first = true;
        while let Some(key) = reader.next_key(&mut first)? {
            match key.to_ascii_lowercase().as_str() {
                "id" => self.message.id = text(reader)?,
                "parameters" => self.message.parameters = params::read(reader, &mut self.items)?,
                "inputs" => {
                    self.message.inputs.clear();
                    self.data.clear();
                    each(reader, |reader| self.read_input(reader))?;
                }
                "outputs" => {
                    self.message.outputs.clear();
                    each(reader, |reader| self.read_output(reader))?;
                }
                _ => reader.skip()?,
            }
        }
        Ok(())
    }

    fn read_input(&mut self, reader: &mut Reader<'_>) -> Result<(), Answer> {
        self.items.one_more()?;
        let mut input = InferInputTensor::default();
        let mut shaped = false;
        // Where `data` stands; it is read when it is met if its type and shape are known by then, else at the end.
        let mut place = None;
        let mut data = None;
        reader.enter_object()?;
        let mut first = true;
        while let Some(key) = reader.next_key(&mut first)? {
            match key.to_ascii_lowercase().as_str() {
                "name" => input.name = text(reader)?,
                "datatype" => (input.datatype, data) = (text(reader)?, None),
                "shape" => (input.shape, shaped, data) = (shape::read_shape(reader)?, true, None),
                "parameters" => input.parameters = params::read(reader, &mut self.items)?,
                "data" => {
                    place = Some(reader.clone());
                    data = None;
                    match Datatype::parse(&input.datatype) {
                        // Strings may be base64, which a later parameter says.
                        None | Some(Datatype::Bytes) => reader.skip()?,
                        Some(_) if !shaped => reader.skip()?,
                        Some(datatype) => data = Some(tensor::read(reader, &input, datatype, self.limit)?),
                    }
                }
                _ => reader.skip()?,
            }
        }
        let Some(datatype) = Datatype::parse(&input.datatype) else {
            return Err(bad(format!("unsupported datatype: {}", input.datatype)));
        };
        let size = params::take_size(&mut input.parameters, "binary_data_size")?;
        let data = match (size, place, data) {
            (Some(_), Some(_), _) => return Err(bad_input(&input.name, "both data and binary_data_size are given")),
            (Some(size), None, _) => Data::Raw(self.tail.take(&input, datatype, size)?),
            (None, _, Some(data)) => data,
            (None, Some(mut place), None) => tensor::read(&mut place, &input, datatype, self.limit)?,
            // The same as null.
            (None, None, None) => tensor::read(&mut Reader::new(b"null"), &input, datatype, self.limit)?,
        };
        self.message.inputs.push(input);
        self.data.push(data);
        Ok(())
    }

    fn read_output(&mut self, reader: &mut Reader<'_>) -> Result<(), Answer> {
        self.items.one_more()?;
        let mut output = InferRequestedOutputTensor::default();
        reader.enter_object()?;
        let mut first = true;
        while let Some(key) = reader.next_key(&mut first)? {
            match key.to_ascii_lowercase().as_str() {
                "name" => output.name = text(reader)?,
                "parameters" => output.parameters = params::read(reader, &mut self.items)?,
                _ => reader.skip()?,
            }
        }
        if let Some(binary) = params::take_bool(&mut output.parameters, "binary_data")? {
            self.outputs.by_name.insert(output.name.clone(), binary);
        }
        self.message.outputs.push(output);
        Ok(())
    }

    fn finish(mut self) -> Result<Infer, Answer> {
        self.tail.finish()?;
        self.outputs.binary =
            params::take_bool(&mut self.message.parameters, "binary_data_output")?.unwrap_or_default();
        let raw = self.data.iter().any(|data| matches!(data, Data::Raw(_)));
        for (input, data) in self.message.inputs.iter_mut().zip(self.data) {
            match data {
                Data::Typed(contents) if !raw => input.contents = Some(contents),
                Data::Typed(contents) => {
                    let bytes = Datatype::parse(&input.datatype).and_then(|d| tensor::to_raw(d, &contents));
                    let bytes = bytes
                        .ok_or_else(|| bad_input(&input.name, format_args!("data does not fit {}", input.datatype)))?;
                    self.message.raw_input_contents.push(bytes);
                }
                Data::Raw(bytes) => self.message.raw_input_contents.push(bytes),
            }
        }
        Ok(Infer { message: self.message, outputs: self.outputs })
    }
}

/// A string; `null` is an empty one.
fn text(reader: &mut Reader<'_>) -> Result<String, Answer> {
    match reader.peek()? {
        Kind::Null => {
            reader.null()?;
            Ok(String::new())
        }
        _ => Ok(reader.string()?.into_owned()),
    }
}

/// Reads an array, `null` being an empty one.
fn each<'a>(reader: &mut Reader<'a>, mut one: impl FnMut(&mut Reader<'a>) -> Result<(), Answer>) -> Result<(), Answer> {
    if reader.is_null()? {
        return Ok(());
    }
    reader.enter_array()?;
    let mut first = true;
    while reader.next_element(&mut first)? {
        one(reader)?;
    }
    Ok(())
}
