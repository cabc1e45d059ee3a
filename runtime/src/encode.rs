//! From the tensors that a model gives to a response.
//!
//! Raw if the request was raw, typed if it was typed; but where an output that is asked for is FP16, which typed contents
//! cannot carry, the whole response is raw, since the two must not be mixed.

use modelring_proto::inference::{ModelInferResponse, model_infer_response::InferOutputTensor};

use crate::{
    contents,
    error::{Error, Result},
    tensor::{Signature, Tensor},
};

/// Version of every model.
pub(crate) const VERSION: &str = "1";

/// Makes the response of `outputs`, of which `wanted` were asked for.
pub(crate) fn encode(
    signature: &Signature,
    outputs: &[Tensor],
    wanted: &[usize],
    raw: bool,
) -> Result<ModelInferResponse> {
    if outputs.len() != signature.outputs.len() {
        let expected = signature.outputs.len();
        return Err(Error::Internal(format!("the model gave {} outputs of {expected}", outputs.len())));
    }
    let wanted: Vec<(&str, &Tensor)> =
        wanted.iter().map(|place| (signature.outputs[*place].name.as_str(), &outputs[*place])).collect();
    let contents: Option<Vec<_>> =
        if raw { None } else { wanted.iter().map(|(_, tensor)| contents::from_raw(tensor)).collect() };
    let mut response = ModelInferResponse { model_version: VERSION.to_owned(), ..ModelInferResponse::default() };
    for (name, tensor) in &wanted {
        response.outputs.push(InferOutputTensor {
            name: (*name).to_owned(),
            datatype: tensor.datatype.name().to_owned(),
            shape: tensor.shape.iter().map(|size| i64::try_from(*size).unwrap_or(i64::MAX)).collect(),
            ..InferOutputTensor::default()
        });
    }
    match contents {
        Some(contents) => {
            for (output, contents) in response.outputs.iter_mut().zip(contents) {
                output.contents = Some(contents);
            }
        }
        None => response.raw_output_contents = wanted.iter().map(|(_, tensor)| tensor.data.clone()).collect(),
    }
    Ok(response)
}
