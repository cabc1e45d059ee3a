//! Streams of all kinds.

use std::{sync::atomic::Ordering, time::Duration};

use bytes::Bytes;
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};

use crate::{
    support::{Proxy, eventually, infer, target},
    upstream::Upstream,
};

#[tokio::test]
async fn every_message_of_a_stream_carries_the_concrete_id_there_and_the_callers_name_back() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    let requests: Vec<_> = (0..100).map(|number| infer("echo", &number.to_string(), "tensor")).collect();
    let stream = proxy.client().await.model_stream_infer(tokio_stream::iter(requests)).await.expect("begins");
    let answers: Vec<_> = stream.into_inner().collect::<Result<_, _>>().await.expect("goes on");
    let names = answers.iter().map(|it| it.infer_response.as_ref().expect("is there").model_name.as_str());
    assert_eq!(names.collect::<Vec<_>>(), vec!["echo"; 100]);
    assert_eq!(upstream.names(), vec!["echo__id"; 100]);
    proxy.stop().await;
}

#[tokio::test]
async fn one_request_may_bring_many_answers() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    let one = tokio_stream::iter([infer("echo", "copies 5000", "tensor")]);
    let stream = proxy.client().await.model_stream_infer(one).await.expect("begins");
    let answers: Vec<_> = stream.into_inner().collect::<Result<_, _>>().await.expect("goes on");
    assert_eq!(answers.len(), 5000);
    proxy.stop().await;
}

#[tokio::test]
async fn many_requests_may_bring_one_answer() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    let requests = (0..50).map(|number| infer("echo", if number < 49 { "copies 0" } else { "last" }, "tensor"));
    let requests: Vec<_> = requests.collect();
    let stream = proxy.client().await.model_stream_infer(tokio_stream::iter(requests)).await.expect("begins");
    let answers: Vec<_> = stream.into_inner().collect::<Result<_, _>>().await.expect("goes on");
    assert_eq!(answers.len(), 1);
    assert_eq!(answers[0].infer_response.as_ref().expect("is there").id, "last");
    assert_eq!(upstream.names().len(), 50);
    proxy.stop().await;
}

#[tokio::test]
async fn a_stream_that_a_header_names_stays_on_one_copy() {
    let (one, two) = (Upstream::start().await, Upstream::start().await);
    let proxy = Proxy::of([("echo", vec![target("one", one.address), target("two", two.address)])]).await;
    let requests: Vec<_> = (0..50).map(|number| infer("", &number.to_string(), "tensor")).collect();
    let mut request = tonic::Request::new(tokio_stream::iter(requests));
    request.metadata_mut().insert("mm-model-id", "echo".parse().expect("ascii"));
    let stream = proxy.client().await.model_stream_infer(request).await.expect("begins");
    let answers: Vec<_> = stream.into_inner().collect::<Result<_, _>>().await.expect("goes on");
    assert_eq!(answers.len(), 50);
    assert_eq!((one.names(), two.calls()), (vec!["echo__id".to_owned(); 50], 0));
    proxy.stop().await;
}

#[tokio::test]
async fn a_stream_that_is_full_both_ways_does_not_lock_up() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    let tensor = Bytes::from(vec![7; 256 * 1024]);
    for _ in 0..4 {
        let requests: Vec<_> = (0..64).map(|_| infer("echo", "", tensor.clone())).collect();
        let mut client = proxy.client().await;
        let flood = async {
            let stream = client.model_stream_infer(tokio_stream::iter(requests)).await.expect("begins");
            stream.into_inner().collect::<Result<Vec<_>, _>>().await.expect("goes on").len()
        };
        assert_eq!(timeout(Duration::from_secs(60), flood).await.expect("does not lock up"), 64);
    }
    proxy.stop().await;
}

#[tokio::test]
async fn messages_go_back_and_forth_and_a_cancel_ends_the_stream_on_the_server() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    let (requests, stream) = mpsc::channel(1);
    requests.send(infer("echo", "0", "")).await.expect("is taken");
    let stream = proxy.client().await.model_stream_infer(ReceiverStream::new(stream)).await.expect("begins");
    let mut answers = stream.into_inner();
    for number in 0..200 {
        let answer = answers.next().await.expect("goes on").expect("goes on").infer_response.expect("is there");
        assert_eq!(answer.id, number.to_string());
        requests.send(infer("echo", &(number + 1).to_string(), "")).await.expect("is taken");
    }
    assert_eq!(proxy.policy.leases(), 1);
    drop(answers);
    drop(requests);
    eventually("the server sees it", || upstream.seen.running.load(Ordering::SeqCst) == 0).await;
    eventually("the lease is back", || proxy.policy.leases() == 0).await;
    proxy.stop().await;
}

#[tokio::test]
async fn a_slow_reader_costs_no_other_its_connection() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    let mut client = proxy.client().await;
    let one = tokio_stream::iter([infer("echo", "copies 60000", "tensor")]);
    let stream = client.model_stream_infer(one).await.expect("begins").into_inner();
    eventually("answers wait in the budget", || proxy.budget.used() > 0).await;
    // Another client, so that only the proxy's connection to the server is shared.
    let mut other = proxy.client().await;
    for _ in 0..50 {
        other.model_infer(infer("echo", "", "")).await.expect("is not held up");
    }
    drop(stream);
    eventually("the lease is back", || proxy.policy.leases() == 0).await;
    proxy.stop().await;
}
