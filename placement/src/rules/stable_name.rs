//! Rule `stable-name`: the name that clients call moves to a new model only when that is ready as widely as the old one
//! was, or could not be for want of space, or when its one place is made for it; and it can always go back until then.

use crate::vmodel::{Facts, VModel};

/// Whether a step from one state to the next is one that the rule allows.
#[must_use]
pub fn allows(before: &VModel, after: &VModel, facts: &Facts<'_>) -> bool {
    if after.active() == before.active() {
        return true;
    }
    let kept = after.before() == Some(before.active());
    let back = before.before() == Some(after.active());
    // The new one must be the one that the spec asks for, unless the old one is taken back.
    let asked_for = after.active() == facts.wanted;
    if facts.unknown {
        return false;
    }
    if back {
        return facts.active.ready == 0;
    }
    if facts.canary {
        return false;
    }
    let ready = facts.target.ready;
    let goal = before.goal().min(facts.max_copies.unwrap_or(u32::MAX)).max(1);
    let waited = before.waited(facts.now) >= facts.load_timeout;
    let as_wide = ready >= goal;
    let for_want_of_space = ready >= 1 && facts.target.no_space && waited;
    let nothing_to_lose = ready >= 1 && facts.active.ready == 0;
    let room = facts.active.ready == 1 && ready == 0 && facts.target.no_space && waited && !before.room_was_made();
    kept && asked_for && (as_wide || for_want_of_space || nothing_to_lose || room)
}
