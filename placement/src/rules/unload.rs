//! The agent's side of rule `never-unready`: a draining copy is unloaded only after every proxy that holds a lease has
//! acknowledged that very drain, or after the drain timeout.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::{id::WatcherId, time::Time};

/// A proxy's lease as its agent sees it: this long after the last ping that came. A proxy itself believes for 2 s from
/// sending, so no delay of the network lets it believe longer than its agent.
pub const LEASE: Duration = Duration::from_secs(3);

/// What is known when an unload is sent.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The time.
    pub now: Time,
    /// When the agent started, if an earlier start may have granted leases that this one does not know.
    pub restarted: Option<Time>,
    /// When the drain began.
    pub since: Time,
    /// How long it may take.
    pub drain_timeout: Duration,
    /// The last ping of each proxy, whether or not its stream still stands.
    pub pings: &'a BTreeMap<WatcherId, Time>,
    /// Who has acknowledged this drain.
    pub acked: &'a BTreeSet<WatcherId>,
}

/// Whether the copy may be unloaded.
///
/// # Errors
/// Who may still believe in the copy.
pub fn check(facts: Facts<'_>) -> Result<(), String> {
    let Facts { now, restarted, since, drain_timeout, pings, acked } = facts;
    if now >= since + drain_timeout {
        return Ok(());
    }
    if restarted.is_some_and(|start| now < start + LEASE) {
        return Err("proxies that an earlier start knew may still believe in it".to_owned());
    }
    match pings.iter().find(|(watcher, ping)| now < **ping + LEASE && !acked.contains(*watcher)) {
        Some((watcher, ping)) => Err(format!("{watcher} pinged at {ping} and has not acknowledged")),
        None => Ok(()),
    }
}
