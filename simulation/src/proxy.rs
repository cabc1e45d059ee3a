//! The shell around a proxy's fleet: it dials agents and control, pings, reports, acknowledges, as the tasks of the fleet
//! do. The fleet itself (table, views, copies, searches) is the proxy's own.

use std::{collections::BTreeMap, sync::Arc};

use modelring_placement::{
    id::{InstanceId, ModelId},
    pod::LoadError,
    retry::RetryBudget,
    seek::Heard,
    time::Time,
    view::ViewEvent,
};
use modelring_proto::{
    PROTOCOL,
    v1::{self, Role, agent_event, proxy_message, watcher_message},
};
use modelring_proxy::{
    clock::{Clock, Hand},
    fleet::{Fleet, Peer, copy_state},
    table::{Inbox, Refusal, Table},
};
use rand::Rng;

use crate::{
    call::{Flight, Timer as CallTimer},
    millis,
    network::{ConnId, Dialled, Kind, Message},
    process::Node,
    queue::Nanos,
    search::Search,
    world::{CallId, Timer, World},
};

/// Time between pings, and pings between reports of use.
const PING: Nanos = millis(500);
const TOUCH_EVERY: u64 = 2;
/// Time between reports to control.
const REPORT: Nanos = millis(1000);

/// A proxy, and what it keeps on disk.
#[derive(Default)]
pub struct Proxy {
    /// What runs.
    pub running: Option<Running>,
    /// Its last table, kept over a restart.
    pub kept: Option<Table>,
}

/// A running proxy.
pub struct Running {
    /// What it knows.
    pub fleet: Arc<Fleet>,
    hand: Hand,
    shown: Time,
    inbox: Inbox,
    control: Option<ConnId>,
    dialling: Option<ConnId>,
    failures: u32,
    pub(crate) watches: BTreeMap<InstanceId, Watch>,
    pub(crate) searches: BTreeMap<ModelId, Search>,
    pub(crate) flights: BTreeMap<CallId, Flight>,
    pub(crate) data: BTreeMap<InstanceId, Data>,
    pub(crate) retries: RetryBudget,
    /// When it got its first table.
    pub since: Option<Nanos>,
}

/// The watch of one instance.
pub(crate) struct Watch {
    pub(crate) peer: Arc<Peer>,
    pub(crate) conn: Option<ConnId>,
    dialling: Option<ConnId>,
    pings: u64,
    failures: u32,
}

/// The data connection to one instance.
pub(crate) struct Data {
    pub(crate) conn: ConnId,
    /// The life of the server that it was made to.
    pub(crate) life: u64,
    /// When it was made, by the proxy's clock, while no pong has confirmed it.
    pub(crate) asked: Option<Time>,
    pub(crate) connected: bool,
}

// === impl World ===

impl World {
    pub(crate) fn proxy_starts(&mut self, n: usize) {
        let node = Node::Proxy(n);
        let shown = self.clock(node);
        let (clock, hand) = Clock::manual(shown);
        let fleet = Fleet::new(clock, self.idle_runtime());
        let running = Running {
            fleet,
            hand,
            shown,
            inbox: Inbox::default(),
            control: None,
            dialling: None,
            failures: 0,
            watches: BTreeMap::new(),
            searches: BTreeMap::new(),
            flights: BTreeMap::new(),
            data: BTreeMap::new(),
            retries: RetryBudget::new(),
            since: None,
        };
        self.proxies[n].running = Some(running);
        if let Some(table) = self.proxies[n].kept.clone() {
            self.install(n, table);
        }
        self.timer(node, 0, Timer::DialControl);
        self.timer(node, REPORT, Timer::Report);
        self.drive_proxy(n);
    }

    pub(crate) fn proxy_dies(&mut self, n: usize) {
        let Some(running) = self.proxies[n].running.take() else { return };
        for call in running.flights.keys() {
            self.answer(*call, crate::call::Outcome::Gone);
        }
        running.fleet.stop();
    }

    /// Its clock shows the time.
    pub(crate) fn wind_clock(&mut self, n: usize) {
        let now = self.clock(Node::Proxy(n));
        if let Some(running) = &mut self.proxies[n].running {
            running.hand.advance(now.since(running.shown));
            running.shown = now;
        }
    }

    pub(crate) fn proxy_timer(&mut self, n: usize, timer: Timer) {
        self.wind_clock(n);
        let node = Node::Proxy(n);
        match timer {
            Timer::Ping(instance, conn) => {
                let Some(watch) = self.watch(n, &instance).filter(|watch| watch.conn == Some(conn)) else { return };
                let touch = (watch.pings + 1).is_multiple_of(TOUCH_EVERY);
                self.ping(n, &instance);
                if touch {
                    let now = self.clock(node);
                    let touches = self.watch(n, &instance).map(|watch| watch.peer.touches(now)).unwrap_or_default();
                    self.touch(n, &instance, touches);
                }
                self.timer(node, PING, Timer::Ping(instance, conn));
            }
            Timer::DialAgent(instance) => self.dial_agent(n, &instance),
            Timer::DialControl => self.dial_control(n),
            Timer::Report => {
                self.report(n);
                self.timer(node, REPORT, Timer::Report);
            }
            Timer::Call(call, timer) => self.call_timer(n, call, timer),
            // A search looks again in any case.
            _ => {}
        }
    }

    pub(crate) fn proxy_hears(&mut self, n: usize, conn: ConnId, message: Message) {
        self.wind_clock(n);
        match message {
            Message::Agent(event) => self.agent_says(n, conn, event),
            Message::LoadEvent(event) => self.load_goes_on(n, conn, event),
            Message::Update(update) => self.update(n, conn, *update),
            Message::Answer { call, attempt, model } => self.answered(n, call, attempt, model),
            _ => {}
        }
    }

    pub(crate) fn proxy_loses(&mut self, n: usize, conn: ConnId) {
        self.wind_clock(n);
        let Some(running) = &mut self.proxies[n].running else { return };
        if running.control == Some(conn) {
            running.control = None;
            return self.later(n, Timer::DialControl);
        }
        if let Some((instance, watch)) = running.watches.iter_mut().find(|(_, watch)| watch.conn == Some(conn)) {
            watch.conn = None;
            watch.peer.handle(ViewEvent::Ended);
            let instance = instance.clone();
            self.lose_search(n, &instance);
            return self.later(n, Timer::DialAgent(instance));
        }
        let Some(running) = &mut self.proxies[n].running else { return };
        if let Some(search) = running.searches.values_mut().find(|search| search.is_on(conn)) {
            return search.heard(running.shown, Heard::Lost);
        }
        let lost = running.data.iter().find(|(_, data)| data.conn == conn).map(|(instance, _)| instance.clone());
        if let Some(instance) = lost {
            running.data.remove(&instance);
            self.data_lost(n, conn, &instance);
        }
    }

    pub(crate) fn proxy_dialled(&mut self, n: usize, conn: ConnId, kind: Kind, how: Dialled) {
        self.wind_clock(n);
        let Some(running) = &mut self.proxies[n].running else { return };
        if running.dialling == Some(conn) {
            running.dialling = None;
            if how != Dialled::Connected {
                return self.later(n, Timer::DialControl);
            }
            (running.control, running.inbox) = (Some(conn), Inbox::default());
            let hello = v1::RoutesHello {
                protocol: PROTOCOL,
                role: Role::Proxy.into(),
                id: running.fleet.id.to_string(),
                namespace: String::new(),
                last: running.fleet.table().map(|table| v1::Version { epoch: table.version.epoch, n: table.version.n }),
            };
            return self.tell_control(n, proxy_message::Message::Hello(hello));
        }
        let found = running.watches.iter_mut().find(|(_, watch)| watch.dialling == Some(conn));
        if let Some((instance, watch)) = found {
            watch.dialling = None;
            let instance = instance.clone();
            if how != Dialled::Connected {
                watch.peer.handle(if how == Dialled::Refused { ViewEvent::Refused } else { ViewEvent::Ended });
                return self.later(n, Timer::DialAgent(instance));
            }
            (watch.conn, watch.pings) = (Some(conn), 0);
            let id = running.fleet.id.to_string();
            let hello = v1::WatcherHello { protocol: PROTOCOL, role: Role::Proxy.into(), id };
            self.tell_agent(n, &instance, watcher_message::Message::Hello(hello));
            self.ping(n, &instance);
            return self.timer(Node::Proxy(n), PING, Timer::Ping(instance, conn));
        }
        if kind == Kind::Data || running.data.values().any(|data| data.conn == conn) {
            self.data_dialled(n, conn, how);
        }
    }

    /// Everything that follows at the proxy from what has just happened.
    pub(crate) fn drive_proxy(&mut self, n: usize) {
        self.wind_clock(n);
        if self.proxies[n].running.is_none() {
            return;
        }
        self.follow_the_table(n);
        while self.drive_searches(n) | self.drive_calls(n) {}
        let now = self.clock(Node::Proxy(n));
        let Some(running) = &self.proxies[n].running else { return };
        let mut acks: Vec<_> = Vec::new();
        for (instance, watch) in running.watches.iter().filter(|(_, watch)| watch.conn.is_some()) {
            let mut of: Vec<_> = watch.peer.acks(now);
            of.sort_by(|a, b| a.model.cmp(&b.model));
            acks.extend(of.into_iter().map(|ack| (instance.clone(), ack)));
        }
        for (instance, ack) in acks {
            self.tell_agent(n, &instance, watcher_message::Message::DrainAck(ack));
        }
        self.drop_revoked(n);
    }

    /// Says to an agent what a watcher says.
    pub(crate) fn tell_agent(&mut self, n: usize, instance: &InstanceId, message: watcher_message::Message) {
        if let Some(conn) = self.watch(n, instance).and_then(|watch| watch.conn) {
            self.send(conn, 0, Message::Watcher(v1::WatcherMessage { message: Some(message) }));
        }
    }

    pub(crate) fn watch(&self, n: usize, instance: &InstanceId) -> Option<&Watch> {
        self.proxies[n].running.as_ref()?.watches.get(instance)
    }

    pub(crate) fn ping(&mut self, n: usize, instance: &InstanceId) {
        let Some(running) = &mut self.proxies[n].running else { return };
        let Some(watch) = running.watches.get_mut(instance).filter(|watch| watch.conn.is_some()) else { return };
        watch.pings += 1;
        let ping = v1::Ping { n: watch.pings };
        watch.peer.handle(ViewEvent::PingSent(ping.n));
        self.tell_agent(n, instance, watcher_message::Message::Ping(ping));
    }

    fn touch(&mut self, n: usize, instance: &InstanceId, mut touches: Vec<v1::Touch>) {
        if !touches.is_empty() {
            touches.sort_by(|a, b| a.model.cmp(&b.model));
            self.tell_agent(n, instance, watcher_message::Message::Touches(v1::Touches { touches }));
        }
    }

    fn agent_says(&mut self, n: usize, conn: ConnId, event: v1::AgentEvent) {
        use agent_event::Event;
        let now = self.clock(Node::Proxy(n));
        let Some(running) = &mut self.proxies[n].running else { return };
        let found = running.watches.iter_mut().find(|(_, watch)| watch.conn == Some(conn));
        let Some((instance, watch)) = found else { return };
        let instance = instance.clone();
        watch.failures = 0;
        let seq = event.seq;
        let event = match event.event {
            Some(Event::Hello(hello)) => {
                let listed = &watch.peer.listed;
                if listed.id.as_str() != hello.instance_id || *listed.pod_uid != *hello.pod_uid {
                    watch.conn = None;
                    watch.peer.handle(ViewEvent::Refused);
                    self.close(conn, 0);
                    return self.later(n, Timer::DialAgent(instance));
                }
                ViewEvent::Hello { boot: hello.boot_id }
            }
            Some(Event::Copy(copy)) => {
                let Some(state) = copy_state(&copy, now) else { return };
                ViewEvent::Copy { seq, model: copy.model.into(), state }
            }
            Some(Event::SnapshotEnd(_)) => ViewEvent::SnapshotEnd { seq },
            Some(Event::Pong(pong)) => ViewEvent::Pong(pong.n),
            Some(Event::Leaving(_)) => ViewEvent::Leaving,
            Some(Event::Ledger(_)) | None => return,
        };
        let urgent = watch.peer.handle(event);
        self.touch(n, &instance, urgent);
    }

    fn load_goes_on(&mut self, n: usize, conn: ConnId, event: v1::LoadEvent) {
        use v1::load_event::Event;
        let now = self.clock(Node::Proxy(n));
        let Some(running) = &mut self.proxies[n].running else { return };
        let found = running.searches.iter_mut().find(|(_, search)| search.is_on(conn));
        let Some((model, search)) = found else { return };
        let heard = match event.event {
            Some(Event::Accepted(_)) => Heard::Accepted,
            Some(Event::Loaded(loaded)) => {
                if let Some(peer) = search.asked().and_then(|instance| running.fleet.peer(instance.as_str())) {
                    peer.loaded(loaded.boot_id, loaded.seq, model);
                }
                Heard::Loaded
            }
            Some(Event::Failed(failed)) => {
                Heard::Failed(LoadError { code: failed.code, text: failed.text, passing: false })
            }
            Some(Event::Refused(refused)) => crate::search::refusal(refused),
            Some(Event::Progress(_)) | None => return,
        };
        search.heard(now, heard);
    }

    fn update(&mut self, n: usize, conn: ConnId, update: v1::RoutesUpdate) {
        let Some(running) = self.proxies[n].running.as_mut().filter(|running| running.control == Some(conn)) else {
            return;
        };
        let version = update.version;
        let last = running.fleet.table();
        match running.inbox.receive(last.as_deref(), update) {
            Ok(None) => {}
            Ok(Some(table)) => {
                running.failures = 0;
                self.install(n, table);
                self.tell_control(n, proxy_message::Message::Ack(v1::Ack { version }));
            }
            Err(refusal) => {
                let reason = refusal.to_string();
                self.tell_control(n, proxy_message::Message::Nack(v1::Nack { version, reason }));
                if !matches!(refusal, Refusal::Wrong(_)) {
                    if let Some(running) = &mut self.proxies[n].running {
                        running.control = None;
                    }
                    self.close(conn, 0);
                    self.later(n, Timer::DialControl);
                }
            }
        }
    }

    fn install(&mut self, n: usize, table: Table) {
        let Some(running) = &mut self.proxies[n].running else { return };
        let last = running.fleet.table().map(|table| table.version);
        self.checks.installs(n, last, table.version);
        running.since.get_or_insert(self.now);
        let text = format!("proxy {n} has table {}", table.version);
        running.fleet.install(table.clone());
        self.proxies[n].kept = Some(table);
        self.say(|| text);
    }

    /// Watches whom the table lists, and nobody else.
    fn follow_the_table(&mut self, n: usize) {
        let Some(running) = &mut self.proxies[n].running else { return };
        let peers = running.fleet.peers();
        let stays = |id: &InstanceId, watch: &Watch| peers.get(id).is_some_and(|peer| Arc::ptr_eq(peer, &watch.peer));
        let gone: Vec<_> = running.watches.extract_if(.., |id, watch| !stays(id, watch)).collect();
        let new: Vec<_> = peers.iter().filter(|(id, _)| !running.watches.contains_key(*id)).collect();
        let new: Vec<_> = new.into_iter().map(|(id, peer)| (id.clone(), peer.clone())).collect();
        for (id, watch) in gone {
            for conn in watch.conn.into_iter().chain(watch.dialling) {
                self.close(conn, 0);
            }
            self.lose_search(n, &id);
            self.drop_data(n, &id);
        }
        for (id, peer) in new {
            let watch = Watch { peer, conn: None, dialling: None, pings: 0, failures: 0 };
            if let Some(running) = &mut self.proxies[n].running {
                running.watches.insert(id.clone(), watch);
            }
            self.dial_agent(n, &id);
        }
    }

    fn dial_agent(&mut self, n: usize, instance: &InstanceId) {
        let idle = |watch: &&Watch| watch.conn.is_none() && watch.dialling.is_none();
        let Some(watch) = self.watch(n, instance).filter(idle) else { return };
        let Some(pod) = self.pods.iter().position(|pod| *pod.address == *watch.peer.listed.address) else { return };
        let conn = self.dial(Node::Proxy(n), Node::Agent(pod), Kind::Watch);
        if let Some(watch) = self.proxies[n].running.as_mut().and_then(|running| running.watches.get_mut(instance)) {
            watch.dialling = Some(conn);
        }
    }

    fn dial_control(&mut self, n: usize) {
        let up: Vec<_> = (0..self.controls.len()).filter(|at| self.process(Node::Control(*at)).up).collect();
        let chosen = up.get(self.random.random_range(0..up.len().max(1))).copied().unwrap_or(0);
        let conn = self.dial(Node::Proxy(n), Node::Control(chosen), Kind::Routes);
        if let Some(running) = &mut self.proxies[n].running {
            running.dialling = Some(conn);
        }
    }

    /// Dials again after a pause that grows.
    fn later(&mut self, n: usize, timer: Timer) {
        let Some(running) = &mut self.proxies[n].running else { return };
        let failures = match &timer {
            Timer::DialAgent(instance) => running.watches.get_mut(instance).map(|watch| &mut watch.failures),
            _ => Some(&mut running.failures),
        };
        let Some(failures) = failures else { return };
        let (least, most) =
            if matches!(timer, Timer::DialControl) { (millis(100), millis(5000)) } else { (millis(50), millis(2000)) };
        let step = (least << (*failures).min(10)).min(most);
        *failures += 1;
        let pause = self.random.random_range(step / 2..=step);
        self.timer(Node::Proxy(n), pause, timer);
    }

    fn report(&mut self, n: usize) {
        let Some(running) = &self.proxies[n].running else { return };
        let mut usage = running.fleet.usage();
        usage.copies.sort_by(|a, b| (&a.model, &a.instance).cmp(&(&b.model, &b.instance)));
        usage.models.sort_by(|a, b| a.model.cmp(&b.model));
        if !usage.copies.is_empty() || !usage.models.is_empty() {
            self.tell_control(n, proxy_message::Message::Usage(usage));
        }
    }

    fn tell_control(&mut self, n: usize, message: proxy_message::Message) {
        if let Some(conn) = self.proxies[n].running.as_ref().and_then(|running| running.control) {
            self.send(conn, 0, Message::Proxy(v1::ProxyMessage { message: Some(message) }));
        }
    }

    fn call_timer(&mut self, n: usize, call: CallId, timer: CallTimer) {
        if timer == CallTimer::Deadline {
            self.deadline_passes(n, call);
        }
    }
}
