//! Many callers of one cold model, through two proxies.

use std::time::Duration;

use harness::{
    Fleet, FleetSetup, Folder,
    fleet::{Call, Connection, Observer, Outcome, call, failures},
};
use modelring_proto::v1::copy_state::State;
use tokio::task::JoinSet;

use crate::kit::{DEADLINE, until_known};

const CALLERS: usize = 500;
const MODEL: usize = 7;
const ID: &str = "model-07__";

/// A mesh in which a load takes so long that all callers come while it runs.
async fn mesh(folder: &Folder) -> (Fleet, Observer) {
    let setup = FleetSetup { load_delay: Duration::from_millis(3000), ..FleetSetup::default() };
    let fleet = Fleet::start(folder, setup).await;
    let observer = fleet.observe();
    folder.add_numbered(MODEL);
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
            if matches!(calls[0].outcome, Outcome::Broken(_)) {
                calls.push(call(&connection, MODEL, DEADLINE).await);
            }
            calls
        });
    }
    callers
}

fn assert_one_load(fleet: &Fleet, observer: &Observer) {
    assert_eq!(fleet.loads(ID), 1, "loads at the model servers");
    assert_eq!(observer.changes(State::Loading, ID), 1, "pulls that agents have told");
    assert_eq!(observer.changes(State::Ready, ID), 1, "copies");
    fleet.assert_spans();
    observer.assert_ledger();
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_callers_through_two_proxies_cause_one_load() {
    let folder = Folder::with_storage();
    let (fleet, observer) = mesh(&folder).await;
    let calls: Vec<Call> = callers(&fleet).join_all().await.into_iter().flatten().collect();
    assert_eq!(failures(&calls), [].into());
    assert_eq!(calls.len(), CALLERS);
    for proxy in fleet.grpc() {
        assert_eq!(calls.iter().filter(|call| call.proxy == Some(proxy)).count(), CALLERS / 2);
    }
    assert_one_load(&fleet, &observer);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_one_proxy_killed_in_the_middle_it_is_still_one_load() {
    let folder = Folder::with_storage();
    let (mut fleet, observer) = mesh(&folder).await;
    let callers = callers(&fleet);
    tokio::time::sleep(Duration::from_millis(1000)).await;
    assert_eq!(fleet.loads(ID), 0, "the load still runs");
    fleet.proxies[0].part.kill();
    let (killed, other) = (fleet.proxies[0].grpc, fleet.proxies[1].grpc);
    let calls: Vec<Call> = callers.join_all().await.into_iter().flatten().collect();
    let failed: Vec<_> = calls.iter().filter(|call| !call.is_right()).collect();
    assert_eq!(failures(failed.iter().copied().filter(|call| call.proxy == Some(other))), [].into());
    assert_eq!(failed.len(), CALLERS / 2, "those of the killed proxy, and they alone, fail: {:?}", failures(&calls));
    assert!(failed.iter().all(|call| call.proxy == Some(killed)));
    assert_eq!(calls.len() - failed.len(), CALLERS, "every caller is answered in the end");
    assert_one_load(&fleet, &observer);
}
