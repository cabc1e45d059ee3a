//! Drives the proxy's searches for a copy, as the task of the proxy does: one per model, woken by the fleet, with one open
//! `EnsureLoaded`.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use futures_util::FutureExt;
use modelring_placement::{
    id::InstanceId,
    pod::Refusal,
    seek::{Heard, Step},
    time::Time,
};
use modelring_proto::v1::{self, refused::Reason};
use modelring_proxy::{
    fleet::{Load, Phase},
    table::{Model, Table, reference},
};

use crate::{
    network::{ConnId, Kind, Message},
    process::Node,
    world::{Timer, World},
};

/// A search that runs.
pub(crate) struct Search {
    /// It ends when nobody waits any more.
    load: Weak<Load>,
    first: Arc<Table>,
    open: Option<(InstanceId, ConnId)>,
    /// When it looks again by itself.
    until: Time,
    fresh: bool,
}

// === impl Search ===

impl Search {
    pub(crate) fn new(load: &Arc<Load>, first: Arc<Table>) -> Self {
        Self { load: Arc::downgrade(load), first, open: None, until: Time::NEVER, fresh: true }
    }

    pub(crate) fn is_on(&self, conn: ConnId) -> bool {
        self.open.as_ref().is_some_and(|(_, of)| *of == conn)
    }

    pub(crate) fn asked(&self) -> Option<&InstanceId> {
        self.open.as_ref().map(|(instance, _)| instance)
    }

    pub(crate) fn heard(&mut self, now: Time, heard: Heard) {
        self.fresh = true;
        let Some((instance, _)) = &self.open else { return };
        if let Some(load) = self.load.upgrade() {
            load.seek.lock().heard(now, instance, heard);
        }
    }
}

// === impl World ===

impl World {
    /// Lets every search that something has happened to look again; whether one did.
    pub(crate) fn drive_searches(&mut self, n: usize) -> bool {
        let now = self.clock(Node::Proxy(n));
        let Some(running) = &mut self.proxies[n].running else { return false };
        let over: Vec<_> = running.searches.extract_if(.., |_, search| search.load.strong_count() == 0).collect();
        for (_, search) in &over {
            self.hang_up(search);
        }
        let Some(running) = &mut self.proxies[n].running else { return false };
        let due = running.searches.iter_mut().filter_map(|(model, search)| {
            let load = search.load.upgrade()?;
            let woken = load.changed.notified().now_or_never().is_some();
            let due = std::mem::take(&mut search.fresh) | woken | (search.until <= now);
            due.then(|| model.clone())
        });
        let due: Vec<_> = due.collect();
        for model in &due {
            if let Some(search) = self.proxies[n].running.as_mut().and_then(|running| running.searches.remove(model))
                && let Some(search) = self.look(n, search)
                && let Some(running) = &mut self.proxies[n].running
            {
                running.searches.insert(model.clone(), search);
            }
        }
        !due.is_empty()
    }

    /// The transport to an agent is lost, and the open call on it with it.
    pub(crate) fn lose_search(&mut self, n: usize, instance: &InstanceId) {
        let Some(running) = &mut self.proxies[n].running else { return };
        let now = running.fleet.clock.now();
        let mut lost = Vec::new();
        for search in running.searches.values_mut().filter(|search| search.asked() == Some(instance)) {
            lost.extend(search.open.as_ref().map(|(_, conn)| *conn));
            search.heard(now, Heard::Lost);
        }
        for conn in lost {
            self.close(conn, 0);
        }
    }

    fn hang_up(&mut self, search: &Search) {
        if let Some((_, conn)) = &search.open {
            self.close(*conn, 0);
        }
    }

    /// One look; the search goes on where it comes back.
    fn look(&mut self, n: usize, mut search: Search) -> Option<Search> {
        let now = self.clock(Node::Proxy(n));
        let load = search.load.upgrade()?;
        let fleet = self.proxies[n].running.as_ref()?.fleet.clone();
        let id = load.model.id().clone();
        let newest =
            fleet.table().filter(|table| table.model(id.as_str()).is_some()).unwrap_or_else(|| search.first.clone());
        let model: &Arc<Model> = newest.model(id.as_str()).unwrap_or(&load.model);
        let sights = fleet.sights(now, model, &newest);
        let (step, asked, accepted) = {
            let mut seek = load.seek.lock();
            let step = seek.next(now, &sights.candidates, &sights.elsewhere);
            (step, seek.asked().cloned(), seek.accepted())
        };
        if search.asked() != asked.as_ref() {
            self.hang_up(&search);
            search.open = None;
        }
        match step {
            Step::Use | Step::GiveUp(_) => {
                self.hang_up(&search);
                let phase = match step {
                    Step::GiveUp(ending) => Phase::Ended(ending),
                    _ => Phase::Use,
                };
                fleet.loads.finish(&load, phase);
                None
            }
            Step::Ask(instance) => {
                self.hang_up(&search);
                search.open = None;
                search.fresh = true;
                let conn = self.watch(n, &instance).and_then(|watch| watch.conn);
                let to = conn.and_then(|conn| self.network.get(conn)).map(|conn| conn.ends[1]);
                let Some(to) = to else {
                    load.seek.lock().heard(now, &instance, Heard::Lost);
                    return Some(search);
                };
                self.say(|| format!("proxy {n} asks {instance} for {id}"));
                let request = v1::LoadRequest {
                    model: Some(reference(&model.reference)),
                    why: v1::load_request::Why::Waiter.into(),
                    ..v1::LoadRequest::default()
                };
                let conn = self.open(Node::Proxy(n), to, Kind::Ensure);
                self.send(conn, 0, Message::Load(request));
                search.open = Some((instance, conn));
                Some(search)
            }
            Step::Wait { until } => {
                let timeout = asked.filter(|_| accepted).map(|at| fleet.load_timeout(&at, &model.reference));
                load.seeking(timeout);
                search.until = until;
                if until != Time::NEVER {
                    let at = self.process(Node::Proxy(n)).world_time(until);
                    self.timer(Node::Proxy(n), at.saturating_sub(self.now), Timer::Search(id));
                }
                Some(search)
            }
        }
    }
}

pub(crate) fn refusal(refused: v1::Refused) -> Heard {
    let refusal = match refused.reason() {
        Reason::Unspecified | Reason::Full => Refusal::Full,
        Reason::Churn => Refusal::Churn,
        Reason::Pinned => Refusal::Pinned,
        Reason::Failing => Refusal::Failing,
        Reason::Leaving => Refusal::Leaving,
        Reason::Disk => Refusal::Disk,
    };
    let after = refused.retry_after_millis;
    Heard::Refused { refusal, retry_after: (after > 0).then(|| Duration::from_millis(after)), text: refused.text }
}
