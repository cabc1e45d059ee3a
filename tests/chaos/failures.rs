//! What is remembered of failures, from the store to the caller.

use std::time::{Duration, Instant};

use harness::{
    Fault, Fleet, FleetSetup,
    fleet::{Call, Connection, Outcome, SOON, call},
};

use crate::kit::{BUCKET, DEADLINE, Store, key, until_known};

/// Calls that ask for a copy anew, until one is answered.
async fn until_right(connection: &Connection, number: usize) -> Vec<Call> {
    let begin = Instant::now();
    let mut calls = Vec::new();
    while !calls.last().is_some_and(Call::is_right) {
        assert!(begin.elapsed() < SOON, "{calls:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
        calls.push(call(connection, number, DEADLINE).await);
    }
    calls
}

fn is_load_failure(call: &Call, text: &str) -> bool {
    matches!(&call.outcome, Outcome::Status(_, reason, said) if reason == "LF" && said.contains(text))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_busy_for_a_moment_costs_seconds_and_no_more() {
    let store = Store::new([0], 1000);
    // Busy from the first request on, for as long as the pulls of one load go on trying.
    let begin = Instant::now();
    store.link.decide(move |_| if begin.elapsed() < Duration::from_secs(8) { Fault::Busy } else { Fault::None });
    store.add(0);
    let fleet = Fleet::start(&store.folder, FleetSetup { instances: 1, ..FleetSetup::default() }).await;
    until_known(&fleet, 0).await;
    let calls = until_right(&Connection::new(fleet.grpc(), 0), 0).await;
    println!("answered {:?} after the start, by call {}", begin.elapsed(), calls.len());
    assert!(calls.iter().rev().skip(1).all(|call| is_load_failure(call, "")), "{calls:?}");
    let after = begin.elapsed() - Duration::from_secs(8);
    assert!(after < Duration::from_secs(15), "it was answered only {after:?} after the store was well again");
    fleet.assert_spans();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_busy_answer_of_the_store_is_seen_by_no_caller() {
    let store = Store::new([0], 1000);
    let mut busy = true;
    store.link.decide(move |_| if std::mem::take(&mut busy) { Fault::Busy } else { Fault::None });
    let fleet = Fleet::start(&store.folder, FleetSetup { instances: 1, ..FleetSetup::default() }).await;
    store.add(0);
    until_known(&fleet, 0).await;
    let only = call(&Connection::new(fleet.grpc(), 0), 0, DEADLINE).await;
    println!("answered after {:?}; asked for: {}", only.took(), store.link.asked().len());
    assert!(only.is_right(), "{only:?}");
    assert!(only.took() < Duration::from_secs(10), "{only:?}");
    assert!(store.link.asked().len() >= 2, "what was refused was asked for again");
    fleet.assert_spans();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_object_is_refused_from_memory_until_the_secret_changes() {
    let store = Store::new([0], 1000);
    (0..2).for_each(|number| store.add(number));
    let fleet = Fleet::start(&store.folder, FleetSetup { instances: 2, ..FleetSetup::default() }).await;
    until_known(&fleet, 1).await;
    let connection = Connection::new(fleet.grpc(), 0);
    until_right(&connection, 0).await;

    // Number 1 has no object.
    let first = call(&connection, 1, DEADLINE).await;
    assert!(is_load_failure(&first, &key(1)) || is_load_failure(&first, BUCKET), "{first:?}");
    // Each agent remembers for itself, and control asks of its own accord; then the store is not asked any more.
    let asked = || store.link.asked().iter().filter(|asked| asked.path.contains("model-01")).count();
    let (mut before, mut quiet) = (asked(), Instant::now());
    while quiet.elapsed() < Duration::from_secs(2) {
        let again = call(&connection, 1, DEADLINE).await;
        assert!(is_load_failure(&again, ""), "{again:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
        if asked() != before {
            (before, quiet) = (asked(), Instant::now());
        }
    }
    assert!(before <= 8, "two agents asked the store {before} times");
    for _ in 0..30 {
        let again = call(&connection, 1, DEADLINE).await;
        assert!(is_load_failure(&again, ""), "{again:?}");
        assert!(again.took() < Duration::from_secs(1), "it was answered from memory: {again:?}");
    }
    assert_eq!(asked(), before, "the store was not asked again");

    // The object comes: nobody looks, for it was said to be missing. The Secret changes: the failure is forgotten.
    store.put(1);
    let still = call(&connection, 1, DEADLINE).await;
    assert!(is_load_failure(&still, ""), "{still:?}");
    let entry = store.s3.entry_by(store.link.addr, BUCKET);
    store.folder.set_storage(&entry.replace("\"type\":\"s3\",", "\"type\":\"s3\", "));
    until_right(&connection, 1).await;
    fleet.assert_spans();
}
