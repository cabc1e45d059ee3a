//! What these tests share.

use std::{sync::Arc, time::Duration};

use harness::{
    Fleet, FleetSetup, Folder, Rest,
    fleet::{Call, Connection, SOON, call, failures, model},
};

/// How long one call may take where nothing but load stands in its way: longer than a load is first thought to take, or the
/// proxy would answer that it takes too long.
pub(crate) const DEADLINE: Duration = Duration::from_secs(45);

/// Whether the long forms run.
pub(crate) fn soak() -> bool {
    std::env::var("MODELRING_SOAK").is_ok_and(|value| value == "1")
}

/// A fleet that serves `models` numbered models, none of them loaded for sure.
pub(crate) async fn fleet(models: usize, setup: FleetSetup) -> (Folder, Fleet) {
    let folder = Folder::with_storage();
    (0..models).for_each(|number| folder.add_numbered(number));
    let fleet = Fleet::start(&folder, setup).await;
    (folder, fleet)
}

/// Calls each of these models once over one connection, and all of them must answer.
pub(crate) async fn call_each(connection: &Arc<Connection>, models: impl IntoIterator<Item = usize>) -> Vec<Call> {
    let calls = models.into_iter().map(|number| {
        let connection = connection.clone();
        tokio::spawn(async move { call(&connection, number, DEADLINE).await })
    });
    let calls: Vec<_> = calls.collect();
    let mut ended = Vec::new();
    for call in calls {
        ended.push(call.await.expect("a call does not panic"));
    }
    assert_eq!(failures(&ended), [].into(), "every model answers");
    ended
}

/// Waits until every proxy has a model in its table.
pub(crate) async fn until_known(fleet: &Fleet, number: usize) {
    for proxy in &fleet.proxies {
        let known = async {
            let path = format!("/v2/models/{}/ready", model(number));
            while Rest::send(proxy.rest, "GET", &path, "").await.status != 200 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(SOON, known).await.expect("a new model is known soon");
    }
}
