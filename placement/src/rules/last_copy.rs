//! Rule `last-copy`: while a model is in the table, control asks for nothing that would remove its last ready copy.

use crate::id::{InstanceId, ModelId};

/// Whether a model of the table keeps a ready copy that no hint gives away. `ready`: where it is ready; `given_away`:
/// whether the hints to that instance name it surplus or gone.
pub fn keeps_one(model: &ModelId, ready: &[InstanceId], given_away: impl Fn(&InstanceId, &ModelId) -> bool) -> bool {
    ready.is_empty() || ready.iter().any(|instance| !given_away(instance, model))
}
