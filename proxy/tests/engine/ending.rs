//! How a proxy ends: what is on is finished within the grace, what is not is told so.

use std::{sync::atomic::Ordering, time::Duration};

use tonic::Code;

use crate::{
    support::{Proxy, eventually, infer, target},
    upstream::Upstream,
};

#[tokio::test]
async fn a_call_that_outlasts_the_grace_is_answered_sd_wherever_it_waits() {
    let upstream = Upstream::start().await;
    let target = target("one", upstream.address);
    let models = [("echo", vec![target.clone()]), ("cold", vec![target])];
    let mut proxy = Proxy::of(models).await;
    proxy.server = proxy.server.map(|server| server.with_grace(Duration::from_millis(500)));
    let client = proxy.client().await;
    let call = |name: &'static str, text: &'static str| {
        let mut client = client.clone();
        tokio::spawn(async move { client.model_infer(infer(name, text, "")).await })
    };
    // One runs at the server, one is held.
    let calls = [call("echo", "wait"), call("cold", "")];
    eventually("the call runs", || upstream.seen.running.load(Ordering::SeqCst) == 1).await;
    eventually("the other is held", || proxy.policy.held.load(Ordering::SeqCst) == 1).await;
    let policy = proxy.policy.clone();
    proxy.stop().await;
    assert_eq!(policy.held.load(Ordering::SeqCst), 0);
    for call in calls {
        let status = call.await.expect("ends").expect_err("is ended");
        assert_eq!(status.code(), Code::Unavailable, "{status}");
        assert_eq!(status.metadata().get("modelring-reason").expect("is set"), "SD");
        assert!(status.metadata().get("grpc-retry-pushback-ms").is_some());
    }
    eventually("the server sees it", || upstream.seen.cancelled.load(Ordering::SeqCst) == 1).await;
}

#[tokio::test]
async fn what_is_on_is_finished_within_the_grace() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::of([("echo", vec![target("one", upstream.address)])]).await;
    let mut client = proxy.client().await;
    let (feed, messages) = tokio::sync::mpsc::channel(4);
    feed.send(infer("echo", "", "one")).await.expect("is taken");
    let answers = client.model_stream_infer(tokio_stream::wrappers::ReceiverStream::new(messages)).await;
    let mut answers = answers.expect("begins").into_inner();
    answers.message().await.expect("comes").expect("is one");
    let stopping = tokio::spawn(proxy.stop());
    // The stream is older than the end: it goes on.
    for _ in 0..3 {
        feed.send(infer("echo", "", "more")).await.expect("is taken");
        answers.message().await.expect("comes").expect("is one");
    }
    assert!(!stopping.is_finished());
    drop(feed);
    assert!(answers.message().await.expect("ends well").is_none());
    stopping.await.expect("stops");
}
