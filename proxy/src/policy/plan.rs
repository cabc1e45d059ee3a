//! How a call goes to the copy that it has entered.

use std::sync::Arc;

use http::{HeaderName, HeaderValue};

use super::{Call, Lease, method::is_unary, name::binary, not_permitted, tail::tail};
use crate::{
    engine::{
        answer::{Answer, Reason},
        policy::{Plan, Subject},
    },
    fleet::InFlight,
};

const MODEL_ID: HeaderName = HeaderName::from_static("mm-model-id");
const MODEL_ID_BIN: HeaderName = HeaderName::from_static("mm-model-id-bin");

/// The plan (`by_model`: with its subject), or what the caller is told; `None` where the instance has another boot by now.
pub(super) fn plan(call: &Call, in_flight: InFlight, by_model: bool) -> Option<Result<Plan<Lease>, Answer>> {
    let copy = in_flight.copy();
    let serving = copy.host.serving().filter(|serving| serving.boot == copy.boot)?;
    let Some(target) = serving.target().cloned() else {
        let text = format!("instance `{}` has no data endpoint", copy.host.id);
        return Some(Err(Answer::new(Reason::UC, text)));
    };
    let method = call.path.trim_start_matches('/');
    let Some(paths) = serving.paths(method) else { return Some(Err(not_permitted(method))) };
    let id = call.model.id().as_str();
    let renamed = *call.asked != *id;
    Some(Ok(Plan {
        target,
        request_headers: ids(id, true),
        response_headers: ids(id, false),
        request_tail: tail(&paths.request, id),
        response_tail: renamed.then(|| tail(&paths.response, &call.asked)).flatten(),
        unary: is_unary(method),
        max_message: call.table.tuning.max_message,
        deadline: call.deadline,
        subject: by_model.then(|| Subject {
            model: call.model.id().clone(),
            vmodel: if renamed { call.asked.clone() } else { Arc::from("") },
        }),
        lease: Lease { call: call.clone(), serving: Arc::clone(&serving), in_flight },
    }))
}

/// The concrete id as headers: in plain form where it can be one, and always (or else) as bytes.
fn ids(id: &str, always_binary: bool) -> Vec<(HeaderName, HeaderValue)> {
    let is_plain = id.bytes().all(|byte| (0x20..=0x7e).contains(&byte));
    let plain = is_plain.then(|| HeaderValue::from_str(id).ok()).flatten().map(|id| (MODEL_ID, id));
    let wanted = always_binary || plain.is_none();
    let bytes = wanted.then(|| HeaderValue::from_str(&binary(id)).ok()).flatten().map(|id| (MODEL_ID_BIN, id));
    plain.into_iter().chain(bytes).collect()
}
