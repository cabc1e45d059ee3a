//! The binary tensor data extension: raw tensors behind a JSON header in one body.

use std::collections::HashMap;

use bytes::Bytes;
use modelring_proto::inference::{
    ModelInferRequest, ModelMetadataResponse, model_infer_request::InferInputTensor,
    model_metadata_response::TensorMetadata,
};

use super::{
    bytes as byte_strings,
    datatype::Datatype,
    error::{bad, bad_input},
    shape,
};
use crate::engine::answer::Answer;

/// Which outputs the caller wants behind the JSON, and which in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutputForm {
    /// Of outputs that say nothing themselves.
    pub(super) binary: bool,
    /// Of outputs that do, by name.
    pub(super) by_name: HashMap<String, bool>,
}

/// The raw tensors of a body, taken from the front.
pub(super) struct Tail {
    /// `None` without `Inference-Header-Content-Length`.
    bytes: Option<Bytes>,
}

// === impl OutputForm ===

impl OutputForm {
    /// Every output behind the JSON.
    #[must_use]
    pub fn all_binary() -> Self {
        Self { binary: true, by_name: HashMap::new() }
    }

    /// Whether this output goes behind the JSON.
    #[must_use]
    pub fn is_binary(&self, output: &str) -> bool {
        self.by_name.get(output).copied().unwrap_or(self.binary)
    }
}

// === impl Tail ===

impl Tail {
    /// Splits a body into its JSON and what follows.
    pub(super) fn split(body: &Bytes, header_length: Option<usize>) -> Result<(Bytes, Self), Answer> {
        let Some(length) = header_length else {
            return Ok((body.clone(), Self { bytes: None }));
        };
        if length > body.len() {
            let size = body.len();
            return Err(bad(format!("Inference-Header-Content-Length is {length}, the body has {size} bytes")));
        }
        Ok((body.slice(..length), Self { bytes: Some(body.slice(length..)) }))
    }

    /// The next tensor's bytes, checked against its shape.
    pub(super) fn take(&mut self, tensor: &InferInputTensor, datatype: Datatype, size: usize) -> Result<Bytes, Answer> {
        let Some(bytes) = &mut self.bytes else {
            return Err(bad_input(&tensor.name, "binary_data_size needs header Inference-Header-Content-Length"));
        };
        if size > bytes.len() {
            let left = bytes.len();
            return Err(bad_input(&tensor.name, format_args!("binary_data_size is {size}, the body has {left} more")));
        }
        let data = bytes.split_to(size);
        check(&tensor.name, &tensor.shape, datatype, &data)?;
        Ok(data)
    }

    /// Nothing may be left.
    pub(super) fn finish(self) -> Result<(), Answer> {
        match self.bytes {
            Some(bytes) if !bytes.is_empty() => {
                Err(bad(format!("the body has {} bytes more than its inputs say", bytes.len())))
            }
            _ => Ok(()),
        }
    }
}

/// A request whose whole body is the one input of a model (`Inference-Header-Content-Length: 0`).
///
/// # Errors
///
/// The model has not exactly one input, or its shape cannot be told from the size of the body.
pub fn raw_input(model: &ModelMetadataResponse, body: Bytes) -> Result<ModelInferRequest, Answer> {
    let [input] = model.inputs.as_slice() else {
        let count = model.inputs.len();
        return Err(bad(format!("a body without a JSON header needs a model with one input, this has {count}")));
    };
    let TensorMetadata { name, datatype, .. } = input;
    let datatype = Datatype::parse(datatype).ok_or_else(|| bad(format!("unsupported datatype: {datatype}")))?;
    let (shape, raw) = match datatype.size() {
        None => (vec![1], byte_strings::to_raw(&[body]).ok_or_else(|| bad_input(name, "too long"))?),
        Some(size) => (raw_shape(input, body.len(), size)?, body),
    };
    Ok(ModelInferRequest {
        inputs: vec![InferInputTensor {
            name: name.clone(),
            datatype: datatype.as_str().to_owned(),
            shape,
            ..InferInputTensor::default()
        }],
        raw_input_contents: vec![raw],
        ..ModelInferRequest::default()
    })
}

/// The shape of so many bytes: the variable dimension takes what is left. Of two, the first is the batch, which is 1.
fn raw_shape(input: &TensorMetadata, bytes: usize, size: usize) -> Result<Vec<i64>, Answer> {
    let misfit = || {
        let (name, shape) = (&input.name, &input.shape);
        bad_input(name, format_args!("{bytes} bytes cannot be told to be {} of shape {shape:?}", input.datatype))
    };
    let mut dims = input.shape.clone();
    let variable = |dims: &[i64]| dims.iter().filter(|dim| **dim < 0).count();
    if variable(&dims) == 2 && dims.first().is_some_and(|dim| *dim < 0) {
        dims[0] = 1;
    }
    if variable(&dims) > 1 {
        return Err(misfit());
    }
    let fixed: Vec<i64> = dims.iter().copied().filter(|dim| *dim >= 0).collect();
    let unit = shape::elements(&fixed).and_then(|count| count.checked_mul(size)).ok_or_else(misfit)?;
    if let Some(free) = dims.iter_mut().find(|dim| **dim < 0) {
        if unit == 0 || !bytes.is_multiple_of(unit) {
            return Err(misfit());
        }
        *free = i64::try_from(bytes / unit).map_err(|_| misfit())?;
    } else if unit != bytes {
        return Err(misfit());
    }
    Ok(dims)
}

/// Whether raw bytes are as many as the shape says.
fn check(tensor: &str, dims: &[i64], datatype: Datatype, data: &[u8]) -> Result<(), Answer> {
    let count = shape::input_elements(tensor, dims)?;
    let Some(size) = datatype.size() else {
        let mut found = 0;
        for element in byte_strings::split(data) {
            element.ok_or_else(|| bad_input(tensor, "binary data ends inside an element of BYTES"))?;
            found += 1;
        }
        if found != count {
            let text = format_args!("binary data has {found} elements, the shape {dims:?} has {count}");
            return Err(bad_input(tensor, text));
        }
        return Ok(());
    };
    let wanted = count.checked_mul(size);
    if wanted == Some(data.len()) {
        return Ok(());
    }
    let found = data.len();
    let text =
        format_args!("binary_data_size is {found}, {datatype} of shape {dims:?} takes {}", count.saturating_mul(size));
    Err(bad_input(tensor, text))
}
