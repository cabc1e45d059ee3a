//! Whatever happens in whatever order: the rules hold after every event, every waiter is told one ending, and when all
//! is quiet nothing is charged that is not there.

use modelring_placement::{
    id::ModelId,
    pod::{Event, Why},
};
use proptest::prelude::*;

use crate::world::{MODELS, World};

#[derive(Clone, Debug)]
enum Op {
    Wait(u64),
    Ask {
        proxy: usize,
        model: usize,
        why: Why,
        replaces: Option<usize>,
    },
    HangUp(usize),
    /// Size, pull, load or unload of everything go one step on.
    Progress,
    Size(usize, Option<u64>),
    Pull(usize, bool),
    Load(usize, Option<u64>),
    Confirm(usize),
    Flow(usize),
    Ping(usize),
    Deliver(usize),
    Read(usize),
    Hear(usize),
    Call(usize, usize),
    EndCall(usize, usize),
    Report(usize),
    Cut(usize),
    Missing(usize, usize),
    Hints(u64, u8, u8, u8),
    CrashServer,
    ServerGone,
    StartServer,
    RestartAgent,
    SecretChanged,
    Leave,
    /// Answers that belong to nothing any more.
    Stale(usize, u64),
}

fn op() -> impl Strategy<Value = Op> {
    let proxy = 0..2_usize;
    let model = 0..MODELS.len();
    let nth = 0..8_usize;
    let why = prop_oneof![5 => Just(Why::Waiter), 1 => Just(Why::Keep), 1 => Just(Why::Scale), 1 => Just(Why::Ahead)];
    let bytes = prop_oneof![9 => (1..70_u64).prop_map(Some), 1 => Just(None)];
    let replaces = prop_oneof![8 => Just(None), 1 => model.clone().prop_map(Some)];
    let mask = prop_oneof![2 => Just(0_u8), 1 => any::<u8>()];
    prop_oneof![
        8 => (1..3000_u64).prop_map(Op::Wait),
        1 => (3000..100_000_u64).prop_map(Op::Wait),
        16 => (proxy.clone(), model.clone(), why, replaces)
            .prop_map(|(proxy, model, why, replaces)| Op::Ask { proxy, model, why, replaces }),
        3 => nth.clone().prop_map(Op::HangUp),
        12 => (nth.clone(), bytes.clone()).prop_map(|(nth, bytes)| Op::Size(nth, bytes)),
        10 => (nth.clone(), prop::bool::weighted(0.9)).prop_map(|(nth, ok)| Op::Pull(nth, ok)),
        12 => (nth.clone(), bytes).prop_map(|(nth, bytes)| Op::Load(nth, bytes)),
        10 => nth.prop_map(Op::Confirm),
        14 => proxy.clone().prop_map(Op::Flow),
        4 => proxy.clone().prop_map(Op::Ping),
        6 => proxy.clone().prop_map(Op::Deliver),
        6 => proxy.clone().prop_map(Op::Read),
        6 => proxy.clone().prop_map(Op::Hear),
        14 => (proxy.clone(), model.clone()).prop_map(|(proxy, model)| Op::Call(proxy, model)),
        8 => (proxy.clone(), model.clone()).prop_map(|(proxy, model)| Op::EndCall(proxy, model)),
        3 => proxy.clone().prop_map(Op::Report),
        1 => proxy.clone().prop_map(Op::Cut),
        1 => (proxy, model).prop_map(|(proxy, model)| Op::Missing(proxy, model)),
        3 => (0..3_u64, mask.clone(), mask.clone(), mask).prop_map(|(epoch, k, s, g)| Op::Hints(epoch, k, s, g)),
        1 => Just(Op::CrashServer),
        1 => Just(Op::ServerGone),
        2 => Just(Op::StartServer),
        1 => Just(Op::RestartAgent),
        1 => Just(Op::SecretChanged),
        1 => (0..MODELS.len(), 0..30_u64).prop_map(|(model, attempt)| Op::Stale(model, attempt)),
    ]
}

/// Two models and one place, and a network on which every message takes its own time.
fn turn() -> impl Strategy<Value = Op> {
    let proxy = 0..2_usize;
    let model = 0..2_usize;
    let why = prop_oneof![Just(Why::Waiter), Just(Why::Keep)];
    prop_oneof![
        6 => (1..1500_u64).prop_map(Op::Wait),
        8 => (proxy.clone(), model.clone(), why)
            .prop_map(|(proxy, model, why)| Op::Ask { proxy, model, why, replaces: None }),
        16 => Just(Op::Progress),
        3 => Just(Op::HangUp(0)),
        4 => proxy.clone().prop_map(Op::Flow),
        8 => proxy.clone().prop_map(Op::Ping),
        10 => proxy.clone().prop_map(Op::Deliver),
        12 => proxy.clone().prop_map(Op::Read),
        4 => proxy.clone().prop_map(Op::Hear),
        16 => (proxy.clone(), model.clone()).prop_map(|(proxy, model)| Op::Call(proxy, model)),
        8 => (proxy.clone(), model).prop_map(|(proxy, model)| Op::EndCall(proxy, model)),
        1 => proxy.prop_map(Op::Cut),
        1 => Just(Op::RestartAgent),
        2 => Just(Op::StartServer),
    ]
}

fn apply(world: &mut World, op: &Op) {
    let name = |model: usize| MODELS[model];
    let id = |model: usize| ModelId::from(MODELS[model]);
    match *op {
        Op::Wait(millis) => world.wait(millis),
        Op::Ask { proxy, model, why, replaces } => world.ask(proxy, name(model), why, replaces.map(name)),
        Op::HangUp(nth) => world.hang_up(nth),
        Op::Progress => {
            for nth in 0..2 {
                world.answer_load(nth, Some(60));
                world.answer_pull(nth, true);
                world.answer_size(nth, Some(60));
                world.confirm_unload(nth);
            }
        }
        Op::Size(nth, bytes) => world.answer_size(nth, bytes),
        Op::Pull(nth, ok) => world.answer_pull(nth, ok),
        Op::Load(nth, bytes) => world.answer_load(nth, bytes),
        Op::Confirm(nth) => world.confirm_unload(nth),
        Op::Flow(proxy) => world.flow(proxy),
        Op::Ping(proxy) => world.proxies[proxy].ping(world.now),
        Op::Deliver(proxy) => drop(world.deliver(proxy)),
        Op::Read(proxy) => drop(world.proxies[proxy].read(world.now)),
        Op::Hear(proxy) => {
            if let Some(model) = world.proxies[proxy].hear(world.now) {
                world.call(proxy, &model);
            }
        }
        Op::Call(proxy, model) => world.call(proxy, &id(model)),
        Op::EndCall(proxy, model) => world.proxies[proxy].end_call(&id(model)),
        Op::Report(proxy) => world.proxies[proxy].report(),
        Op::Cut(proxy) => world.proxies[proxy].cut(world.now),
        Op::Missing(proxy, model) => world.miss(proxy, &id(model)),
        Op::Hints(epoch, keep, surplus, gone) => world.hint(epoch, keep, surplus, gone),
        Op::CrashServer => world.crash_server(),
        Op::ServerGone => world.notice_the_server(),
        Op::StartServer => world.purge(),
        Op::RestartAgent => world.restart_agent(),
        Op::SecretChanged => world.send(Event::SecretChanged),
        Op::Leave => world.send(Event::Leave),
        Op::Stale(model, attempt) => world.stale(&id(model), attempt),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 20_000, ..ProptestConfig::with_cases(ProptestConfig::default().cases.max(300)) })]

    #[test]
    fn the_rules_hold_after_any_events_in_any_order(
        ops in prop::collection::vec(op(), 1..250),
        guard: bool,
        lru: bool,
        leaves in prop::option::weighted(0.2, 0..200_usize),
    ) {
        let mut world = World::new(World::settings(guard, lru));
        for (n, op) in ops.iter().enumerate() {
            apply(&mut world, op);
            if leaves == Some(n) {
                apply(&mut world, &Op::Leave);
            }
        }
        world.settle();
    }

    #[test]
    fn two_models_take_turns_in_one_place_and_no_call_goes_to_the_one_that_is_out(
        ops in prop::collection::vec(turn(), 1..300),
    ) {
        let mut world = World::new(World::settings(false, true));
        for op in &ops {
            apply(&mut world, op);
        }
        world.settle();
    }
}
