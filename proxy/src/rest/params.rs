//! Parameters of requests, tensors and answers.

use std::collections::HashMap;

use modelring_proto::inference::{InferParameter, infer_parameter::ParameterChoice as Choice};

use super::{
    error::bad,
    json::{Kind, Reader},
};
use crate::engine::answer::Answer;

/// Parameters by name.
pub(super) type Params = HashMap<String, InferParameter>;

/// Tensors and parameters that a request may have together, so that small text cannot become much memory.
const MAX_ITEMS: usize = 65_536;

/// Counts tensors and parameters.
#[derive(Default)]
pub(super) struct Items(usize);

/// Reads an object of parameters; `null` is none. Arrays and objects in it are left out.
pub(super) fn read(reader: &mut Reader<'_>, items: &mut Items) -> Result<Params, Answer> {
    let mut params = Params::new();
    if reader.is_null()? {
        return Ok(params);
    }
    reader.enter_object()?;
    let mut first = true;
    while let Some(name) = reader.next_key(&mut first)? {
        items.one_more()?;
        let choice = match reader.peek()? {
            Kind::String => Some(Choice::StringParam(reader.string()?.into_owned())),
            Kind::Bool => Some(Choice::BoolParam(reader.boolean()?)),
            Kind::Number => Some(number(reader.number()?)?),
            Kind::Null => {
                reader.null()?;
                None
            }
            Kind::Array | Kind::Object => {
                reader.skip()?;
                tracing::debug!(parameter = %name, "parameter is neither text, number nor truth value, left out");
                continue;
            }
        };
        params.insert(name.into_owned(), InferParameter { parameter_choice: choice });
    }
    Ok(params)
}

/// Writes parameters as an object, sorted by name, with `extra` in place of one of its name.
pub(super) fn write(out: &mut Vec<u8>, params: &Params, extra: Option<(&str, Choice)>) {
    let extra = extra.as_ref().map(|(name, choice)| (*name, Some(choice)));
    let mut all: Vec<(&str, Option<&Choice>)> = params
        .iter()
        .map(|(name, param)| (name.as_str(), param.parameter_choice.as_ref()))
        .filter(|(name, _)| extra.is_none_or(|(extra, _)| extra != *name))
        .chain(extra)
        .collect();
    all.sort_unstable_by_key(|(name, _)| *name);
    out.push(b'{');
    for (index, (name, choice)) in all.into_iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        super::response::value(out, name);
        out.push(b':');
        match choice {
            None => out.extend_from_slice(b"null"),
            Some(Choice::BoolParam(value)) => super::response::value(out, value),
            Some(Choice::Int64Param(value)) => super::response::value(out, value),
            Some(Choice::Uint64Param(value)) => super::response::value(out, value),
            Some(Choice::DoubleParam(value)) => super::response::value(out, value),
            Some(Choice::StringParam(value)) => super::response::value(out, value),
        }
    }
    out.push(b'}');
}

/// Takes a truth value out.
pub(super) fn take_bool(params: &mut Params, name: &str) -> Result<Option<bool>, Answer> {
    match params.remove(name).map(|param| param.parameter_choice) {
        None | Some(None) => Ok(None),
        Some(Some(Choice::BoolParam(value))) => Ok(Some(value)),
        Some(Some(_)) => Err(bad(format!("parameter {name} must be true or false"))),
    }
}

/// Takes a size in bytes out.
pub(super) fn take_size(params: &mut Params, name: &str) -> Result<Option<usize>, Answer> {
    match params.remove(name).map(|param| param.parameter_choice) {
        None | Some(None) => Ok(None),
        Some(Some(Choice::Int64Param(value))) if value >= 0 => {
            Ok(Some(usize::try_from(value).map_err(|_| bad(format!("parameter {name} is too large")))?))
        }
        Some(Some(_)) => Err(bad(format!("parameter {name} must be a number of bytes"))),
    }
}

/// The text of a parameter, if it is one.
pub(super) fn text<'a>(params: &'a Params, name: &str) -> Option<&'a str> {
    match params.get(name)?.parameter_choice.as_ref()? {
        Choice::StringParam(text) => Some(text),
        _ => None,
    }
}

fn number(text: &str) -> Result<Choice, Answer> {
    if let Ok(value) = text.parse() {
        return Ok(Choice::Int64Param(value));
    }
    if let Ok(value) = text.parse() {
        return Ok(Choice::Uint64Param(value));
    }
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() => Ok(Choice::DoubleParam(value)),
        _ => Err(bad(format!("cannot take {text} as a parameter: out of range"))),
    }
}

// === impl Items ===

impl Items {
    pub(super) fn one_more(&mut self) -> Result<(), Answer> {
        self.0 += 1;
        if self.0 <= MAX_ITEMS {
            return Ok(());
        }
        Err(bad(format!("more than {MAX_ITEMS} tensors and parameters")))
    }
}
