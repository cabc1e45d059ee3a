//! `never-unready`, the proxy's half: a call is only sent to a copy that the proxy's own view shows READY under a live
//! lease, and a lease lives at most 2 s from the sending of a ping that was answered.

use std::time::Duration;

use crate::{pod::CopyState, time::Time};

/// How long a lease lives from the sending of the ping.
pub const LEASE: Duration = Duration::from_secs(2);

/// Whether a call may be sent to a copy in this state at this moment.
#[must_use]
pub fn may_send(state: Option<&CopyState>, known: bool, lease_until: Time, now: Time) -> bool {
    known && matches!(state, Some(CopyState::Ready { .. })) && now < lease_until
}

/// Whether a lease is covered by a ping that was answered; `sent` is when the last such ping was sent.
#[must_use]
pub fn lease(lease_until: Time, sent: Option<Time>) -> bool {
    lease_until == Time::ZERO || sent.is_some_and(|sent| lease_until <= sent + LEASE)
}
