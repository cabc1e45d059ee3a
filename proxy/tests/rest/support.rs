//! What the tests share.

use std::collections::HashMap;

use bytes::Bytes;
use modelring_proto::inference::{
    InferParameter, InferTensorContents, infer_parameter::ParameterChoice, model_infer_request::InferInputTensor,
    model_infer_response::InferOutputTensor,
};
use modelring_proxy::{
    engine::answer::Answer,
    rest::request::{self, Infer},
};

/// ModelMesh's default limit of a message.
pub(crate) const LIMIT: usize = 16 << 20;

pub(crate) fn decode(json: &str) -> Result<Infer, Answer> {
    request::decode(&Bytes::copy_from_slice(json.as_bytes()), None, LIMIT)
}

/// Text of the 400 that a body gets.
pub(crate) fn refused(json: &str) -> String {
    let answer = decode(json).expect_err(json);
    assert_eq!((answer.code, answer.http), (3, 400), "{}", answer.text);
    answer.text
}

/// A body with one input `x`.
pub(crate) fn body(datatype: &str, shape: &str, data: &str) -> String {
    format!(r#"{{"inputs":[{{"name":"x","datatype":"{datatype}","shape":{shape},"data":{data}}}]}}"#)
}

/// The one input of a body.
pub(crate) fn input(json: &str) -> InferInputTensor {
    let mut message = decode(json).expect(json).message;
    assert_eq!(message.raw_input_contents.len(), 0);
    message.inputs.remove(0)
}

/// The typed contents of a body's one input `x`.
pub(crate) fn contents(datatype: &str, shape: &str, data: &str) -> InferTensorContents {
    input(&body(datatype, shape, data)).contents.expect("typed contents")
}

pub(crate) fn params(list: &[(&str, Option<ParameterChoice>)]) -> HashMap<String, InferParameter> {
    let param = |choice: &Option<ParameterChoice>| InferParameter { parameter_choice: choice.clone() };
    list.iter().map(|(name, choice)| ((*name).to_owned(), param(choice))).collect()
}

pub(crate) fn output(name: &str, datatype: &str, shape: &[i64]) -> InferOutputTensor {
    InferOutputTensor {
        name: name.to_owned(),
        datatype: datatype.to_owned(),
        shape: shape.to_vec(),
        ..InferOutputTensor::default()
    }
}

pub(crate) fn byte_strings(list: &[&[u8]]) -> Vec<Bytes> {
    list.iter().map(|element| Bytes::copy_from_slice(element)).collect()
}
