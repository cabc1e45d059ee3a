//! The shell around control's core: watches of agents, loads that it asks for, streams to proxies, its source.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use modelring_control::{
    Config,
    core::{Answer, Ask, Core, Delta, EPOCH, Event, Heard, Joined, Outside, ProxyMessage, TICK, TOGETHER},
};
use modelring_placement::{pod::LoadError, time::Time};
use modelring_proto::{
    PROTOCOL,
    v1::{
        self, Hints, Role, RoutesUpdate, load_event, proxy_message, routes_update::Kind as UpdateKind, watcher_message,
    },
};
use parking_lot::Mutex;
use rand::Rng;
use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    millis,
    network::{ConnId, Dialled, Kind, Message},
    process::Node,
    queue::Nanos,
    secs,
    world::{Timer, World},
};

const PING: Nanos = millis(500);
/// Without an answer for this long a stream is taken for dead.
const SILENCE: Nanos = secs(5);
/// Until an agent says that it takes a load.
const PLACE: Nanos = secs(30);
const FIRST_PAUSE: Nanos = millis(200);
const LONGEST_PAUSE: Nanos = millis(2000);

/// A control process.
#[derive(Default)]
pub struct Control {
    /// What runs.
    pub running: Option<Running>,
}

/// A running control.
pub struct Running {
    /// Its state and decisions.
    pub core: Core,
    outside: Arc<Mutex<Orders>>,
    clock: Arc<AtomicU64>,
    agents: BTreeMap<String, Watch>,
    asks: BTreeMap<ConnId, Open>,
    proxies: BTreeMap<ConnId, Told>,
    evaluates: bool,
}

struct Watch {
    hints: watch::Receiver<Hints>,
    conn: Option<ConnId>,
    dialling: Option<ConnId>,
    pings: u64,
    greeted: bool,
    heard: Nanos,
    pause: Nanos,
}

/// An open `EnsureLoaded`.
struct Open {
    ask: Ask,
    address: String,
    /// Counts the times that it was given.
    stage: u32,
}

/// A connected proxy.
enum Told {
    Waits(oneshot::Receiver<Joined>),
    Follows(mpsc::Receiver<Arc<Delta>>),
}

/// What the core wants done.
#[derive(Default)]
struct Orders {
    watch: Vec<(String, watch::Receiver<Hints>)>,
    unwatch: Vec<String>,
    ask: Vec<(String, Ask)>,
}

struct Desk {
    clock: Arc<AtomicU64>,
    orders: Arc<Mutex<Orders>>,
}

impl Outside for Desk {
    fn now(&self) -> Time {
        Time::from_nanos(self.clock.load(Ordering::Relaxed))
    }

    fn watch(&mut self, address: &str, hints: watch::Receiver<Hints>) -> Result<(), String> {
        self.orders.lock().watch.push((address.to_owned(), hints));
        Ok(())
    }

    fn unwatch(&mut self, address: &str) {
        self.orders.lock().unwatch.push(address.to_owned());
    }

    fn ask(&mut self, address: &str, ask: Ask) {
        self.orders.lock().ask.push((address.to_owned(), ask));
    }
}

// === impl World ===

impl World {
    pub(crate) fn control_starts(&mut self, n: usize) {
        let node = Node::Control(n);
        let clock = Arc::new(AtomicU64::new(self.clock(node).as_nanos()));
        let orders = Arc::new(Mutex::new(Orders::default()));
        let desk = Desk { clock: clock.clone(), orders: orders.clone() };
        let config = Config {
            dir: std::path::PathBuf::new(),
            listen: std::net::SocketAddr::from(([127, 0, 0, 1], 0)),
            tls: None,
            namespace: String::new(),
            instances: Vec::new(),
            built_in_runtimes: Vec::new(),
            dataplane: modelring_control::dataplane::Source::default(),
        };
        let core = Core::over(config, self.store.clone(), Box::new(desk)).expect("the store of a simulation answers");
        self.say(|| format!("control {n} has epoch {}", core.epoch()));
        self.controls[n].running = Some(Running {
            core,
            outside: orders,
            clock,
            agents: BTreeMap::new(),
            asks: BTreeMap::new(),
            proxies: BTreeMap::new(),
            evaluates: false,
        });
        self.checks.control_started(self.now);
        self.timer(node, nanos(TICK), Timer::Look);
        self.timer(node, nanos(EPOCH), Timer::Epoch);
        self.tell_desires_to(n);
    }

    pub(crate) fn control_dies(&mut self, n: usize) {
        self.controls[n].running = None;
    }

    /// Every control reads what users ask for now.
    pub fn tell_desires(&mut self) {
        for n in 0..self.controls.len() {
            self.tell_desires_to(n);
        }
    }

    fn tell_desires_to(&mut self, n: usize) {
        if self.process(Node::Control(n)).up {
            let after = self.random.random_range(millis(10)..millis(300));
            self.timer(Node::Control(n), after, Timer::ControlDial(String::new()));
        }
    }

    pub(crate) fn control_timer(&mut self, n: usize, timer: Timer) {
        self.wind_control(n);
        let node = Node::Control(n);
        match timer {
            Timer::ControlDial(address) if address.is_empty() => {
                let state = self.desires.state();
                self.core(n, Event::Desired(state));
            }
            Timer::ControlDial(address) => self.control_dials(n, &address),
            Timer::ControlPing(address, conn) => self.control_pings(n, address, conn),
            Timer::Evaluate => {
                if let Some(running) = &mut self.controls[n].running {
                    running.evaluates = false;
                }
                self.evaluate(n);
            }
            Timer::Look => {
                if self.controls[n].running.as_ref().is_some_and(|running| running.core.waits()) {
                    self.evaluate(n);
                }
                self.timer(node, nanos(TICK), Timer::Look);
            }
            Timer::Epoch => {
                let looked = self.controls[n].running.as_ref().map(|running| running.core.look_at_the_epoch());
                self.ends_by(n, looked.unwrap_or(Ok(())));
                self.timer(node, nanos(EPOCH), Timer::Epoch);
            }
            Timer::AskEnds(conn, stage) => {
                let asked = self.controls[n].running.as_ref().and_then(|running| running.asks.get(&conn));
                if asked.is_some_and(|open| open.stage == stage) {
                    self.close(conn, 0);
                    self.ask_ends(n, conn, Answer::Lost("no answer in time".to_owned()));
                }
            }
            _ => {}
        }
    }

    pub(crate) fn control_hears(&mut self, n: usize, conn: ConnId, message: Message) {
        use load_event::Event as Load;
        use proxy_message::Message as Said;
        self.wind_control(n);
        let now = self.now;
        let Some(running) = &mut self.controls[n].running else { return };
        match message {
            Message::Agent(event) => {
                let found = running.agents.iter_mut().find(|(_, watch)| watch.conn == Some(conn));
                let Some((address, watch)) = found else { return };
                (watch.heard, watch.greeted) = (now, true);
                let address = address.clone();
                self.core(n, Event::Agent { address, heard: Heard::Said(event) });
            }
            Message::LoadEvent(event) => {
                let Some(open) = running.asks.get_mut(&conn) else { return };
                let answer = match event.event {
                    Some(Load::Accepted(_)) => {
                        open.stage += 1;
                        let (stage, budget) = (open.stage, nanos(open.ask.load_budget));
                        return self.timer(Node::Control(n), budget, Timer::AskEnds(conn, stage));
                    }
                    Some(Load::Loaded(loaded)) => Answer::Loaded { boot: loaded.boot_id, seq: loaded.seq },
                    Some(Load::Failed(failed)) => {
                        let passing = matches!(failed.code, 1 | 4 | 8 | 10 | 14);
                        Answer::Failed(LoadError { code: failed.code, text: failed.text, passing })
                    }
                    Some(Load::Refused(refused)) => Answer::Refused {
                        reason: refused.reason(),
                        retry_after: Duration::from_millis(refused.retry_after_millis),
                        text: refused.text,
                    },
                    Some(Load::Progress(_)) | None => return,
                };
                self.close(conn, 0);
                self.ask_ends(n, conn, answer);
            }
            Message::Proxy(message) => {
                let said = match message.message {
                    Some(Said::Hello(hello)) => {
                        let (reply, joined) = oneshot::channel();
                        running.proxies.insert(conn, Told::Waits(joined));
                        ProxyMessage::Joins { connection: conn, hello, reply }
                    }
                    Some(Said::Ack(ack)) => {
                        ProxyMessage::Ack { connection: conn, version: ack.version.unwrap_or_default() }
                    }
                    Some(Said::Nack(nack)) => {
                        let version = nack.version.unwrap_or_default();
                        ProxyMessage::Nack { connection: conn, version, reason: nack.reason }
                    }
                    Some(Said::Usage(usage)) => ProxyMessage::Usage { usage },
                    None => return,
                };
                self.core(n, Event::Proxy(said));
            }
            _ => {}
        }
    }

    pub(crate) fn control_loses(&mut self, n: usize, conn: ConnId) {
        self.wind_control(n);
        let Some(running) = &mut self.controls[n].running else { return };
        if running.proxies.remove(&conn).is_some() {
            return self.core(n, Event::Proxy(ProxyMessage::Leaves { connection: conn }));
        }
        if running.asks.contains_key(&conn) {
            return self.ask_ends(n, conn, Answer::Lost("the connection is lost".to_owned()));
        }
        let lost =
            running.agents.iter().find(|(_, watch)| watch.conn == Some(conn)).map(|(address, _)| address.clone());
        if let Some(address) = lost {
            self.watch_ends(n, &address, Heard::Ended);
        }
    }

    pub(crate) fn control_dialled(&mut self, n: usize, conn: ConnId, how: Dialled) {
        self.wind_control(n);
        let now = self.now;
        let Some(running) = &mut self.controls[n].running else { return };
        let found = running.agents.iter_mut().find(|(_, watch)| watch.dialling == Some(conn));
        let Some((address, watch)) = found else { return };
        let address = address.clone();
        watch.dialling = None;
        if how != Dialled::Connected {
            let (refused, text) = (how == Dialled::Refused, "nobody answers".to_owned());
            return self.watch_ends(n, &address, Heard::Unreachable { refused, text });
        }
        (watch.conn, watch.pings, watch.greeted, watch.heard) = (Some(conn), 0, false, now);
        watch.hints.mark_changed();
        let hello = v1::WatcherHello { protocol: PROTOCOL, role: Role::Control.into(), id: format!("control-{n}") };
        self.control_tells(conn, watcher_message::Message::Hello(hello));
        self.control_pings(n, address, conn);
    }

    /// Does what the core wants done.
    pub(crate) fn drive_control(&mut self, n: usize) {
        let Some(running) = &mut self.controls[n].running else { return };
        let Orders { watch, unwatch, ask } = std::mem::take(&mut *running.outside.lock());
        for address in unwatch {
            let gone = self.controls[n].running.as_mut().and_then(|running| running.agents.remove(&address));
            for conn in gone.into_iter().flat_map(|watch| watch.conn.into_iter().chain(watch.dialling)) {
                self.close(conn, 0);
            }
        }
        for (address, hints) in watch {
            let pause = FIRST_PAUSE;
            let watch = Watch { hints, conn: None, dialling: None, pings: 0, greeted: false, heard: 0, pause };
            if let Some(running) = &mut self.controls[n].running {
                running.agents.insert(address.clone(), watch);
            }
            self.control_dials(n, &address);
        }
        for (address, ask) in ask {
            self.control_asks(n, address, ask);
        }
        self.tell_hints(n);
        self.tell_tables(n);
        let Some(running) = &mut self.controls[n].running else { return };
        if running.core.is_dirty() && !std::mem::replace(&mut running.evaluates, true) {
            self.timer(Node::Control(n), nanos(TOGETHER), Timer::Evaluate);
        }
    }

    /// Hands an event to the core; one that another control has replaced ends.
    fn core(&mut self, n: usize, event: Event) {
        let Some(running) = &mut self.controls[n].running else { return };
        let handled = running.core.handle(event);
        self.ends_by(n, handled);
    }

    fn evaluate(&mut self, n: usize) {
        let Some(running) = &mut self.controls[n].running else { return };
        let evaluated = running.core.evaluate();
        self.ends_by(n, evaluated);
    }

    fn ends_by(&mut self, n: usize, result: Result<(), modelring_control::Error>) {
        if let Err(error) = result {
            self.say(|| format!("control {n} ends: {error}"));
            self.kill(Node::Control(n));
        }
    }

    fn wind_control(&mut self, n: usize) {
        let now = self.clock(Node::Control(n)).as_nanos();
        if let Some(running) = &self.controls[n].running {
            running.clock.store(now, Ordering::Relaxed);
        }
    }

    fn control_tells(&mut self, conn: ConnId, message: watcher_message::Message) {
        self.send(conn, 0, Message::Watcher(v1::WatcherMessage { message: Some(message) }));
    }

    fn control_dials(&mut self, n: usize, address: &str) {
        let Some(pod) = self.pods.iter().position(|pod| pod.address == address) else { return };
        let idle = |watch: &&mut Watch| watch.conn.is_none() && watch.dialling.is_none();
        let running = self.controls[n].running.as_mut();
        if running.and_then(|running| running.agents.get_mut(address)).filter(idle).is_none() {
            return;
        }
        let conn = self.dial(Node::Control(n), Node::Agent(pod), Kind::Watch);
        if let Some(watch) = self.controls[n].running.as_mut().and_then(|running| running.agents.get_mut(address)) {
            watch.dialling = Some(conn);
        }
    }

    fn control_pings(&mut self, n: usize, address: String, conn: ConnId) {
        let now = self.now;
        let Some(running) = &mut self.controls[n].running else { return };
        let Some(watch) = running.agents.get_mut(&address).filter(|watch| watch.conn == Some(conn)) else { return };
        if watch.greeted && now > watch.heard + SILENCE {
            self.close(conn, 0);
            return self.watch_ends(n, &address, Heard::Ended);
        }
        watch.pings += 1;
        let ping = v1::Ping { n: watch.pings };
        self.core(n, Event::Agent { address: address.clone(), heard: Heard::PingSent(ping.n) });
        self.control_tells(conn, watcher_message::Message::Ping(ping));
        self.timer(Node::Control(n), PING, Timer::ControlPing(address, conn));
    }

    fn watch_ends(&mut self, n: usize, address: &str, heard: Heard) {
        let Some(running) = &mut self.controls[n].running else { return };
        let Some(watch) = running.agents.get_mut(address) else { return };
        watch.conn = None;
        let pause = watch.pause;
        watch.pause = if watch.greeted { FIRST_PAUSE } else { (pause * 2).min(LONGEST_PAUSE) };
        let lost: Vec<_> = running.asks.iter().filter(|(_, open)| open.address == address).map(|(c, _)| *c).collect();
        for conn in lost {
            self.close(conn, 0);
            self.ask_ends(n, conn, Answer::Lost("the connection is lost".to_owned()));
        }
        self.core(n, Event::Agent { address: address.to_owned(), heard });
        self.timer(Node::Control(n), pause, Timer::ControlDial(address.to_owned()));
    }

    fn control_asks(&mut self, n: usize, address: String, ask: Ask) {
        let node = Node::Control(n);
        let watch = self.controls[n].running.as_ref().and_then(|running| running.agents.get(&address));
        let to = watch.and_then(|watch| watch.conn).and_then(|conn| self.network.get(conn)).map(|conn| conn.ends[1]);
        let Some(to) = to else {
            let Ask { place, makes_room_for, .. } = ask;
            let answer = Answer::Lost("there is no connection".to_owned());
            return self.core(n, Event::Asked { place, makes_room_for, answer });
        };
        self.say(|| format!("control {n} asks {address} for {} {:?}", ask.place.0, ask.request.why()));
        self.checks.count("asks of control");
        let conn = self.open(node, to, Kind::Ensure);
        self.send(conn, 0, Message::Load(ask.request.clone()));
        if let Some(running) = &mut self.controls[n].running {
            running.asks.insert(conn, Open { ask, address, stage: 0 });
        }
        self.timer(node, PLACE, Timer::AskEnds(conn, 0));
    }

    fn ask_ends(&mut self, n: usize, conn: ConnId, answer: Answer) {
        let Some(running) = &mut self.controls[n].running else { return };
        let Some(Open { ask, .. }) = running.asks.remove(&conn) else { return };
        let Ask { place, makes_room_for, .. } = ask;
        self.core(n, Event::Asked { place, makes_room_for, answer });
    }

    fn tell_hints(&mut self, n: usize) {
        let Some(running) = &mut self.controls[n].running else { return };
        let mut told = Vec::new();
        for watch in running.agents.values_mut() {
            let Some(conn) = watch.conn else { continue };
            if watch.hints.has_changed().unwrap_or(false) {
                let hints = watch.hints.borrow_and_update().clone();
                told.extend((hints.epoch > 0).then_some((conn, hints)));
            }
        }
        for (conn, hints) in told {
            self.control_tells(conn, watcher_message::Message::Hints(hints));
        }
    }

    /// Tells each proxy the table that it waits for, and what changed.
    fn tell_tables(&mut self, n: usize) {
        let Some(running) = &mut self.controls[n].running else { return };
        let (mut told, mut over) = (Vec::new(), Vec::new());
        for (conn, proxy) in &mut running.proxies {
            if let Told::Waits(joined) = proxy {
                match joined.try_recv() {
                    Ok(Joined { version, table, deltas, .. }) => {
                        told.extend(table.snapshot(version, false).map(|update| (*conn, update)));
                        *proxy = Told::Follows(deltas);
                    }
                    Err(oneshot::error::TryRecvError::Closed) => over.push(*conn),
                    Err(oneshot::error::TryRecvError::Empty) => {}
                }
            }
            if let Told::Follows(deltas) = proxy {
                loop {
                    match deltas.try_recv() {
                        Ok(delta) => {
                            let mut change = delta.change.clone();
                            change.notices = None;
                            let (version, kind) = (Some(delta.version), UpdateKind::Delta.into());
                            told.push((*conn, RoutesUpdate { version, kind, change: Some(change), observed: None }));
                        }
                        Err(mpsc::error::TryRecvError::Empty) => break,
                        Err(mpsc::error::TryRecvError::Disconnected) => {
                            over.push(*conn);
                            break;
                        }
                    }
                }
            }
        }
        for (conn, update) in told {
            self.send(conn, 1, Message::Update(Box::new(update)));
        }
        for conn in over {
            if let Some(running) = &mut self.controls[n].running {
                running.proxies.remove(&conn);
            }
            self.close(conn, 1);
            self.core(n, Event::Proxy(ProxyMessage::Leaves { connection: conn }));
        }
    }
}

fn nanos(duration: Duration) -> Nanos {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
