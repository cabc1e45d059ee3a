//! The lease: how long what an agent last said may be believed.

use std::collections::VecDeque;

use crate::{
    rules::never_unready::{self, LEASE},
    time::Time,
};

/// Pings and what their answers are worth.
#[derive(Debug, Default)]
pub(super) struct Lease {
    /// Pings of this stream that are not answered, oldest first; none older than a lease.
    pings: VecDeque<(u64, Time)>,
    /// When the last ping that was answered in this boot was sent.
    answered: Option<Time>,
    until: Time,
}

impl Lease {
    /// A ping is about to be written.
    pub(super) fn ping_sent(&mut self, now: Time, n: u64) {
        // An answer to an older ping would give no lease any more.
        while self.pings.front().is_some_and(|(_, sent)| *sent + LEASE <= now) {
            self.pings.pop_front();
        }
        self.pings.push_back((n, now));
    }

    /// The stream of these pings is over.
    pub(super) fn forget_pings(&mut self) {
        self.pings.clear();
    }

    /// Takes the answered ping out, with those before it, and says when it was sent.
    pub(super) fn pong(&mut self, n: u64) -> Option<Time> {
        let at = self.pings.iter().position(|(sent, _)| *sent == n)?;
        self.pings.drain(..=at).next_back().map(|(_, sent)| sent)
    }

    /// A ping sent then was answered, and that counts. Says the new end if it is later than the old one.
    pub(super) fn grant(&mut self, sent: Time) -> Option<Time> {
        self.answered = self.answered.max(Some(sent));
        let later = sent + LEASE > self.until;
        if later {
            self.until = sent + LEASE;
        }
        debug_assert!(never_unready::lease(self.until, self.answered));
        later.then_some(self.until)
    }

    /// Ends it; says whether there was one.
    pub(super) fn end(&mut self) -> bool {
        std::mem::take(&mut self.until) != Time::ZERO
    }

    /// What another boot answered says nothing of this one.
    pub(super) fn new_boot(&mut self) {
        self.answered = None;
    }

    pub(super) fn until(&self) -> Time {
        self.until
    }

    pub(super) fn answered(&self) -> Option<Time> {
        self.answered
    }
}
