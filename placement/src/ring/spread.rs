//! Where a further copy goes: another node, then another zone, as far as the class has them.

use super::Member;
use crate::id::InstanceId;

/// Where the next copy should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placing {
    /// The instance.
    pub instance: InstanceId,
    /// How far it is from the copies that there are.
    pub spread: Spread,
}

/// How far a copy is from the others, the nearest first. What is unknown is taken as different.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Spread {
    /// On the node of another copy: the class had no other, and the status says so.
    SameNode,
    /// In the zone of another copy, on a node of its own.
    SameZone,
    /// Node and zone of its own (also: the first copy).
    Apart,
}

/// Where a further copy goes, given the instances that have one: the candidate whose node has the fewest copies, of these
/// the one whose zone has the fewest, of these the first in order. A candidate that does not accept new copies is taken only when no
/// accepting one is left. `None` when every candidate has a copy. The first copy goes to the first candidate.
#[must_use]
pub fn place_next<'m>(
    order: &[InstanceId],
    copies: &[InstanceId],
    member: impl Fn(&InstanceId) -> Option<&'m Member>,
) -> Option<Placing> {
    let held: Vec<&Member> = copies.iter().filter_map(&member).collect();
    let shared = |own: &Member| {
        let node = held.iter().filter(|other| own.node.is_some() && own.node == other.node).count();
        let zone = held.iter().filter(|other| own.zone.is_some() && own.zone == other.zone).count();
        (node, zone)
    };
    let free = order.iter().filter(|id| !copies.contains(id)).filter_map(&member).filter(|member| !member.leaving);
    let (best, (node, zone)) = free
        .map(|candidate| (candidate, shared(candidate)))
        .min_by_key(|(candidate, shared)| (!candidate.accepts_new, *shared))?;
    let spread = match (node, zone) {
        (0, 0) => Spread::Apart,
        (0, _) => Spread::SameZone,
        _ => Spread::SameNode,
    };
    Some(Placing { instance: best.id.clone(), spread })
}

/// The owners of a model: where its first max(`want`, 1) copies should be, the first owner first.
#[must_use]
pub fn owners<'m>(
    order: &[InstanceId],
    want: usize,
    member: impl Fn(&InstanceId) -> Option<&'m Member>,
) -> Vec<InstanceId> {
    let mut owners = Vec::new();
    while owners.len() < want.max(1) {
        match place_next(order, &owners, &member) {
            Some(placing) => owners.push(placing.instance),
            None => break,
        }
    }
    owners
}
