//! Retries of a whole proxy in front of servers that misbehave: what is sent again, and what never is.

use modelring_proto::v1::{self, watcher_message::Message};
use prost::Message as _;
use tokio::net::TcpListener;
use tonic::{Code, Status};

use crate::{
    rig::{Client, Rig, request},
    scripted::{Does, INTERNAL_ERROR, REFUSED_STREAM, Wild, soon},
};

async fn two(script: impl IntoIterator<Item = Does>) -> (Wild, Rig, Client) {
    let wild = Wild::start(2, script).await;
    let rig = Rig::start(&wild.addresses).await;
    let client = rig.client().await;
    (wild, rig, client)
}

async fn infer(client: &mut Client) -> Result<(), Status> {
    soon("an answer", client.model_infer(request(0))).await.map(drop)
}

fn reason(status: &Status) -> &str {
    status.metadata().get("modelring-reason").and_then(|reason| reason.to_str().ok()).unwrap_or_default()
}

#[tokio::test]
async fn a_server_that_refuses_connections_costs_no_caller_a_failure() {
    let wild = Wild::start(1, []).await;
    let dead = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("an address");
    let rig = Rig::start(&[dead, wild.addresses[0]]).await;
    let mut client = rig.client().await;
    for _ in 0..6 {
        infer(&mut client).await.expect("the other copy answers");
    }
    rig.stop().await;
}

#[tokio::test]
async fn a_server_that_accepts_and_hangs_up_has_run_nothing() {
    let wild = Wild::start(1, []).await;
    let hangs_up = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let rig = Rig::start(&[hangs_up.local_addr().expect("an address"), wild.addresses[0]]).await;
    let accepting = tokio::spawn(async move {
        loop {
            drop(hangs_up.accept().await.expect("a connection"));
        }
    });
    let mut client = rig.client().await;
    for _ in 0..6 {
        infer(&mut client).await.expect("the other copy answers");
    }
    accepting.abort();
    rig.stop().await;
}

#[tokio::test]
async fn a_refused_stream_goes_to_another_copy_whole() {
    let (wild, rig, mut client) = two([Does::Resets(REFUSED_STREAM)]).await;
    infer(&mut client).await.expect("the second answers");
    let requests = wild.requests();
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[0], requests[1]);
    rig.stop().await;
}

#[tokio::test]
async fn a_call_above_the_last_stream_of_a_goaway_goes_to_another_copy() {
    let (wild, rig, mut client) = two([Does::Answers, Does::Answers, Does::Leaves, Does::Leaves]).await;
    for _ in 0..3 {
        infer(&mut client).await.expect("an answer");
    }
    assert_eq!(wild.requests().len(), 5, "two were refused");
    rig.stop().await;
}

#[tokio::test]
async fn a_call_is_tried_three_times_at_most() {
    let (wild, rig, mut client) = two([Does::Resets(REFUSED_STREAM), Does::Leaves, Does::Resets(REFUSED_STREAM)]).await;
    let status = infer(&mut client).await.expect_err("all refused");
    assert_eq!((status.code(), reason(&status)), (Code::Unavailable, "RB"));
    assert!(status.metadata().contains_key("grpc-retry-pushback-ms"));
    assert_eq!(wild.requests().len(), 3);
    rig.stop().await;
}

#[tokio::test]
async fn what_may_have_run_is_not_sent_again() {
    let (wild, rig, mut client) = two([]).await;
    for does in [Does::HangsUp, Does::Resets(INTERNAL_ERROR)] {
        let before = wild.requests().len();
        wild.follow([does]);
        let status = infer(&mut client).await.expect_err("it may have run");
        assert_eq!((status.code(), reason(&status)), (Code::Unavailable, "UR"));
        assert!(status.metadata().contains_key("grpc-retry-pushback-ms"));
        assert_eq!(wild.requests().len(), before + 1);
    }
    rig.stop().await;
}

#[tokio::test]
async fn an_answer_that_has_begun_is_not_begun_anew() {
    let (wild, rig, mut client) = two([Does::Begins]).await;
    let status = infer(&mut client).await.expect_err("it broke off");
    assert_eq!(reason(&status), "UR");
    assert_eq!(wild.requests().len(), 1);
    rig.stop().await;
}

#[tokio::test]
async fn unavailable_to_a_unary_call_goes_to_another_copy_and_at_last_to_the_caller() {
    for does in [Does::Says(14, "busy"), Does::Trails(14, "busy")] {
        let (wild, rig, mut client) = two([does.clone()]).await;
        infer(&mut client).await.expect("the second answers");
        wild.follow([does.clone(), does.clone(), does]);
        let status = infer(&mut client).await.expect_err("all are busy");
        assert_eq!((status.code(), status.message(), reason(&status)), (Code::Unavailable, "busy", ""));
        assert_eq!(wild.requests().len(), 2 + 3);
        rig.stop().await;
    }
}

#[tokio::test]
async fn unavailable_to_a_stream_passes() {
    let (wild, rig, mut client) = two([Does::Says(14, "busy")]).await;
    let stream = tokio_stream::iter([request(0)]);
    let status = soon("an answer", client.model_stream_infer(stream)).await.expect_err("it passes");
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "busy"));
    assert_eq!(wild.requests().len(), 1);
    rig.stop().await;
}

#[tokio::test]
async fn resource_exhausted_goes_to_another_ready_copy_once() {
    let full = Does::Says(8, "queue full");
    let (wild, rig, mut client) = two([full.clone()]).await;
    infer(&mut client).await.expect("the second answers");
    // A refusal before it does not count for one.
    wild.follow([Does::Resets(REFUSED_STREAM), full.clone()]);
    infer(&mut client).await.expect("the third answers");
    assert_eq!(wild.requests().len(), 2 + 3);
    rig.stop().await;

    let (wild, rig, mut client) = two([full.clone(), full]).await;
    let status = infer(&mut client).await.expect_err("it passes");
    assert_eq!((status.code(), status.message(), reason(&status)), (Code::ResourceExhausted, "queue full", ""));
    assert_eq!(wild.requests().len(), 2);
    rig.stop().await;
}

#[tokio::test]
async fn resource_exhausted_of_the_only_copy_passes_at_once() {
    let wild = Wild::start(1, [Does::Says(8, "queue full")]).await;
    let rig = Rig::start(&wild.addresses).await;
    let status = infer(&mut rig.client().await).await.expect_err("it passes");
    assert_eq!((status.code(), status.message()), (Code::ResourceExhausted, "queue full"));
    assert_eq!(wild.requests().len(), 1);
    rig.stop().await;
}

/// What servers say of a model that they have not.
const NOT_HERE: [(u32, &str); 7] = [
    (5, "Request for unknown model: 'm' is not found"),
    (5, "Request for unknown model: 'm' has no available versions"),
    (14, "Request for unknown model: 'm' is not found"),
    (5, "Model m with version  not found"),
    (3, "Model m with version  not found"),
    (5, "Model with requested name is not found"),
    (13, "Model not found: m%0Aorg.pytorch.serve.archive.model.ModelNotFoundException"),
];

#[tokio::test]
async fn a_model_that_a_server_denies_in_its_own_words_is_answered_by_another_copy_and_reported() {
    for (code, text) in NOT_HERE {
        let (wild, rig, mut client) = two([Does::Says(code, text)]).await;
        infer(&mut client).await.unwrap_or_else(|status| panic!("{code} {text}: {status}"));
        assert_eq!(wild.requests().len(), 2, "{code} {text}");
        let is_report = |message: &Message| matches!(message, Message::Missing(missing) if missing.model == "m");
        let reported = || rig.agents.iter().any(|agent| agent.has_heard(is_report));
        crate::scripted::until(text, || reported().then_some(())).await;
        rig.stop().await;
    }
}

#[tokio::test]
async fn a_model_that_its_only_server_denies_is_loaded_once_and_answered_for_all_who_called() {
    let not_here = Does::Says(5, "Request for unknown model: 'm' is not found");
    let wild = Wild::start(1, [not_here.clone(), not_here.clone(), not_here]).await;
    let rig = Rig::start(&wild.addresses).await;
    let agent = rig.agents[0].clone();
    let callers = (0..3).map(|_| {
        let rig = &rig;
        async move { infer(&mut rig.client().await).await }
    });
    let repair = async {
        agent.hears("a report", |said| matches!(said, Message::Missing(_)).then_some(())).await;
        // All have been told by now, or soon will be; the agent is still looking.
        crate::scripted::until("all calls", || (wild.requests().len() == 3).then_some(())).await;
        agent.gone("m");
        let load = agent.asked().await;
        agent.finish(&load).await;
    };
    let (answers, ()) = tokio::join!(futures_util::future::join_all(callers), repair);
    for answer in answers {
        answer.expect("it is loaded again");
    }
    assert_eq!(agent.times_asked(), 1);
    assert!(!agent.has_heard(|said| matches!(said, Message::Missing(_))), "one report");
    rig.stop().await;
}

#[tokio::test]
async fn a_server_that_denies_again_what_its_agent_has_confirmed_is_passed_on() {
    let version = "Request for unknown model: 'm' version 9 is not found";
    let wild = Wild::start(1, [Does::Says(5, version), Does::Says(5, version), Does::Says(5, version)]).await;
    let rig = Rig::start(&wild.addresses).await;
    let mut client = rig.client().await;
    for sent in [2, 3] {
        let status = infer(&mut client).await.expect_err("there is no such version");
        assert_eq!((status.code(), status.message()), (Code::NotFound, version));
        assert_eq!(wild.requests().len(), sent);
    }
    rig.stop().await;
}

#[tokio::test]
async fn a_large_request_is_sent_again_while_memory_is_plenty() {
    let (wild, rig, mut client) = two([Does::Resets(REFUSED_STREAM)]).await;
    soon("an answer", client.model_infer(request(3 << 20))).await.expect("the second answers");
    let requests = wild.requests();
    assert_eq!(requests.len(), 2);
    assert!(requests[0] == requests[1] && requests[0].len() > 3 << 20);
    let message = modelring_proto::inference::ModelInferRequest::decode(&requests[1][5..]).expect("a request");
    assert_eq!((message.model_name.as_str(), message.raw_input_contents[0].len()), ("m", 3 << 20));
    rig.stop().await;
}

#[tokio::test]
async fn a_request_that_is_not_held_any_more_is_not_sent_again_and_that_is_said() {
    let wild = Wild::start(2, [Does::Resets(REFUSED_STREAM)]).await;
    let rig = Rig::with(&wild.addresses, 1 << 20, |_| {}, |_| {}).await;
    let mut client = rig.client().await;
    let status = soon("an answer", client.model_infer(request(3 << 20))).await.expect_err("it was refused");
    assert_eq!((status.code(), reason(&status)), (Code::Unavailable, "RB"));
    assert!(status.message().contains("larger than what is kept"), "{status}");
    assert_eq!(wild.requests().len(), 1);
    rig.stop().await;
}

#[tokio::test]
async fn a_method_of_the_runtimes_own_list_is_unary_when_the_caller_has_said_all() {
    let method = "pkg.Predictor/Predict";
    let names = |hello: &mut v1::Hello| {
        hello.methods = vec![v1::Method { name: method.into(), request_path: vec![1], response_path: vec![] }];
        hello.allow_any_method = true;
    };
    let wild = Wild::start(2, [Does::Says(14, "busy")]).await;
    let rig = Rig::with(&wild.addresses, 64 << 20, names, |_| {}).await;
    let raw = crate::raw::Raw::connect(rig.proxy.grpc_addr).await;
    let message = || vec![crate::raw::framed(0, b"\x12\x01x")];
    let call = async |path: &str| raw.grpc(path, &[("mm-model-id", "m")], message()).await;
    assert_eq!(call("/pkg.Predictor/Predict").await.code(), "0", "another copy answers");
    assert_eq!(wild.requests()[1], b"\0\0\0\0\x06\x12\x01x\x0a\x01m");
    wild.follow([Does::Says(14, "busy")]);
    assert_eq!(call("/pkg.Predictor/Unlisted").await.code(), "14", "nobody knows whether this may be repeated");
    rig.stop().await;
}
