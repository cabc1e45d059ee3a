//! What kubelet asks: `/ready`, whether the process takes work, and `/live`, whether its loops turn.
//!
//! Live is no constant: every loop that the process cannot do without has a [`Heart`] which beats once a turn. A process in
//! which one has stood still for [`STILL`] is not live, and kubelet starts it anew.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use http::StatusCode;
use tokio::sync::watch;

use crate::http::{Routes, text};

/// A loop should beat at least this often.
pub const BEAT: Duration = Duration::from_secs(1);
/// A loop that has not beaten for so long stands still. Long enough for a machine that is short of CPU.
pub const STILL: Duration = Duration::from_secs(30);

/// Whether the loops of a process turn. Clones are one.
#[derive(Clone, Debug, Default)]
pub struct Pulse(Arc<Mutex<Beats>>);

#[derive(Debug, Default)]
struct Beats {
    last: BTreeMap<u64, (&'static str, Instant)>,
    next: u64,
}

/// The beat of one loop. Dropped by a panic it stands still; a loop that ends in order calls [`Heart::rest`].
#[derive(Debug)]
pub struct Heart {
    pulse: Pulse,
    number: u64,
}

/// Whether a process takes work, and if not, why. Clones are one.
#[derive(Clone, Debug)]
pub struct Readiness(Arc<watch::Sender<State>>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    ready: Result<(), &'static str>,
    /// It will not be ready again.
    ended: bool,
}

/// What a process tells of itself to its probes. Clones are one.
#[derive(Clone, Debug)]
pub struct Health {
    /// Whether it takes work.
    pub ready: Readiness,
    /// Whether its loops turn.
    pub pulse: Pulse,
}

/// Answers `/ready` and `/live`.
pub fn routes(pulse: Pulse, ready: impl Fn() -> Result<(), &'static str> + Send + Sync + 'static) -> Routes {
    let ready = move || match ready() {
        Ok(()) => text(StatusCode::OK, "ready\n"),
        Err(why) => text(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n")),
    };
    let live = move || match pulse.still_at(Instant::now()) {
        None => text(StatusCode::OK, "live\n"),
        Some((name, for_so_long)) => {
            let why = format!("not live: `{name}` has stood still for {} s\n", for_so_long.as_secs());
            text(StatusCode::SERVICE_UNAVAILABLE, why)
        }
    };
    Routes::new().get("/ready", move |_| std::future::ready(ready())).get("/live", move |_| std::future::ready(live()))
}

// === impl Health ===

impl Health {
    /// Of a process that takes no work yet, for this reason.
    #[must_use]
    pub fn not_yet(why: &'static str) -> Self {
        Self { ready: Readiness::not_yet(why), pulse: Pulse::default() }
    }

    /// Answers `/ready` and `/live`.
    #[must_use]
    pub fn routes(&self) -> Routes {
        let ready = self.ready.clone();
        routes(self.pulse.clone(), move || ready.get())
    }
}

// === impl Pulse ===

impl Pulse {
    /// The heart of a further loop; its first beat is now.
    #[must_use]
    pub fn heart(&self, name: &'static str) -> Heart {
        let mut beats = self.beats();
        let number = beats.next;
        beats.next += 1;
        beats.last.insert(number, (name, Instant::now()));
        drop(beats);
        Heart { pulse: self.clone(), number }
    }

    /// The loop that has stood still longest at this moment, if one has for [`STILL`], and for how long.
    #[must_use]
    pub fn still_at(&self, now: Instant) -> Option<(&'static str, Duration)> {
        let oldest = self.beats().last.values().copied().min_by_key(|(_, last)| *last);
        oldest.map(|(name, last)| (name, now.duration_since(last))).filter(|(_, still)| *still >= STILL)
    }

    fn beats(&self) -> MutexGuard<'_, Beats> {
        // What a panic left behind is whole: each change is one step.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Heart ===

impl Heart {
    /// The loop has turned.
    pub fn beat(&self) {
        if let Some((_, last)) = self.pulse.beats().last.get_mut(&self.number) {
            *last = Instant::now();
        }
    }

    /// Beats once a [`BEAT`] for ever: for a runtime whose turning is what matters.
    pub async fn beat_on(self) {
        let mut ticks = tokio::time::interval(BEAT);
        loop {
            ticks.tick().await;
            self.beat();
        }
    }

    /// The loop has ended in order, and is not missed.
    pub fn rest(self) {
        self.pulse.beats().last.remove(&self.number);
    }
}

// === impl Readiness ===

impl Readiness {
    /// Not ready yet, for this reason.
    #[must_use]
    pub fn not_yet(why: &'static str) -> Self {
        Self(Arc::new(watch::Sender::new(State { ready: Err(why), ended: false })))
    }

    /// Says whether work is taken from now on; says nothing after the end.
    pub fn set(&self, ready: Result<(), &'static str>) {
        self.change(State { ready, ended: false });
    }

    /// No work is taken any more, whatever else is said.
    pub fn end(&self, why: &'static str) {
        self.change(State { ready: Err(why), ended: true });
    }

    fn change(&self, next: State) {
        self.0.send_if_modified(|now| !now.ended && std::mem::replace(now, next) != next);
    }

    /// Whether work is taken now.
    ///
    /// # Errors
    ///
    /// Why not.
    pub fn get(&self) -> Result<(), &'static str> {
        self.0.borrow().ready
    }

    /// Waits until work is taken.
    pub async fn ready(&self) {
        // The sender lives as long as this value.
        let _ = self.0.subscribe().wait_for(|state| state.ready.is_ok()).await;
    }
}
