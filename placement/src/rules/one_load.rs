//! Rule `one-load`: a model is pulled and loaded at most once at a time per instance, whatever the number of callers.

use std::collections::BTreeMap;

use crate::{
    id::ModelId,
    pod::{Action, Attempt},
};

/// A load that is on its way: pulled, or sent to the server and not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OnItsWay<'a> {
    /// The model.
    pub model: &'a ModelId,
    /// The try.
    pub attempt: Attempt,
    /// Whether it was sent to the server.
    pub sent: bool,
}

/// Whether the loads on their way, and the actions that have just been decided, keep the rule.
///
/// # Errors
/// What is wrong, with the model.
pub fn check<'a>(
    loads: impl IntoIterator<Item = OnItsWay<'a>>,
    concurrency: usize,
    actions: &[Action],
) -> Result<(), String> {
    let mut by_model = BTreeMap::new();
    for load in loads {
        if by_model.insert(load.model, load).is_some() {
            return Err(format!("{} is on its way twice", load.model));
        }
    }
    if by_model.len() > concurrency {
        return Err(format!("{} loads are on their way, {concurrency} may be", by_model.len()));
    }
    let mut asked = BTreeMap::new();
    for action in actions {
        let (model, attempt, sent) = match action {
            Action::Pull(model, attempt) => (&model.id, *attempt, false),
            Action::Load(model, attempt) => (&model.id, *attempt, true),
            _ => continue,
        };
        if asked.insert((model, sent), attempt).is_some() {
            return Err(format!("{model} is asked for twice at once"));
        }
        if sent && by_model.get(model).is_none_or(|load| !load.sent || load.attempt != attempt) {
            return Err(format!("{model} is sent to the server and nobody keeps account of it"));
        }
    }
    Ok(())
}
