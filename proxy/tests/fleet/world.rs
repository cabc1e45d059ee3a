//! A fleet and its policy among scripted agents, without the engine: a test is the engine.

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue};
use modelring_placement::time::Time;
use modelring_proto::v1::{self, routes_update::Kind};
use modelring_proxy::{
    clock::{Clock, Hand},
    config::AccessLog,
    engine::{
        answer::{Answer, Reason},
        policy::{Decision, First, Head, Plan, Policy},
    },
    fleet::{Fleet, Links, PerCopy},
    policy::{Lease, Mesh},
    table::{Inbox, Table},
};
use tokio::runtime::Handle;

use crate::scripted::{ScriptedAgent, until};

pub(crate) const INFER: &str = "/inference.GRPCInferenceService/ModelInfer";

/// A fleet with its table, and its policy.
pub(crate) struct World {
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) mesh: Mesh,
    pub(crate) hand: Hand,
    version: u64,
}

/// How a call ended, as far as the policy goes.
pub(crate) enum Settled {
    Forward(Box<Plan<Lease>>),
    Serve,
    Answer(Answer),
}

// === impl World ===

impl World {
    /// Model `m` behind vmodel `v`, on these agents, all of which have told their copies.
    pub(crate) async fn new(agents: &[&ScriptedAgent]) -> Self {
        Self::with(agents, change(agents)).await
    }

    pub(crate) async fn with(agents: &[&ScriptedAgent], change: v1::TableChange) -> Self {
        Self::limited(agents, change, PerCopy::default()).await
    }

    /// The same with its own limit of the calls on a copy.
    pub(crate) async fn limited(agents: &[&ScriptedAgent], change: v1::TableChange, per_copy: PerCopy) -> Self {
        let (clock, hand) = Clock::manual(Time::from_millis(1_000_000));
        let fleet = Fleet::dialling(clock, Handle::current(), Links::plaintext(), per_copy);
        let mesh =
            Mesh::new(fleet.clone(), AccessLog::Off, modelring_proxy::metrics::Metrics::new(&Default::default(), 1));
        let mut world = Self { fleet, mesh, hand, version: 0 };
        world.install(change);
        for agent in agents {
            until("a lease", || world.is_live(agent).then_some(())).await;
        }
        world
    }

    pub(crate) fn install(&mut self, change: v1::TableChange) {
        self.version += 1;
        self.fleet.install(table(self.version, change));
    }

    pub(crate) fn is_live(&self, agent: &ScriptedAgent) -> bool {
        self.fleet.peer(agent.id).is_some_and(|peer| peer.host.is_live(self.fleet.clock.now()))
    }

    /// Waits until a copy of the model may be used, or not.
    pub(crate) async fn usable(&self, model: &str, usable: bool) {
        until("the view", || (self.is_usable(model) == usable).then_some(())).await;
    }

    pub(crate) fn is_usable(&self, model: &str) -> bool {
        let now = self.fleet.clock.now();
        self.fleet.index.with(model, |copies| copies.iter().any(|copy| copy.is_usable(now)))
    }

    pub(crate) fn in_flight(&self, model: &str) -> u32 {
        self.fleet.index.with(model, |copies| copies.iter().map(|copy| copy.in_flight()).sum())
    }

    /// A call of vmodel `v` whose message carries the name.
    pub(crate) async fn infer(&self) -> Settled {
        self.call(&head(INFER, &[]), Some("v")).await
    }

    /// The same with a deadline.
    pub(crate) async fn infer_within(&self, patience: Duration) -> Settled {
        let deadline = self.fleet.clock.now() + patience;
        self.call(&Head { deadline, ..head(INFER, &[]) }, Some("v")).await
    }

    /// What the policy makes of a call; `name` is what the first message carries.
    pub(crate) async fn call(&self, head: &Head, name: Option<&str>) -> Settled {
        let decision = match self.mesh.head(head) {
            First::Peek(_) => self.mesh.route(head, name.map(str::as_bytes)),
            First::Decide(decision) => decision,
        };
        settle(decision).await
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.fleet.stop();
    }
}

// === impl Settled ===

impl Settled {
    pub(crate) fn plan(self) -> Plan<Lease> {
        match self {
            Self::Forward(plan) => *plan,
            Self::Serve => panic!("served by the proxy"),
            Self::Answer(answer) => panic!("answered {answer:?}"),
        }
    }

    pub(crate) fn answer(self) -> (Option<Reason>, u32, String) {
        match self {
            Self::Answer(answer) => (answer.reason, answer.code, answer.text),
            Self::Forward(_) => panic!("forwarded"),
            Self::Serve => panic!("served by the proxy"),
        }
    }
}

pub(crate) async fn settle(mut decision: Decision<Lease>) -> Settled {
    loop {
        decision = match decision {
            Decision::Forward(plan) => return Settled::Forward(Box::new(plan)),
            Decision::Serve => return Settled::Serve,
            Decision::Answer(answer) => return Settled::Answer(answer),
            Decision::Hold(later) => later.await,
        };
    }
}

pub(crate) fn head(path: &str, headers: &[(&'static str, &'static str)]) -> Head {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    Head { path: path.into(), headers: map, deadline: Time::NEVER, arrived: Time::ZERO, noted: Default::default() }
}

/// Model `m` behind vmodel `v`, on these agents.
pub(crate) fn change(agents: &[&ScriptedAgent]) -> v1::TableChange {
    v1::TableChange {
        classes: vec![v1::Class { id: "c".into(), runtimes: vec!["r".into()] }],
        models: vec![model("m", "c")],
        vmodels: vec![v1::VModel { name: "v".into(), active: "m".into(), ..Default::default() }],
        instances: agents.iter().map(|agent| agent.listed()).collect(),
        ..Default::default()
    }
}

pub(crate) fn model(id: &str, class: &str) -> v1::Model {
    let reference = v1::ModelRef { id: id.into(), r#type: "mt:t".into(), path: "p".into(), ..Default::default() };
    v1::Model { r#ref: Some(reference), class: class.into(), max_copies: 0 }
}

pub(crate) fn update(epoch: u64, n: u64, kind: Kind, change: v1::TableChange) -> v1::RoutesUpdate {
    v1::RoutesUpdate {
        version: Some(v1::Version { epoch, n }),
        kind: kind.into(),
        change: Some(change),
        observed: None,
    }
}

fn table(n: u64, change: v1::TableChange) -> Table {
    let table = Inbox::default().receive(None, update(1, n, Kind::SnapshotEnd, change));
    table.expect("a table that fits").expect("a whole table")
}
