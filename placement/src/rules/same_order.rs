//! `same-order`: an order of candidates holds every member that stays, once, those that accept new copies first.

use std::collections::HashSet;

use crate::{id::InstanceId, ring::Member};

/// Whether `order` is an order of `members`.
#[must_use]
pub fn holds(order: &[InstanceId], members: &[Member]) -> bool {
    let staying = members.iter().filter(|member| !member.leaving);
    let listed: HashSet<&InstanceId> = order.iter().collect();
    let accepts = |id: &InstanceId| members.iter().any(|member| member.id == *id && member.accepts_new);
    listed.len() == order.len()
        && staying.clone().count() == order.len()
        && staying.clone().all(|member| listed.contains(&member.id))
        && order.is_sorted_by_key(|id| !accepts(id))
}
