//! From a request to the tensors that a model takes: strict, and with errors that name the tensor, what was expected and
//! what came.

use std::collections::HashMap;

use bytes::Bytes;
use modelring_proto::inference::{InferParameter, ModelInferRequest, model_infer_request::InferInputTensor};

use crate::{
    contents,
    datatype::DataType,
    error::{Error, Result},
    tensor::{Dim, Signature, Tensor, TensorSpec},
};

/// A request that fits its model.
#[derive(Debug, PartialEq)]
pub(crate) struct Call {
    /// In the order of the signature.
    pub(crate) inputs: Vec<Tensor>,
    /// Which outputs are asked for, by their place in the signature, in the order of the request.
    pub(crate) outputs: Vec<usize>,
    /// The request's data was raw.
    pub(crate) raw: bool,
}

/// Parameters that ask for something that this server does not do, where ignoring them would give a wrong answer.
const REFUSED: [&str; 4] =
    ["shared_memory_region", "shared_memory_offset", "shared_memory_byte_size", "classification"];

/// Reads a request by the signature of its model.
pub(crate) fn decode(signature: &Signature, mut request: ModelInferRequest) -> Result<Call> {
    let raw = std::mem::take(&mut request.raw_input_contents);
    if !raw.is_empty() && raw.len() != request.inputs.len() {
        let inputs = request.inputs.len();
        return invalid(format!("{inputs} inputs but {} entries of raw_input_contents", raw.len()));
    }
    let outputs = outputs(signature, &request)?;
    let is_raw = !raw.is_empty();
    let mut raw = raw.into_iter();
    let mut given: Vec<Option<Tensor>> = signature.inputs.iter().map(|_| None).collect();
    for input in request.inputs {
        let place = signature.inputs.iter().position(|spec| spec.name == input.name);
        let Some(place) = place else {
            return invalid(format!("input '{}' is unknown, the model takes {}", input.name, names(&signature.inputs)));
        };
        refuse(&format!("input '{}'", input.name), &input.parameters)?;
        let tensor = tensor(&signature.inputs[place], input, raw.next())?;
        if given[place].replace(tensor).is_some() {
            return invalid(format!("input '{}' comes twice", signature.inputs[place].name));
        }
    }
    let missing = signature.inputs.iter().zip(&given).find(|(_, tensor)| tensor.is_none());
    if let Some((spec, _)) = missing {
        return invalid(format!("input '{}' is missing, the model takes {}", spec.name, names(&signature.inputs)));
    }
    let inputs: Vec<Tensor> = given.into_iter().flatten().collect();
    agree(signature, &inputs)?;
    Ok(Call { inputs, outputs, raw: is_raw })
}

fn outputs(signature: &Signature, request: &ModelInferRequest) -> Result<Vec<usize>> {
    if request.outputs.is_empty() {
        return Ok((0..signature.outputs.len()).collect());
    }
    let mut places = Vec::with_capacity(request.outputs.len());
    for output in &request.outputs {
        refuse(&format!("output '{}'", output.name), &output.parameters)?;
        let place = signature.outputs.iter().position(|spec| spec.name == output.name);
        let Some(place) = place else {
            let known = names(&signature.outputs);
            return invalid(format!("output '{}' is unknown, the model gives {known}", output.name));
        };
        if places.contains(&place) {
            return invalid(format!("output '{}' is asked for twice", output.name));
        }
        places.push(place);
    }
    Ok(places)
}

/// Reads one input.
fn tensor(spec: &TensorSpec, input: InferInputTensor, raw: Option<Bytes>) -> Result<Tensor> {
    let name = &spec.name;
    let datatype = spec.datatype;
    if input.datatype != datatype.name() {
        return invalid(format!("input '{name}' has datatype {datatype}, got '{}'", input.datatype));
    }
    let shape = shape(spec, &input.shape)?;
    let Some(count) = shape.iter().try_fold(1_usize, |count, size| count.checked_mul(*size)) else {
        return invalid(format!("input '{name}' of shape {shape:?} has too many elements"));
    };
    let data = match (raw, &input.contents) {
        (Some(_), Some(contents)) if !contents::counts(contents).is_empty() => {
            return invalid(format!("input '{name}' has typed contents beside raw_input_contents"));
        }
        (Some(raw), _) => check_raw(name, datatype, count, raw)?,
        (None, contents) => {
            let contents = contents.as_ref().cloned().unwrap_or_default();
            let Some(field) = contents::field(datatype) else {
                return invalid(format!("input '{name}': {datatype} is carried by raw_input_contents only"));
            };
            let counts = contents::counts(&contents);
            let got = counts.iter().find(|(found, _)| *found == field).map_or(0, |(_, count)| *count);
            if got != count || counts.iter().any(|(found, _)| *found != field) {
                let found = counts.iter().map(|(field, count)| format!("{count} in {field}")).collect::<Vec<_>>();
                let found = if found.is_empty() { "none".to_owned() } else { found.join(", ") };
                return invalid(format!(
                    "input '{name}' of shape {shape:?} needs {count} elements in {field}, got {found}"
                ));
            }
            contents::to_raw(datatype, &contents)
                .map_err(|value| Error::InvalidRequest(format!("input '{name}': {value} is no {datatype}")))?
        }
    };
    Ok(Tensor { datatype, shape, data })
}

fn check_raw(name: &str, datatype: DataType, count: usize, raw: Bytes) -> Result<Bytes> {
    let Some(size) = datatype.size() else {
        return match contents::split(&raw) {
            Some(elements) if elements.len() == count => Ok(raw),
            Some(elements) => invalid(format!("input '{name}' needs {count} elements, got {}", elements.len())),
            None => invalid(format!("input '{name}': an element of raw_input_contents is longer than its entry")),
        };
    };
    match count.checked_mul(size) {
        Some(bytes) if bytes == raw.len() => Ok(raw),
        _ => invalid(format!("input '{name}' needs {count} elements of {size} bytes, got {} bytes", raw.len())),
    }
}

/// Checks the sizes that one tensor's own spec fixes.
fn shape(spec: &TensorSpec, got: &[i64]) -> Result<Vec<usize>> {
    let sizes: Option<Vec<usize>> = got.iter().map(|size| usize::try_from(*size).ok()).collect();
    let fits = |sizes: &[usize]| match &spec.shape {
        None => true,
        Some(dims) => {
            dims.len() == sizes.len()
                && dims.iter().zip(sizes).all(|(dim, size)| !matches!(dim, Dim::Fixed(fixed) if fixed != size))
        }
    };
    match sizes {
        Some(sizes) if fits(&sizes) => Ok(sizes),
        _ => invalid(format!("input '{}' has shape {:?}, got {got:?}", spec.name, spec.metadata().shape)),
    }
}

/// Checks that sizes of one name are the same size.
fn agree(signature: &Signature, inputs: &[Tensor]) -> Result<()> {
    let mut sizes: HashMap<&str, (usize, &str)> = HashMap::new();
    for (spec, tensor) in signature.inputs.iter().zip(inputs) {
        for (axis, (dim, size)) in spec.shape.iter().flatten().zip(&tensor.shape).enumerate() {
            let Dim::Named(name) = dim else { continue };
            let (first, of) = *sizes.entry(name).or_insert((*size, &spec.name));
            if first != *size {
                return invalid(format!(
                    "input '{}' has size {size} on axis {axis}, but '{name}' is {first} by input '{of}'",
                    spec.name
                ));
            }
        }
    }
    Ok(())
}

fn refuse(whose: &str, parameters: &HashMap<String, InferParameter>) -> Result<()> {
    match REFUSED.iter().find(|name| parameters.contains_key(**name)) {
        Some(name) => invalid(format!("{whose}: parameter '{name}' is not supported")),
        None => Ok(()),
    }
}

fn names(specs: &[TensorSpec]) -> String {
    let names: Vec<String> = specs.iter().map(|spec| format!("'{}'", spec.name)).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

fn invalid<T>(text: String) -> Result<T> {
    Err(Error::InvalidRequest(text))
}
