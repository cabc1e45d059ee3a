//! Callers, and the way of their calls through a proxy: choose a copy, or hold and search; write when the connection is
//! confirmed; try again where that is safe. The decisions (choice, word, budgets, search, retry budget) are the proxy's.

use std::{sync::Arc, time::Duration};

use modelring_placement::{
    choice::{FAILURE, choose},
    id::InstanceId,
    rules::never_unready::LEASE,
    seek::{Budgets, EndReason},
    time::Time,
};
use modelring_proto::v1::watcher_message;
use modelring_proxy::{
    fleet::{Copy, Denial, Entry, Fleet, InFlight, Phase, Queued, Waiter},
    table::{Model, Table},
};
use rand::Rng;

use crate::{
    network::{ConnId, Dialled, Kind, Message},
    process::Node,
    proxy::Data,
    queue::Nanos,
    search::Search,
    world::{CallId, Timer as WorldTimer, World},
};

/// Most attempts of a call; and most where nothing was written.
const TRIES: u32 = 3;
const UNWRITTEN_TRIES: u32 = 10;
/// How long a denied call waits for the view to change, and one that could not be connected.
const DENIAL: Duration = Duration::from_secs(1);
const UNREACHED: Duration = Duration::from_millis(250);
/// How long a held call waits before it looks again after a ready copy was gone when it came.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// How long the pong that confirms a connection is waited for.
const CONFIRM: Duration = Duration::from_secs(2);

/// What a call waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timer {
    /// Its deadline.
    Deadline,
    /// Some time at which it looks again.
    Look,
}

/// A call, as its caller sees it.
#[derive(Clone, Debug)]
pub struct Call {
    /// The service that was asked for.
    pub service: String,
    /// By this proxy.
    pub proxy: usize,
    /// When.
    pub begun: Nanos,
    /// Until when.
    pub deadline: Option<Nanos>,
    /// How it ended, and when.
    pub end: Option<(Nanos, Outcome)>,
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// This model answered.
    Ok(String),
    /// The proxy's own answer: its reason, and the text.
    Reason(&'static str, String),
    /// The server's NOT_FOUND came through.
    NotFound,
    /// The proxy is gone.
    Gone,
}

/// A call at its proxy.
pub(crate) struct Flight {
    table: Arc<Table>,
    model: Arc<Model>,
    deadline: Time,
    budgets: Option<Budgets>,
    tries: u32,
    unwritten: u32,
    attempt: u32,
    /// A server has denied its model.
    denied: bool,
    /// When it is woken by its budgets.
    planned: Nanos,
    state: State,
}

enum State {
    /// To be placed now.
    Place,
    /// A ready copy was gone when it came: it joins a search again at this time.
    Rejoin { at: Time, budgets: Budgets },
    /// Held: waits for a search.
    Held { waiter: Waiter, budgets: Budgets, first: bool },
    /// In line for a copy.
    Line { _line: Queued },
    /// In a copy, waits for a connection.
    Connecting { in_flight: InFlight, instance: InstanceId },
    /// Written.
    Sent { in_flight: InFlight, conn: ConnId },
    /// Waits for a copy to change before it is placed anew.
    Changing { copy: Arc<Copy>, until: Time },
}

/// How an attempt failed.
enum Failure {
    Unwritten,
    DidNotRun,
    Denied,
    Lost,
}

// === impl World ===

impl World {
    /// A caller calls a service by a proxy.
    pub fn call(&mut self, proxy: usize, service: &str, deadline: Option<Duration>) -> CallId {
        self.called += 1;
        let id = self.called;
        let until = deadline.map(|deadline| self.now + u64::try_from(deadline.as_nanos()).unwrap_or(u64::MAX));
        let service = service.to_owned();
        let call = Call { service: service.clone(), proxy, begun: self.now, deadline: until, end: None };
        self.calls.insert(id, call);
        let node = Node::Proxy(proxy);
        if !self.process(node).up {
            self.answer(id, Outcome::Gone);
            return id;
        }
        self.wind_clock(proxy);
        let now = self.clock(node);
        let Some(running) = &mut self.proxies[proxy].running else { return id };
        let Some(table) = running.fleet.table() else {
            self.answer(id, Outcome::Reason("TB", String::new()));
            return id;
        };
        let model = table.vmodel(&service).and_then(|vmodel| table.model(vmodel.active.as_str())).cloned();
        let Some(model) = model else {
            self.answer(id, Outcome::Reason("NM", String::new()));
            return id;
        };
        if table.class(&model.class).is_none_or(|class| class.runtimes.is_empty()) {
            self.answer(id, Outcome::Reason("NR", String::new()));
            return id;
        }
        running.retries.called(now, 1);
        let deadline = deadline.map_or(Time::NEVER, |deadline| now + deadline);
        let flight = Flight {
            table,
            model,
            deadline,
            budgets: None,
            tries: 0,
            unwritten: 0,
            attempt: 0,
            denied: false,
            planned: 0,
            state: State::Place,
        };
        running.flights.insert(id, flight);
        if let Some(until) = until {
            self.timer(node, until - self.now, WorldTimer::Call(id, Timer::Deadline));
        }
        // A stopped proxy takes the call when it goes on.
        if self.is_well(node) {
            self.drive_proxy(proxy);
        } else {
            self.timer(node, 0, WorldTimer::Call(id, Timer::Look));
        }
        id
    }

    /// How a call ended.
    #[must_use]
    pub fn outcome(&self, call: CallId) -> Option<&Outcome> {
        self.calls.get(&call)?.end.as_ref().map(|(_, outcome)| outcome)
    }

    pub(crate) fn answer(&mut self, id: CallId, outcome: Outcome) {
        let Some(call) = self.calls.get_mut(&id).filter(|call| call.end.is_none()) else { return };
        call.end = Some((self.now, outcome.clone()));
        let call = call.clone();
        self.say(|| format!("call {id} of {} ends: {outcome:?}", call.service));
        self.checks_of_an_answer(id, &call, &outcome);
    }

    pub(crate) fn deadline_passes(&mut self, n: usize, id: CallId) {
        if self.proxies[n].running.as_mut().and_then(|running| running.flights.remove(&id)).is_some() {
            self.answer(id, Outcome::Reason("DE", String::new()));
        }
    }

    /// Lets every call look whether it goes on; whether one did.
    pub(crate) fn drive_calls(&mut self, n: usize) -> bool {
        let Some(running) = &self.proxies[n].running else { return false };
        let ids: Vec<_> = running.flights.keys().copied().collect();
        let mut moved = false;
        for id in ids {
            if let Some(flight) = self.proxies[n].running.as_mut().and_then(|running| running.flights.remove(&id)) {
                moved |= self.step(n, id, flight);
            }
        }
        moved
    }

    /// Calls whose drain is over its time are reset.
    pub(crate) fn drop_revoked(&mut self, n: usize) {
        let Some(running) = &mut self.proxies[n].running else { return };
        let revoked = |flight: &Flight| match &flight.state {
            State::Sent { in_flight, .. } | State::Connecting { in_flight, .. } => in_flight.revoked().is_cancelled(),
            _ => false,
        };
        let over: Vec<_> = running.flights.extract_if(.., |_, flight| revoked(flight)).collect();
        for (id, flight) in over {
            drop(flight);
            self.answer(id, Outcome::Reason("UR", "drained".to_owned()));
        }
    }

    /// The server has answered.
    pub(crate) fn answered(&mut self, n: usize, id: CallId, attempt: u32, model: Option<String>) {
        let now = self.clock(Node::Proxy(n));
        let Some(running) = &mut self.proxies[n].running else { return };
        let Some(flight) = running.flights.remove(&id) else { return };
        let current = flight.attempt == attempt && matches!(flight.state, State::Sent { .. });
        if !current {
            running.flights.insert(id, flight);
            return;
        }
        let State::Sent { in_flight, .. } = &flight.state else { return };
        in_flight.copy().host.answered();
        match model {
            Some(model) => {
                in_flight.copy().observe(now, Duration::from_millis(20));
                self.checks.answered(id, flight.model.id().as_str(), &model);
                drop(flight);
                self.answer(id, Outcome::Ok(model));
            }
            None => {
                if let Some(flight) = self.again(n, id, flight, &Failure::Denied) {
                    self.keep_flight(n, id, flight);
                }
            }
        }
    }

    pub(crate) fn data_dialled(&mut self, n: usize, conn: ConnId, how: Dialled) {
        let now = self.clock(Node::Proxy(n));
        let Some(running) = &mut self.proxies[n].running else { return };
        let found = running.data.iter_mut().find(|(_, data)| data.conn == conn);
        let Some((instance, data)) = found else { return };
        let instance = instance.clone();
        if how == Dialled::Connected {
            (data.connected, data.asked) = (true, Some(now));
            let pod = self.pod_of(&instance);
            let life = self.pods[pod].server.life;
            if let Some(data) = self.proxies[n].running.as_mut().and_then(|running| running.data.get_mut(&instance)) {
                data.life = life;
            }
            self.ping(n, &instance);
            let node = Node::Proxy(n);
            let wait = u64::try_from(CONFIRM.as_nanos()).unwrap_or(u64::MAX);
            return self.timer(node, wait, WorldTimer::Call(0, Timer::Look));
        }
        running.data.remove(&instance);
        self.fail_all(n, &instance, None, true);
    }

    /// A data connection is over.
    pub(crate) fn data_lost(&mut self, n: usize, conn: ConnId, instance: &InstanceId) {
        self.fail_all(n, instance, Some(conn), false);
    }

    pub(crate) fn drop_data(&mut self, n: usize, instance: &InstanceId) {
        let Some(running) = &mut self.proxies[n].running else { return };
        if let Some(data) = running.data.remove(instance) {
            self.close(data.conn, 0);
            self.fail_all(n, instance, Some(data.conn), false);
        }
    }

    /// The calls that wait for a connection, or are on it, fail.
    fn fail_all(&mut self, n: usize, instance: &InstanceId, on: Option<ConnId>, connect: bool) {
        let Some(running) = &mut self.proxies[n].running else { return };
        let hit: Vec<_> = running
            .flights
            .extract_if(.., |_, flight| match &flight.state {
                State::Connecting { instance: of, .. } => of == instance,
                State::Sent { conn, .. } => Some(*conn) == on,
                _ => false,
            })
            .collect();
        let now = running.fleet.clock.now();
        for (id, flight) in hit {
            let failure = match &flight.state {
                State::Sent { in_flight, .. } => {
                    in_flight.copy().host.lost(now);
                    in_flight.copy().observe(now, FAILURE);
                    Failure::Lost
                }
                State::Connecting { in_flight, .. } => {
                    if connect {
                        in_flight.copy().host.lost(now);
                    }
                    Failure::DidNotRun
                }
                _ => Failure::Lost,
            };
            if let Some(flight) = self.again(n, id, flight, &failure) {
                self.keep_flight(n, id, flight);
            }
        }
    }

    fn keep_flight(&mut self, n: usize, id: CallId, flight: Flight) {
        if let Some(running) = &mut self.proxies[n].running {
            running.flights.insert(id, flight);
        }
    }

    /// A call looks whether it goes on; whether it did.
    fn step(&mut self, n: usize, id: CallId, flight: Flight) -> bool {
        let now = self.clock(Node::Proxy(n));
        let Flight { state, .. } = &flight;
        match state {
            State::Place => self.place(n, id, flight),
            State::Rejoin { at, budgets } if *at <= now => {
                let budgets = *budgets;
                let waiter = self.join(n, &flight);
                self.keep_flight(n, id, Flight { state: State::Held { waiter, budgets, first: false }, ..flight });
                true
            }
            State::Held { .. } => self.held(n, id, flight),
            State::Line { .. } => self.in_line(n, id, flight),
            State::Connecting { .. } => self.connecting(n, id, flight),
            State::Changing { copy, until } if *until <= now || !copy.is_usable(now) => self.place(n, id, flight),
            _ => {
                self.keep_flight(n, id, flight);
                false
            }
        }
    }

    fn fleet(&self, n: usize) -> Arc<Fleet> {
        self.proxies[n].running.as_ref().expect("only running proxies have calls").fleet.clone()
    }

    /// To a ready copy, or into its line, or into the hold.
    fn place(&mut self, n: usize, id: CallId, mut flight: Flight) -> bool {
        let now = self.clock(Node::Proxy(n));
        match self.choose(n, &flight, None, false) {
            Chosen::In(in_flight) => self.go(n, id, flight, in_flight),
            Chosen::Full(copy) => {
                flight.state = State::Line { _line: copy.queue() };
                self.keep_flight(n, id, flight);
            }
            Chosen::Overload => self.answer(id, Outcome::Reason("OQ", String::new())),
            Chosen::None => {
                let place = flight.table.tuning.place_timeout;
                let budgets = flight.budgets.unwrap_or_else(|| Budgets::new(now, flight.deadline, place));
                flight.state = State::Held { waiter: self.join(n, &flight), budgets, first: true };
                self.keep_flight(n, id, flight);
            }
        }
        true
    }

    fn choose(&mut self, n: usize, flight: &Flight, except: Option<&Arc<Copy>>, in_line: bool) -> Chosen {
        let now = self.clock(Node::Proxy(n));
        let fleet = self.fleet(n);
        let copies: Vec<Arc<Copy>> = fleet.index.with(flight.model.id().as_str(), |copies| copies.to_vec());
        let copies: Vec<_> =
            copies.into_iter().filter(|copy| !except.is_some_and(|except| Arc::ptr_eq(copy, except))).collect();
        for _ in 0..=copies.len() {
            let random = &mut self.random;
            let Some(chosen) = choose(&copies, &mut || random.random()) else { return Chosen::None };
            match copies[chosen].enter(now, in_line) {
                Entry::In(in_flight) => return Chosen::In(in_flight),
                Entry::NotReady => {}
                Entry::Full => return Chosen::Full(copies[chosen].clone()),
                Entry::Overload => return Chosen::Overload,
            }
        }
        Chosen::None
    }

    /// Joins the search for the model of a call, or begins it.
    fn join(&mut self, n: usize, flight: &Flight) -> Waiter {
        let fleet = self.fleet(n);
        let mut begun = None;
        let waiter = fleet.loads.join(&flight.model, |load| {
            begun = Some(Search::new(&load, flight.table.clone()));
            fleet.runtime.spawn(std::future::pending::<()>()).abort_handle()
        });
        if let Some(search) = begun
            && let Some(running) = &mut self.proxies[n].running
        {
            running.searches.insert(flight.model.id().clone(), search);
        }
        waiter
    }

    fn held(&mut self, n: usize, id: CallId, mut flight: Flight) -> bool {
        let node = Node::Proxy(n);
        let now = self.clock(node);
        let fleet = self.fleet(n);
        let State::Held { waiter, budgets, first } = &mut flight.state else { return false };
        if std::mem::take(first) {
            if flight.deadline != Time::NEVER {
                let sights = fleet.sights(now, &flight.model, &flight.table);
                let reference = &flight.model.reference;
                let learned = fleet.load_time(&reference.model_type, sights.load_timeout(&fleet, reference));
                let seek = waiter.load().seek.lock();
                let expected = seek.expected(now, learned, &sights.candidates, &sights.elsewhere);
                let ending = budgets.hopeless(now, expected, &seek);
                drop(seek);
                if let Some(ending) = ending {
                    // The search goes on for the place budget although this one does not wait.
                    if waiter.load().keep() {
                        self.keep_searching(n, &flight);
                    }
                    self.answer(id, Outcome::Reason("DH", ending.text));
                    return true;
                }
            }
            self.keep_flight(n, id, flight);
            return true;
        }
        let phase = waiter.load().phase.borrow().clone();
        match phase {
            Phase::Use => {
                let until = budgets.until();
                let spent = budgets.spent(now, &waiter.load().seek.lock());
                flight.budgets.insert(*budgets).rest(now);
                match self.choose(n, &flight, None, false) {
                    Chosen::In(in_flight) => self.go(n, id, flight, in_flight),
                    Chosen::Full(copy) => {
                        flight.state = State::Line { _line: copy.queue() };
                        self.keep_flight(n, id, flight);
                    }
                    Chosen::Overload => self.answer(id, Outcome::Reason("OQ", String::new())),
                    Chosen::None => {
                        if let Some(ending) = spent {
                            self.answer(id, Outcome::Reason(reason(ending.reason), ending.text));
                            return true;
                        }
                        // With the same budgets: they are spent once per held call.
                        let State::Held { budgets, .. } = flight.state else { return true };
                        let pause = LOOK_AGAIN.min(until.since(now));
                        let state = State::Rejoin { at: now + pause, budgets };
                        self.keep_flight(n, id, Flight { state, ..flight });
                        let after = u64::try_from(pause.as_nanos()).unwrap_or(u64::MAX);
                        self.timer(node, after, WorldTimer::Call(id, Timer::Look));
                        return false;
                    }
                }
                return true;
            }
            Phase::Ended(ending) => {
                self.answer(id, Outcome::Reason(reason(ending.reason), ending.text));
                return true;
            }
            // A call that only keeps the search going is not needed any more.
            Phase::Seeking { accepted: Some(_) } if !self.calls.contains_key(&id) => return true,
            Phase::Seeking { accepted } => budgets.seeking(now, accepted),
        }
        let spent = budgets.spent(now, &waiter.load().seek.lock());
        if let Some(ending) = spent {
            self.answer(id, Outcome::Reason(reason(ending.reason), ending.text));
            return true;
        }
        let until = self.process(node).world_time(budgets.until());
        if budgets.until() != Time::NEVER && std::mem::replace(&mut flight.planned, until) != until {
            self.timer(node, until.saturating_sub(self.now), WorldTimer::Call(id, Timer::Look));
        }
        self.keep_flight(n, id, flight);
        false
    }

    /// Nobody waits, but the search is driven until an agent has accepted or the place budget is spent: a call of its own.
    fn keep_searching(&mut self, n: usize, flight: &Flight) {
        let now = self.clock(Node::Proxy(n));
        self.called += 1;
        let id = self.called;
        let budgets = Budgets::new(now, Time::NEVER, flight.table.tuning.place_timeout);
        let waiter = self.join(n, flight);
        let kept = Flight {
            table: flight.table.clone(),
            model: flight.model.clone(),
            deadline: Time::NEVER,
            budgets: None,
            tries: TRIES,
            unwritten: 0,
            attempt: 0,
            denied: false,
            planned: 0,
            state: State::Held { waiter, budgets, first: false },
        };
        self.keep_flight(n, id, kept);
    }

    fn in_line(&mut self, n: usize, id: CallId, mut flight: Flight) -> bool {
        match self.choose(n, &flight, None, true) {
            Chosen::In(in_flight) => {
                self.go(n, id, flight, in_flight);
                true
            }
            Chosen::None => {
                flight.state = State::Place;
                self.keep_flight(n, id, flight);
                true
            }
            Chosen::Full(_) | Chosen::Overload => {
                self.keep_flight(n, id, flight);
                false
            }
        }
    }

    /// It is in a copy: to its connection.
    fn go(&mut self, n: usize, id: CallId, mut flight: Flight, in_flight: InFlight) {
        if !self.calls.contains_key(&id) {
            // It only kept a search going.
            return;
        }
        let instance = in_flight.copy().host.id.clone();
        let pod = self.pod_of(&instance);
        flight.state = State::Connecting { in_flight, instance: instance.clone() };
        let Some(running) = &mut self.proxies[n].running else { return };
        if !running.data.contains_key(&instance) {
            let conn = self.dial(Node::Proxy(n), Node::Server(pod), Kind::Data);
            if let Some(running) = &mut self.proxies[n].running {
                running.data.insert(instance, Data { conn, life: 0, asked: None, connected: false });
            }
        }
        self.connecting(n, id, flight);
    }

    fn connecting(&mut self, n: usize, id: CallId, mut flight: Flight) -> bool {
        let now = self.clock(Node::Proxy(n));
        let State::Connecting { in_flight, instance } = &flight.state else { return false };
        let (instance, copy) = (instance.clone(), in_flight.copy().clone());
        let Some(running) = &mut self.proxies[n].running else { return false };
        let Some(data) = running.data.get_mut(&instance).filter(|data| data.connected) else {
            self.keep_flight(n, id, flight);
            return false;
        };
        if let Some(asked) = data.asked {
            let (boot, until) = copy.host.lease();
            if boot == copy.boot && until >= asked + LEASE {
                data.asked = None;
            } else if boot != copy.boot || now >= asked + CONFIRM {
                // It may be another's by now: a new one is made by whoever needs it.
                let conn = data.conn;
                running.data.remove(&instance);
                self.close(conn, 0);
                self.fail_all(n, &instance, Some(conn), true);
                if let Some(flight) = self.again(n, id, flight, &Failure::DidNotRun) {
                    self.keep_flight(n, id, flight);
                }
                return true;
            } else {
                self.keep_flight(n, id, flight);
                return false;
            }
        }
        let (conn, life) = (data.conn, data.life);
        if !copy.is_usable(now) {
            if let Some(flight) = self.again(n, id, flight, &Failure::Unwritten) {
                self.keep_flight(n, id, flight);
            }
            return true;
        }
        flight.attempt += 1;
        let model = flight.model.id().clone();
        let pod = self.pod_of(&instance);
        self.check_a_write(n, pod, &model, life);
        let (attempt, written) = (flight.attempt, self.now);
        self.send(conn, 0, Message::Call { call: id, attempt, model: model.to_string(), written, life });
        let State::Connecting { in_flight, .. } = flight.state else { return false };
        flight.state = State::Sent { in_flight, conn };
        self.keep_flight(n, id, flight);
        true
    }

    /// What becomes of a failed attempt; the flight where it goes on.
    fn again(&mut self, n: usize, id: CallId, mut flight: Flight, failure: &Failure) -> Option<Flight> {
        let now = self.clock(Node::Proxy(n));
        let copy = match &flight.state {
            State::Connecting { in_flight, .. } | State::Sent { in_flight, .. } => in_flight.copy().clone(),
            _ => return Some(flight),
        };
        flight.state = State::Place;
        let most = if matches!(failure, Failure::Unwritten) { UNWRITTEN_TRIES } else { TRIES };
        let tries = if matches!(failure, Failure::Unwritten) { &mut flight.unwritten } else { &mut flight.tries };
        *tries += 1;
        let spent = *tries >= most;
        let patience = match failure {
            Failure::Lost => {
                self.answer(id, Outcome::Reason("UR", String::new()));
                return None;
            }
            Failure::Unwritten if !spent => return Some(flight),
            Failure::Denied => {
                match copy.deny(now) {
                    Denial::News(missing) => {
                        let instance = copy.host.id.clone();
                        self.tell_agent(n, &instance, watcher_message::Message::Missing(missing));
                    }
                    // The agent is looking at this moment.
                    Denial::Since(time) if time < DENIAL && !flight.denied => {}
                    Denial::Since(_) => {
                        self.answer(id, Outcome::NotFound);
                        return None;
                    }
                }
                flight.denied = true;
                DENIAL
            }
            Failure::Unwritten | Failure::DidNotRun => UNREACHED,
        };
        if spent {
            self.answer(id, Outcome::Reason("RB", "tries".to_owned()));
            return None;
        }
        let allowed = self.proxies[n].running.as_ref().is_some_and(|running| running.retries.retry(now));
        if !allowed {
            self.answer(id, Outcome::Reason("RB", "budget".to_owned()));
            return None;
        }
        match self.choose(n, &flight, Some(&copy), false) {
            Chosen::In(in_flight) => {
                self.go(n, id, flight, in_flight);
                None
            }
            _ => {
                let until = now + patience;
                flight.state = State::Changing { copy, until };
                let after = u64::try_from(patience.as_nanos()).unwrap_or(u64::MAX);
                self.timer(Node::Proxy(n), after, WorldTimer::Call(id, Timer::Look));
                Some(flight)
            }
        }
    }

    fn pod_of(&self, instance: &InstanceId) -> usize {
        self.pods.iter().position(|pod| pod.name == instance.as_str()).expect("instances are named as their pods")
    }
}

/// What a look at the ready copies brings.
enum Chosen {
    In(InFlight),
    Full(Arc<Copy>),
    Overload,
    None,
}

fn reason(reason: EndReason) -> &'static str {
    match reason {
        EndReason::NI => "NI",
        EndReason::NP => "NP",
        EndReason::LF => "LF",
        EndReason::LT => "LT",
        EndReason::DH => "DH",
        EndReason::DE => "DE",
    }
}
