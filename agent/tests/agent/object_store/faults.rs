//! The link to the store breaks, and what becomes of a pull.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use modelring_proto::v1::{copy_state::State, load_event::Event};
use tonic::Code;

use super::*;
use crate::{faulty_link::Fault, fixture::Ended, scripted::eventually};

/// An object of three ranges.
async fn stage(content: &[u8]) -> Stage {
    Stage::new([("big.bin".to_owned(), content), ("small.bin".to_owned(), b"small")]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_connection_goes_on_at_the_byte_that_it_had_reached() {
    let content = noise(40 << 20);
    let stage = stage(&content).await;
    let mut breaks = [Fault::ResetAfter(5 << 20), Fault::CloseAfter(3 << 20), Fault::ResetAfter(0)].into_iter();
    stage.link.decide(move |asked| {
        let first_of_the_second_part = asked.range.as_ref().is_some_and(|range| range.start == 16 << 20);
        let later = asked.range.as_ref().is_some_and(|range| range.start > 16 << 20 && range.end == 32 << 20);
        if first_of_the_second_part || later { breaks.next().unwrap_or(Fault::None) } else { Fault::None }
    });
    stage.load_patiently(at("big", "big.bin")).await.loaded();
    assert!(stage.files("big")["big.bin"] == content, "the content is that of the object");
    let of_the_part: Vec<_> =
        stage.link.ranges().into_iter().map(|(_, range)| range).filter(|range| range.end == 32 << 20).collect();
    assert!(of_the_part.len() >= 3, "{of_the_part:?}");
    // A reset may take with it what the kernel had not handed over; what was read is never asked for again.
    assert!(of_the_part[1].start > 16 << 20, "{of_the_part:?}");
    assert!(of_the_part.is_sorted_by_key(|range| range.start), "{of_the_part:?}");
    assert!(of_the_part.last().unwrap().start >= 19 << 20, "what came before the orderly end is kept: {of_the_part:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_stalls_is_asked_again_after_ten_seconds() {
    let content = noise(20 << 20);
    let stage = stage(&content).await;
    let mut stalls = [Fault::StallAfter(1 << 20)].into_iter();
    stage.link.decide(move |asked| match &asked.range {
        Some(range) if range.start == 0 => stalls.next().unwrap_or(Fault::None),
        _ => Fault::None,
    });
    let began = Instant::now();
    stage.load_patiently(at("big", "big.bin")).await.loaded();
    assert!(began.elapsed() >= Duration::from_secs(10), "{:?}", began.elapsed());
    assert!(stage.files("big")["big.bin"] == content, "the content is that of the object");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_busy_for_ten_seconds_costs_seconds_more_and_one_503_costs_none() {
    let stage = stage(b"content").await;
    let mut one = [Fault::Busy].into_iter();
    stage.link.decide(move |_| one.next().unwrap_or(Fault::None));
    stage.started.ensure(at("small", "small.bin")).await.loaded();

    let busy_until = Instant::now() + Duration::from_secs(10);
    stage.link.decide(move |_| if Instant::now() < busy_until { Fault::Busy } else { Fault::None });
    let ended = stage.started.ensure(at("big", "big.bin")).await;
    let (code, text) = ended.failed();
    assert_eq!(code, Code::Unavailable as u32);
    for part in ["bucket 'models'", &stage.link.addr.to_string(), "503 SlowDown"] {
        assert!(text.contains(part), "{text}");
    }
    let mut refused = false;
    loop {
        let ended = stage.started.ensure(at("big", "big.bin")).await;
        match ended.last() {
            Event::Loaded(_) => break,
            Event::Refused(refusal) => {
                refused = true;
                assert!(refusal.text.contains("503 SlowDown"), "{refusal:?}");
            }
            Event::Failed(_) => {}
            other => panic!("{other:?}"),
        }
        assert!(Instant::now() < busy_until + Duration::from_secs(30), "it does not recover: {ended:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(refused, "while it is remembered it is not tried");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_cannot_be_reached_is_named() {
    let stage = stage(b"content").await;
    let nowhere = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    stage.fixture.write("storage-config/s3", &stage.s3.entry_by(nowhere, "models"));
    let ended = stage.started.ensure(at("small", "small.bin")).await;
    let (code, text) = ended.failed();
    assert_eq!(code, Code::Unavailable as u32, "{text}");
    assert!(text.contains(&format!("cannot reach {nowhere}: Connection refused")), "{text}");
    assert!(!text.contains(&stage.s3.secret_access_key));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_changes_under_way_is_not_mixed_from_two() {
    let (one, other) = (noise(40 << 20), vec![7; 40 << 20]);
    let stage = stage(&one).await;
    // All wait at their first bytes until the object is another.
    let changed = Arc::new(AtomicBool::new(false));
    let seen = changed.clone();
    stage.link.decide(move |asked| {
        let first = asked.range.as_ref().is_some_and(|range| range.start == 0);
        if first && !seen.load(Ordering::Relaxed) { Fault::StallAfter(1 << 20) } else { Fault::None }
    });
    let call = stage.started.ask(at("big", "big.bin")).await.unwrap();
    let link = &stage.link;
    eventually("the first range", || link.ranges().len() > 1).await;
    stage.s3.put("models", "big.bin", &other);
    changed.store(true, Ordering::Relaxed);
    let ended = tokio::time::timeout(Duration::from_secs(60), Ended::of(call)).await.unwrap();
    let (code, text) = ended.failed();
    assert_eq!(code, Code::Aborted as u32, "{text}");
    assert!(
        text.contains(
            "unable to download objects in bucket 'models': object 'big.bin': it was changed while it was pulled"
        ),
        "{text}"
    );
    assert!(stage.files("big").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_that_is_given_up_ends_its_requests_and_leaves_nothing() {
    let content = noise(40 << 20);
    let stage = stage(&content).await;
    stage.link.decide(|asked| if asked.range.is_some() { Fault::StallAfter(1 << 20) } else { Fault::None });
    let mut watcher = stage.started.watch().await;
    watcher.snapshot_end().await;
    let call = stage.started.ask(at("big", "big.bin")).await.unwrap();
    watcher.copy("big", State::Loading).await;
    eventually("the ranges", || stage.link.ranges().len() == 3 && stage.unfinished() == 1).await;
    drop(call);
    // The server goes, and with it whatever the load was for.
    let mut server = stage.server;
    server.kill();
    watcher.copy("big", State::Gone).await;
    let (link, pulls) = (&stage.link, stage.fixture.path("model-dir/_modelring/pulls"));
    eventually("the end of the requests", || {
        let asked = link.asked();
        asked.iter().filter(|asked| asked.range.is_some()).count() == 3
            && asked.iter().filter(|asked| asked.range.is_some()).all(|asked| asked.given_up)
    })
    .await;
    eventually("the removal", || fs::read_dir(&pulls).unwrap().count() == 0).await;
}
