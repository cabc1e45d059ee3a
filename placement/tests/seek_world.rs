//! A seek in a world of agents that accept, fail, refuse, fall silent and lose their leases, as chance has it.

use std::{collections::BTreeMap, time::Duration};

use modelring_placement::{
    id::{InstanceId, ModelId},
    pod::{LoadError, Refusal},
    seek::{Budgets, EndReason, Ending, Heard, LOAD_TIMEOUTS, MAX_FAILURES, MAX_PLACES, Seek, Sight, Step},
    time::Time,
    view::Status,
};
use proptest::prelude::*;

const PLACE: Duration = Duration::from_secs(30);
const LOAD_TIMEOUT: Duration = Duration::from_secs(4);

/// What an agent does when it is asked.
#[derive(Clone, Debug)]
enum Manner {
    /// Accepts, then this after so many milliseconds.
    Accept(u64, End),
    /// Answers this at once.
    At(End),
    /// Says nothing.
    Silent,
}

#[derive(Clone, Debug)]
enum End {
    Loaded,
    Failed,
    Refused(Refusal, u64),
    Lost,
    Never,
}

/// What happens of itself.
#[derive(Debug)]
enum Happening {
    Heard { instance: usize, call: usize, heard: Heard },
    Shows { instance: usize, status: Status },
    Lease { instance: usize, live: bool },
}

struct World {
    now: Time,
    names: Vec<InstanceId>,
    statuses: Vec<Status>,
    live: Vec<bool>,
    agenda: BTreeMap<(Time, usize), Happening>,
    happenings: usize,
    calls: usize,
}

#[derive(Debug, PartialEq)]
enum Outcome {
    Used,
    Ended(Ending),
}

impl World {
    fn plan(&mut self, after: u64, happening: Happening) {
        self.happenings += 1;
        self.agenda.insert((self.now + Duration::from_millis(after), self.happenings), happening);
    }

    fn sights(&self) -> Vec<Sight> {
        let status = |n: usize| match &self.statuses[n] {
            _ if !self.live[n] => Status::NoLease,
            Status::Failed { until, .. } if *until <= self.now => Status::Absent,
            status => status.clone(),
        };
        (0..self.names.len()).map(|n| Sight { instance: self.names[n].clone(), status: status(n) }).collect()
    }

    /// An `EnsureLoaded` is opened. `lag`: how much later than the answer the view shows it.
    fn asked(&mut self, instance: usize, manner: &Manner, lag: u64) {
        self.calls += 1;
        let call = self.calls;
        let heard = |heard| Happening::Heard { instance, call, heard };
        let (after, end) = match manner {
            Manner::Silent => return,
            Manner::At(end) => (1, end),
            Manner::Accept(after, end) => {
                let since = self.now;
                self.plan(1, heard(Heard::Accepted));
                self.plan(1 + lag, Happening::Shows { instance, status: Status::Loading { since } });
                (1 + after, end)
            }
        };
        let error = LoadError { code: 13, text: format!("failed on {instance}"), passing: true };
        let until = self.now + Duration::from_millis(after + 6_000);
        let (told, shown) = match end {
            End::Never => return,
            End::Loaded => (Heard::Loaded, Some(Status::Ready)),
            End::Failed => (Heard::Failed(error.clone()), Some(Status::Failed { since: self.now, until, error })),
            End::Refused(refusal, millis) => {
                let retry_after = (*millis > 0).then(|| Duration::from_millis(*millis));
                (Heard::Refused { refusal: *refusal, retry_after, text: "no".into() }, Some(Status::Absent))
            }
            End::Lost => (Heard::Lost, None),
        };
        self.plan(after, heard(told));
        if let Some(status) = shown {
            self.plan(after + lag, Happening::Shows { instance, status });
        }
    }
}

/// How long a call was held while no agent had accepted its load, and while one had.
#[derive(Clone, Copy, Debug, Default)]
struct Spent {
    place: Duration,
    load: Duration,
}

/// One call, held from time 1 s on. Returns how it ended and when, having checked every step.
fn held(
    manners: &[Vec<Manner>],
    leases: &[(usize, u64, bool)],
    lag: u64,
    deadline: Time,
) -> Result<(Outcome, Time, Spent), TestCaseError> {
    let count = manners.len();
    let start = Time::from_millis(1_000);
    let mut world = World {
        now: start,
        names: (0..count).map(|n| InstanceId::from(format!("runtime-{n}"))).collect(),
        statuses: vec![Status::Absent; count],
        live: vec![true; count],
        agenda: BTreeMap::new(),
        happenings: 0,
        calls: 0,
    };
    for (instance, after, live) in leases {
        world.plan(*after, Happening::Lease { instance: instance % count, live: *live });
    }
    let mut seek = Seek::new(ModelId::from("m__isvc-0123456789"), "mt:onnx");
    let mut budgets = Budgets::new(start, deadline, PLACE);
    let mut spent = Spent::default();
    let (mut failures, mut asked) = (0, vec![0usize; count]);
    let (mut open, mut left) = (0, vec![false; count]);

    for _ in 0..10_000 {
        budgets.seeking(world.now, seek.accepted().then_some(LOAD_TIMEOUT));
        if let Some(ending) = budgets.spent(world.now, &seek) {
            return Ok((Outcome::Ended(ending), world.now, spent));
        }
        let sights = world.sights();
        let until = match seek.next(world.now, &sights, &[]) {
            Step::Use => {
                prop_assert!(sights.iter().any(|sight| sight.status == Status::Ready));
                return Ok((Outcome::Used, world.now, spent));
            }
            Step::GiveUp(ending) => {
                let seen = sights.iter().filter(|sight| matches!(sight.status, Status::Failed { .. })).count();
                prop_assert!(failures + seen > 0, "gave up without a failure");
                prop_assert_eq!(ending.reason, EndReason::LF);
                prop_assert!(ending.text.contains("failed on ") || ending.text.ends_with("no"), "{}", ending.text);
                return Ok((Outcome::Ended(ending), world.now, spent));
            }
            Step::Ask(instance) => {
                let n = world.names.iter().position(|name| *name == instance).expect("a known instance");
                prop_assert!(world.live[n], "asked without a lease");
                prop_assert!(!matches!(sights[n].status, Status::Failed { .. }), "asked although failed");
                prop_assert!(failures < MAX_FAILURES, "asked after three failures");
                let joinable = |n: usize| matches!(sights[n].status, Status::Loading { .. } | Status::Queued { .. });
                let untouched = (0..count).any(|other| joinable(other) && asked[other] == 0);
                prop_assert!(joinable(n) || !untouched, "asked beside a load that could be joined");
                asked[n] += 1;
                if leases.is_empty() {
                    // An instance that said that it leaves is no place.
                    let places = (0..count).filter(|other| asked[*other] > 0 && !left[*other]).count();
                    prop_assert!(places <= MAX_PLACES, "more than five places");
                }
                let manner = manners[n][(asked[n] - 1) % manners[n].len()].clone();
                world.asked(n, &manner, lag);
                open = world.calls;
                continue;
            }
            Step::Wait { until } => until,
        };
        // An agent that was lost has accepted nothing any more.
        budgets.seeking(world.now, seek.accepted().then_some(LOAD_TIMEOUT));
        prop_assert!(until > world.now, "waits for a time that has come: {until}");
        let next = world.agenda.keys().next().map_or(Time::NEVER, |(at, _)| *at);
        let before = std::mem::replace(&mut world.now, until.min(next).min(budgets.until()));
        let spends = if seek.accepted() { &mut spent.load } else { &mut spent.place };
        *spends += world.now.since(before);
        if world.now < next {
            continue;
        }
        match world.agenda.pop_first().map(|(_, happening)| happening) {
            Some(Happening::Heard { instance, call, heard })
                if call == open && seek.asked() == Some(&world.names[instance]) =>
            {
                let failing = Refusal::Failing;
                let fails = matches!(&heard, Heard::Failed(_))
                    || matches!(&heard, Heard::Refused { refusal, .. } if *refusal == failing);
                failures += usize::from(fails);
                left[instance] |= matches!(&heard, Heard::Refused { refusal: Refusal::Leaving, .. });
                seek.heard(world.now, &world.names[instance], heard);
            }
            Some(Happening::Shows { instance, status }) => world.statuses[instance] = status,
            Some(Happening::Lease { instance, live }) => world.live[instance] = live,
            _ => {}
        }
    }
    Err(TestCaseError::fail("the call never ended"))
}

fn end() -> impl Strategy<Value = End> {
    let refusal = prop::sample::select(vec![
        Refusal::Full,
        Refusal::Churn,
        Refusal::Pinned,
        Refusal::Disk,
        Refusal::Failing,
        Refusal::Leaving,
    ]);
    prop_oneof![
        1 => Just(End::Loaded),
        2 => Just(End::Failed),
        5 => (refusal, 0u64..8_000).prop_map(|(refusal, millis)| End::Refused(refusal, millis)),
        1 => Just(End::Lost),
        1 => Just(End::Never),
    ]
}

fn manner() -> impl Strategy<Value = Manner> {
    prop_oneof![
        2 => (0u64..10_000, end()).prop_map(|(after, end)| Manner::Accept(after, end)),
        4 => end().prop_map(Manner::At),
        1 => Just(Manner::Silent),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]
    #[test]
    fn a_held_call_always_ends_within_its_budgets(
        manners in prop::collection::vec(prop::collection::vec(manner(), 1..4), 1..8),
        leases in prop_oneof![Just(vec![]), prop::collection::vec((0usize..8, 0u64..40_000, any::<bool>()), 0..12)],
        lag in 0u64..300,
        deadline in prop_oneof![Just(None), (1u64..60_000).prop_map(Some)],
    ) {
        let start = Time::from_millis(1_000);
        let deadline = deadline.map_or(Time::NEVER, |millis| start + Duration::from_millis(millis));
        let (outcome, at, spent) = held(&manners, &leases, lag, deadline)?;
        prop_assert!(at <= deadline, "{outcome:?} at {at}");
        prop_assert!(spent.place <= PLACE && spent.load <= LOAD_TIMEOUT * LOAD_TIMEOUTS, "{outcome:?} after {spent:?}");
        if let Outcome::Ended(ending) = outcome {
            match ending.reason {
                EndReason::DE => prop_assert_eq!(at, deadline),
                EndReason::LT => prop_assert_eq!(spent.load, LOAD_TIMEOUT * LOAD_TIMEOUTS),
                EndReason::NP | EndReason::NI => prop_assert_eq!(spent.place, PLACE),
                EndReason::LF => {}
                EndReason::DH => prop_assert!(false, "nobody looked whether it is hopeless"),
            }
        }
    }
}

#[test]
fn a_single_agent_that_loads_serves_the_call() {
    let manners = [vec![Manner::Accept(700, End::Loaded)]];
    let (outcome, at, _) = held(&manners, &[], 20, Time::NEVER).expect("every step is right");
    assert_eq!((outcome, at), (Outcome::Used, Time::from_millis(1_721)));
}

#[test]
fn a_lost_lease_brings_the_call_to_the_next_agent() {
    let manners = [vec![Manner::Accept(0, End::Never)], vec![Manner::Accept(100, End::Loaded)]];
    let (outcome, at, _) = held(&manners, &[(0, 2_500, false)], 0, Time::NEVER).expect("every step is right");
    assert_eq!((outcome, at), (Outcome::Used, Time::from_millis(3_601)));
}
