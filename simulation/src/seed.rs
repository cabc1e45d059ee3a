//! A random run: a world of some size, a minute of callers, changes and faults, then calm, in which everything must settle.

use std::time::Duration;

use rand::{Rng, SeedableRng, rngs::SmallRng, seq::IndexedRandom};

use crate::{
    call::Outcome,
    desired::Profile,
    faults::Fault,
    log::Log,
    millis,
    process::Node,
    queue::Nanos,
    secs,
    world::{Event, Shape, World},
};

/// When faults begin and end.
const FROM: Nanos = secs(8);
const TO: Nanos = secs(60);
/// Within this time everything must have settled.
const SETTLE: Nanos = secs(400);

/// A failure that an agent remembers, with some time for its load.
const REMEMBERED: Nanos = secs(16 * 60);

/// What a run was like.
#[derive(Clone, Debug)]
pub struct Run {
    /// Tells runs apart.
    pub fingerprint: u64,
    /// Events.
    pub events: u64,
    /// When it was over.
    pub time: Nanos,
    /// Counts, by what.
    pub counts: std::collections::BTreeMap<&'static str, u64>,
}

/// Runs a seed.
///
/// # Errors
///
/// The rule that was broken, and how.
pub fn run(seed: u64, log: Log) -> Result<Run, String> {
    let mut plan = SmallRng::seed_from_u64(seed ^ 0x5eed);
    let shape = Shape {
        pods: plan.random_range(1..=4),
        proxies: plan.random_range(1..=3),
        controls: plan.random_range(1..=2),
        concurrency: plan.random_range(1..=3),
        churn: Duration::from_millis(*[0, 1000, 3000].choose(&mut plan).unwrap_or(&0)),
        ..Shape::default()
    };
    let mut world = World::new(seed, shape);
    world.log = log;
    plan_the_run(&mut world, &mut plan);
    world.start_all();
    for _ in 0..TO / secs(1) {
        world.run(secs(1));
        if let Some(broken) = world.broken() {
            return Err(broken.to_owned());
        }
    }
    settle(&mut world)?;
    probe(&mut world)?;
    Ok(Run {
        fingerprint: world.fingerprint(),
        events: world.events,
        time: world.now,
        counts: world.checks.counts.clone(),
    })
}

/// Runs a seed and, where it breaks a rule or panics, runs it once more and tells the last events of what is concerned.
///
/// # Errors
///
/// The seed, the rule, and those events.
pub fn explain(seed: u64) -> Result<Run, String> {
    let broken = match caught(seed, Log::Off) {
        Ok(run) => return Ok(run),
        Err(broken) => broken,
    };
    let log = Log::keep();
    let again = caught(seed, log.clone()).err();
    let same = if again.as_ref() == Some(&broken) { "" } else { "\n(run again it ended otherwise)" };
    Err(format!("seed {seed} breaks {broken}{same}\n{}", log.last_of(&broken).join("\n")))
}

/// A panic is a debug assertion of a rule, too.
fn caught(seed: u64, log: Log) -> Result<Run, String> {
    let run = std::panic::AssertUnwindSafe(|| run(seed, log));
    std::panic::catch_unwind(run).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(format!("assertion: {}", text.unwrap_or_default().chars().take(2000).collect::<String>()))
    })
}

fn plan_the_run(world: &mut World, plan: &mut SmallRng) {
    let services = plan.random_range(2..=8);
    let room = world.shape.capacity * world.shape.pods as u64 / 2;
    let mut kept = 0;
    for n in 0..services {
        let profile = profile(plan);
        let min = u32::from(plan.random_bool(0.5) && kept + profile.bytes <= room);
        kept += u64::from(min) * profile.bytes;
        world.desires.set(&format!("s{n}"), &format!("s{n}/0"), profile, min, 0);
    }
    plan_callers(world, plan, services);
    let faults = if plan.random_bool(0.1) { 0 } else { plan.random_range(1..=14) };
    for n in 0..faults {
        let at = plan.random_range(FROM..TO);
        let fault = fault(world, plan, services, n);
        if let Fault::Hang(pod, true) = fault {
            world.queue.push(at + secs(plan.random_range(1..20)), Event::Fault(Fault::Hang(pod, false)));
        }
        world.queue.push(at, Event::Fault(fault));
    }
}

fn profile(plan: &mut SmallRng) -> Profile {
    let bytes = plan.random_range(5..=40);
    let mut profile = Profile::of(bytes, plan.random_range(50..3000));
    if plan.random_bool(0.1) {
        profile.predicted = plan.random_range(1..=bytes);
    }
    if plan.random_bool(0.1) {
        profile.limit = plan.random_range(1..=4);
    }
    profile
}

/// Callers come by a law that favours the first services.
fn plan_callers(world: &mut World, plan: &mut SmallRng, services: usize) {
    let pause = *[millis(40), millis(150), millis(600)].choose(plan).unwrap_or(&millis(150));
    let mut at = secs(2);
    while at < TO {
        at += plan.random_range(1..2 * pause);
        let skew: f64 = plan.random();
        let service = (skew * skew * services as f64) as usize;
        let deadline = match plan.random_range(0..4) {
            0 => Some(Duration::from_millis(plan.random_range(50..1000))),
            1 => Some(Duration::from_millis(plan.random_range(1000..40_000))),
            _ => None,
        };
        let proxy = plan.random_range(0..world.shape.proxies);
        let burst = if plan.random_bool(0.02) { 20 } else { 1 };
        for _ in 0..burst {
            world.queue.push(at, Event::Caller(proxy, format!("s{service}"), deadline));
        }
    }
}

fn fault(world: &World, plan: &mut SmallRng, services: usize, n: usize) -> Fault {
    let nodes: Vec<Node> = world.processes.keys().copied().collect();
    let node = |plan: &mut SmallRng| *nodes.choose(plan).unwrap_or(&Node::Agent(0));
    let pod = plan.random_range(0..world.shape.pods);
    let time = |plan: &mut SmallRng| {
        let most = *[millis(300), secs(3), secs(12)].choose(plan).unwrap_or(&secs(3));
        plan.random_range(millis(10)..most)
    };
    let service = format!("s{}", plan.random_range(0..services));
    match plan.random_range(0..24) {
        0..=4 => Fault::Kill(node(plan), time(plan)),
        5..=7 => Fault::Freeze(node(plan), time(plan)),
        8 | 9 => Fault::Block(node(plan), node(plan), time(plan)),
        10 => {
            let (proxy, agent) = (Node::Proxy(plan.random_range(0..world.shape.proxies)), Node::Agent(pod));
            let pair = if plan.random_bool(0.5) { (proxy, agent) } else { (agent, proxy) };
            Fault::Block(pair.0, pair.1, time(plan))
        }
        11 | 12 => Fault::Slow(node(plan), node(plan), plan.random_range(millis(50)..secs(3)), time(plan)),
        13 => {
            let proxy = Node::Proxy(plan.random_range(0..world.shape.proxies));
            let to = if plan.random_bool(0.5) { Node::Server(pod) } else { Node::Agent(pod) };
            Fault::Slow(proxy, to, plan.random_range(millis(50)..secs(3)), time(plan))
        }
        14 => Fault::Reset(Node::Proxy(plan.random_range(0..world.shape.proxies)), Node::Agent(pod)),
        15 => Fault::Reset(node(plan), node(plan)),
        16 => Fault::Leave(pod),
        17 => Fault::Wipe(pod, time(plan)),
        18 => Fault::Storage(*[0.0, 0.3, 1.0].choose(plan).unwrap_or(&0.0)),
        19 => Fault::Secret,
        20 => Fault::Hang(pod, true),
        21 => Fault::Remove(service),
        22 => Fault::LoseEpoch,
        _ => {
            let mut profile = profile(plan);
            profile.bad = plan.random_bool(0.2);
            profile.is_there = !plan.random_bool(0.1);
            Fault::Set(service.clone(), format!("{service}/{}", n + 1), profile, u32::from(plan.random_bool(0.3)), 0)
        }
    }
}

fn settle(world: &mut World) -> Result<(), String> {
    world.fault(Fault::Heal);
    let end = world.now + SETTLE;
    let mut calm = 0;
    while calm < 8 {
        world.run(secs(1));
        if let Some(broken) = world.broken() {
            return Err(broken.to_owned());
        }
        let unsettled = world.unsettled();
        calm = if unsettled.is_empty() { calm + 1 } else { 0 };
        if world.now > end {
            return Err(format!("liveness: {}", unsettled.join("; ")));
        }
    }
    Ok(())
}

/// In the end every service answers by every proxy: with its model, or with why that cannot be loaded.
fn probe(world: &mut World) -> Result<(), String> {
    let names: Vec<_> = world.desires.services.keys().cloned().collect();
    for name in names {
        for proxy in 0..world.shape.proxies {
            let outcome = probed(world, proxy, &name)?;
            let profile = world.desires.profile(&world.desires.services[&name].path).clone();
            let good = !profile.bad && profile.is_there;
            let expected = match &outcome {
                Some(Outcome::Ok(model)) => {
                    let asked_for = world.desires.model(&name);
                    !good || asked_for.is_some_and(|id| id.as_str() == model) || !world.surely_fits(profile.bytes)
                }
                Some(Outcome::Reason("LF", _)) => !good,
                // Where what is kept fills the pods there is no place, and that is said.
                Some(Outcome::Reason("NP" | "LT", _)) => !world.surely_fits(profile.bytes),
                _ => false,
            };
            if !expected {
                return Err(format!("liveness: in the end {name} answers {outcome:?} by proxy {proxy} ({profile:?})"));
            }
        }
    }
    Ok(())
}

/// Calls until the answer is no passing failure that agents still remember.
fn probed(world: &mut World, proxy: usize, name: &str) -> Result<Option<Outcome>, String> {
    let end = world.now + REMEMBERED;
    loop {
        let call = world.call(proxy, name, None);
        world.run_until(secs(120), |world| world.outcome(call).is_some());
        if let Some(broken) = world.broken() {
            return Err(broken.to_owned());
        }
        let outcome = world.outcome(call).cloned();
        let passes = matches!(&outcome, Some(Outcome::Reason("LF", text)) if text.contains("storage is away") || text.contains("were reserved"));
        if !passes || world.now > end {
            return Ok(outcome);
        }
        world.run(secs(10));
    }
}
