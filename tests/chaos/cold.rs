//! Many callers of one cold model, through two proxies.

use std::time::Duration;

use harness::{
    Fault, Fleet, FleetSetup,
    fleet::{Call, Connection, Observer, Outcome, call, failures},
};
use modelring_proto::v1::copy_state::State;
use tokio::task::JoinSet;

use crate::kit::{DEADLINE, Store, until_known};

const CALLERS: usize = 500;
const MODEL: usize = 7;
const ID: &str = "model-07__";
/// Bytes of its object: parts of 16 MiB are pulled side by side.
const BYTES: usize = 36 << 20;
/// After each 64 KiB that the store sends: a part takes two seconds.
const PACE: Duration = Duration::from_millis(8);

/// A mesh in which a pull takes so long that all callers come while it runs.
async fn mesh(store: &Store) -> (Fleet, Observer) {
    store.link.decide(|_| Fault::Slow(PACE));
    let fleet = Fleet::start(&store.folder, FleetSetup { size: 64 << 20, ..FleetSetup::default() }).await;
    let observer = fleet.observe();
    store.add(MODEL);
    until_known(&fleet, MODEL).await;
    (fleet, observer)
}

/// Callers over ten connections, every second one of the second proxy. Where theirs breaks they go to the other proxy and
/// call again; each gives all the calls that it made.
fn callers(fleet: &Fleet) -> JoinSet<Vec<Call>> {
    let connections: Vec<_> = (0..10).map(|number| Connection::new(fleet.grpc(), number)).collect();
    let mut callers = JoinSet::new();
    for number in 0..CALLERS {
        let connection = connections[number % 10].clone();
        callers.spawn(async move {
            let mut calls = vec![call(&connection, MODEL, DEADLINE).await];
            // A process that is being killed may take one more connection.
            while calls.len() < 5 && matches!(calls.last().map(|call| &call.outcome), Some(Outcome::Broken(_))) {
                calls.push(call(&connection, MODEL, DEADLINE).await);
            }
            calls
        });
    }
    callers
}

fn assert_one_pull_and_one_load(store: &Store, fleet: &Fleet, observer: &Observer) {
    let ranges: Vec<_> = store.link.ranges().into_iter().map(|(_, range)| (range.start, range.end)).collect();
    println!("asked for of the store: {ranges:?}");
    let mut next = 0;
    for (start, end) in ranges {
        assert_eq!(start, next, "each byte is fetched once");
        next = end;
    }
    assert!(next > BYTES as u64, "the whole object was fetched");
    assert_eq!(observer.changes(State::Loading, ID), 1, "pulls that agents have told");
    assert_eq!(fleet.loads(ID), 1, "loads at the model servers");
    assert_eq!(observer.changes(State::Ready, ID), 1, "copies");
    fleet.assert_spans();
    observer.assert_ledger();
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_callers_through_two_proxies_cause_one_pull_and_one_load() {
    let store = Store::new([MODEL], BYTES);
    let (fleet, observer) = mesh(&store).await;
    let calls: Vec<Call> = callers(&fleet).join_all().await.into_iter().flatten().collect();
    assert_eq!(failures(&calls), [].into());
    assert_eq!(calls.len(), CALLERS);
    for proxy in fleet.grpc() {
        assert_eq!(calls.iter().filter(|call| call.proxy == Some(proxy)).count(), CALLERS / 2);
    }
    assert_one_pull_and_one_load(&store, &fleet, &observer);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_one_proxy_killed_in_the_middle_it_is_still_one_pull_and_one_load() {
    let store = Store::new([MODEL], BYTES);
    let (mut fleet, observer) = mesh(&store).await;
    let callers = callers(&fleet);
    tokio::time::sleep(Duration::from_millis(1000)).await;
    assert_eq!(fleet.loads(ID), 0, "the load still runs");
    fleet.proxies[0].part.kill();
    let (killed, other) = (fleet.proxies[0].grpc, fleet.proxies[1].grpc);
    let calls: Vec<Call> = callers.join_all().await.into_iter().flatten().collect();
    let failed: Vec<_> = calls.iter().filter(|call| !call.is_right()).collect();
    assert_eq!(failures(failed.iter().copied().filter(|call| call.proxy == Some(other))), [].into());
    assert!(failed.len() >= CALLERS / 2, "the calls of the killed proxy fail: {:?}", failures(&calls));
    assert!(failed.iter().all(|call| call.proxy == Some(killed)), "and they alone");
    assert_eq!(calls.len() - failed.len(), CALLERS, "every caller is answered in the end");
    assert_one_pull_and_one_load(&store, &fleet, &observer);
}
