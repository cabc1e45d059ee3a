//! Whole calls, with a model server in place of the engine.

use std::{cell::RefCell, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use modelring_placement::time::Time;
use modelring_proto::inference::{
    InferTensorContents, ModelInferRequest, ModelInferResponse, ModelMetadataRequest, ModelMetadataResponse,
    model_metadata_response::TensorMetadata,
};
use modelring_proxy::{
    engine::{
        answer::{Answer, Reason},
        budget::Budget,
        call::{Call, CallAnswer, Caller, Local},
    },
    net::http::{Body, HttpHandler as _, HttpRequest, HttpResponse},
    rest::{
        compress::{Encoding, deflate, inflate},
        handler::{Readiness, Rest},
    },
};
use prost::Message as _;

use crate::support::output;

const NOW: Time = Time::from_millis(1000);
const MAX: usize = 100_000;

/// A proxy that knows the model `m`.
struct Knows(bool);

/// A model server that sends its one input back, and notes the calls.
struct Server {
    calls: RefCell<Vec<Call>>,
    budget: Arc<Budget>,
    fails: Option<Answer>,
}

impl Readiness for Knows {
    fn ready(&self) -> bool {
        self.0
    }

    fn model_ready(&self, name: &str) -> Result<(), Answer> {
        if name == "m" { Ok(()) } else { Err(Answer::new(Reason::NM, "no such model")) }
    }

    fn max_message(&self) -> usize {
        MAX
    }
}

impl Server {
    fn new() -> Self {
        Self { calls: RefCell::default(), budget: Budget::new(10 << 20), fails: None }
    }

    fn infer(message: &Bytes) -> Vec<u8> {
        let request = ModelInferRequest::decode(message.clone()).expect("a request");
        let mut echo = output("y", "FP32", &[1]);
        let mut raw_output_contents = request.raw_input_contents;
        if let Some(input) = request.inputs.into_iter().next() {
            echo = output("y", &input.datatype, &input.shape);
            echo.contents = input.contents;
        } else {
            raw_output_contents = vec![Bytes::from_static(&[0; 4])];
        }
        let answer = ModelInferResponse {
            model_name: request.model_name,
            id: request.id,
            outputs: vec![echo],
            raw_output_contents,
            ..Default::default()
        };
        answer.encode_to_vec()
    }

    fn metadata(message: &Bytes) -> Vec<u8> {
        let request = ModelMetadataRequest::decode(message.clone()).expect("a request");
        let x = TensorMetadata { name: "x".to_owned(), datatype: "FP32".to_owned(), shape: vec![-1, 2] };
        ModelMetadataResponse {
            name: request.name,
            versions: vec![request.version],
            inputs: vec![x],
            ..Default::default()
        }
        .encode_to_vec()
    }
}

impl Caller for Server {
    fn call(&self, call: Call) -> Local<'_, Result<CallAnswer, Answer>> {
        Box::pin(async move {
            if let Some(answer) = &self.fails {
                return Err(answer.clone());
            }
            let message: Bytes = match &*call.head.path {
                "/inference.GRPCInferenceService/ModelInfer" => Self::infer(&call.message),
                "/inference.GRPCInferenceService/ModelMetadata" => Self::metadata(&call.message),
                other => panic!("{other}"),
            }
            .into();
            self.calls.borrow_mut().push(call);
            let mut held = self.budget.share();
            held.resize(message.len())?;
            let pair =
                |name, value| HeaderMap::from_iter([(HeaderName::from_static(name), HeaderValue::from_static(value))]);
            Ok(CallAnswer { message, headers: pair("mm-model-id", "m__isvc-1"), trailers: pair("x-cost", "3"), held })
        })
    }

    fn now(&self) -> Time {
        NOW
    }

    fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }
}

fn request(
    method: Method,
    target: &str,
    headers: &[(&'static str, &str)],
    body: &[u8],
    budget: &Arc<Budget>,
) -> HttpRequest {
    let header = |(name, value): &(&'static str, &str)| {
        (HeaderName::from_static(name), HeaderValue::from_str(value).expect("a value"))
    };
    HttpRequest {
        method,
        uri: target.parse().expect("a target"),
        headers: headers.iter().map(header).collect(),
        peer: None,
        body: Body::full(Bytes::copy_from_slice(body), budget.clone()),
    }
}

async fn call(
    server: &Server,
    method: Method,
    target: &str,
    headers: &[(&'static str, &str)],
    body: &[u8],
) -> HttpResponse {
    let request = request(method, target, headers, body, &server.budget);
    let response = Rest::new(Arc::new(Knows(true))).handle(request, server).await;
    assert_eq!(response.body.len(), 1);
    response
}

async fn infer(server: &Server, headers: &[(&'static str, &str)], body: &[u8]) -> HttpResponse {
    call(server, Method::POST, "/v2/models/m/infer", headers, body).await
}

fn text(response: &HttpResponse) -> &str {
    std::str::from_utf8(&response.body[0]).expect("text")
}

fn large(count: usize) -> String {
    let numbers = vec!["1.5"; count].join(",");
    format!(r#"{{"inputs":[{{"name":"x","datatype":"FP32","shape":[{count}],"data":[{numbers}]}}]}}"#)
}

const SMALL: &[u8] = br#"{"id":"i","inputs":[{"name":"x","datatype":"FP32","shape":[2],"data":[0.5,2]}]}"#;

#[tokio::test]
async fn an_inference_goes_as_a_grpc_call_and_comes_back_as_json() {
    let server = Server::new();
    let headers = [("grpc-timeout", "2S"), ("content-type", "text/plain"), ("accept", "image/png"), ("te", "trailers")];
    let response = call(&server, Method::POST, "/v2/models/m/versions/3/infer", &headers, SMALL).await;
    assert_eq!(response.status, 200);
    assert_eq!(response.headers["content-type"], "application/json");
    assert_eq!(response.headers["mm-model-id"], "m__isvc-1");
    assert_eq!(response.headers["grpc-metadata-mm-model-id"], "m__isvc-1");
    assert_eq!(response.trailers["grpc-trailer-x-cost"], "3");
    insta::assert_snapshot!(text(&response), @r#"{"model_name":"m","id":"i","outputs":[{"name":"y","datatype":"FP32","shape":[2],"data":[0.5,2.0]}]}"#);

    let call = server.calls.borrow_mut().remove(0);
    assert_eq!(call.name.as_deref(), Some(&b"m"[..]));
    assert_eq!(call.head.deadline, NOW + Duration::from_secs(2));
    assert_eq!(call.head.headers["grpcgateway-content-type"], "text/plain");
    let message = ModelInferRequest::decode(call.message).expect("a request");
    assert_eq!((message.model_name.as_str(), message.model_version.as_str()), ("m", "3"));
    let typed = InferTensorContents { fp32_contents: vec![0.5, 2.0], ..Default::default() };
    assert_eq!(message.inputs[0].contents, Some(typed));

    drop(response);
    assert_eq!(server.budget.used(), 0, "all shares are given back");
}

#[tokio::test]
async fn without_a_timeout_there_is_no_deadline() {
    let server = Server::new();
    assert_eq!(infer(&server, &[], SMALL).await.status, 200);
    assert_eq!(server.calls.borrow()[0].head.deadline, Time::NEVER);
    let response = infer(&server, &[("grpc-timeout", "soon")], SMALL).await;
    assert_eq!(response.status, 400);
    assert!(text(&response).contains("invalid grpc-timeout: soon"));
}

#[tokio::test]
async fn binary_goes_in_and_out() {
    let server = Server::new();
    let json = br#"{"parameters":{"binary_data_output":true},"inputs":[{"name":"x","datatype":"FP16","shape":[2],"parameters":{"binary_data_size":4}}]}"#;
    let length = json.len().to_string();
    let body = [&json[..], b"\0\x3c\0\x40"].concat();
    let response = infer(&server, &[("inference-header-content-length", &length)], &body).await;
    assert_eq!(response.status, 200, "{}", text(&response));
    assert_eq!(response.headers["content-type"], "application/octet-stream");
    let length: usize =
        response.headers["inference-header-content-length"].to_str().expect("text").parse().expect("number");
    assert_eq!(&response.body[0][length..], b"\0\x3c\0\x40");

    for bad in ["x", "-1", "1000"] {
        assert_eq!(infer(&server, &[("inference-header-content-length", bad)], &body).await.status, 400);
    }
}

#[tokio::test]
async fn a_body_of_bytes_alone_is_the_input_of_a_model_with_one() {
    let server = Server::new();
    let body = [1f32.to_le_bytes(), 2f32.to_le_bytes()].concat();
    let response = infer(&server, &[("inference-header-content-length", "0")], &body).await;
    assert_eq!(response.headers["content-type"], "application/octet-stream");
    assert!(response.body[0].ends_with(&body));
    let calls = server.calls.borrow();
    assert_eq!(&*calls[0].head.path, "/inference.GRPCInferenceService/ModelMetadata");
    let message = ModelInferRequest::decode(calls[1].message.clone()).expect("a request");
    assert_eq!(message.inputs[0].shape, [1, 2]);
}

#[tokio::test]
async fn compressed_requests_are_read() {
    let server = Server::new();
    for (name, encoding) in [("gzip", Encoding::Gzip), ("deflate", Encoding::Deflate)] {
        let body = deflate(encoding, SMALL).expect("memory");
        let response = infer(&server, &[("content-encoding", name)], &body).await;
        assert!(text(&response).contains("[0.5,2.0]"), "{}", text(&response));
    }
    assert_eq!(infer(&server, &[("content-encoding", "br")], SMALL).await.status, 415);
}

#[tokio::test]
async fn answers_are_compressed_when_asked_and_worth_it() {
    let server = Server::new();
    for (name, encoding) in [("gzip", Encoding::Gzip), ("deflate", Encoding::Deflate)] {
        let response = infer(&server, &[("accept-encoding", name)], large(1000).as_bytes()).await;
        assert_eq!(response.headers["content-encoding"], name);
        let plain = inflate(encoding, &response.body[0], 1 << 20).expect("inflates");
        assert!(plain.ends_with(b"1.5]}]}"));
        let small = infer(&server, &[("accept-encoding", name)], SMALL).await;
        assert_eq!(small.headers.get("content-encoding"), None);
    }
    let plain = infer(&server, &[], large(1000).as_bytes()).await;
    assert_eq!(plain.headers.get("content-encoding"), None);
}

#[tokio::test]
async fn a_large_body_is_translated_aside_and_answered_alike() {
    let server = Server::new();
    let response = infer(&server, &[], large(20_000).as_bytes()).await;
    assert_eq!(response.status, 200, "{}", text(&response));
    assert_eq!(text(&response).matches("1.5").count(), 20_000);
}

#[tokio::test]
async fn a_body_over_the_limit_is_too_large() {
    let server = Server::new();
    let over = vec![b' '; MAX + 1];
    let bomb = deflate(Encoding::Gzip, &over).expect("memory");
    let announced = (MAX + 1).to_string();
    // FP64 takes more as a message than as text.
    let grows = large(30_000).replace("FP32", "FP64").replace("1.5", "1");
    assert!(grows.len() < MAX);
    for (headers, body) in [
        (&[][..], &over[..]),
        (&[("content-length", announced.as_str())], b""),
        (&[("content-encoding", "gzip")], &bomb),
        (&[], grows.as_bytes()),
    ] {
        let response = infer(&server, headers, body).await;
        assert_eq!(
            (response.status.as_u16(), &response.headers["modelring-reason"]),
            (413, &HeaderValue::from_static("TL"))
        );
        assert!(text(&response).contains(r#""code":8"#));
    }
    assert!(server.calls.borrow().is_empty());
    assert_eq!(server.budget.used(), 0);
}

#[tokio::test]
async fn a_spent_budget_says_to_come_back() {
    let server = Server { budget: Budget::new(10), ..Server::new() };
    let response = infer(&server, &[], SMALL).await;
    assert_eq!(
        (response.status.as_u16(), &response.headers["modelring-reason"]),
        (429, &HeaderValue::from_static("OM"))
    );
    assert!(response.headers.contains_key("retry-after"));
}

#[tokio::test]
async fn what_the_call_ends_with_is_the_answer() {
    let server = Server { fails: Some(Answer::new(Reason::NP, "the pods are full")), ..Server::new() };
    let response = infer(&server, &[], SMALL).await;
    assert_eq!(response.status, 503);
    assert_eq!(response.headers["content-type"], "application/json");
    assert_eq!(response.headers["modelring-reason"], "NP");
    assert_eq!(response.headers["retry-after"], "1");
    insta::assert_snapshot!(text(&response), @r#"{"error":"the pods are full","code":14,"message":"the pods are full"}"#);
}

#[tokio::test]
async fn a_status_of_the_model_server_keeps_its_code() {
    let unimplemented = Answer::status(12, "unknown service");
    let server = Server { fails: Some(unimplemented), ..Server::new() };
    let response = infer(&server, &[], SMALL).await;
    assert_eq!(response.status, 501);
    assert_eq!(text(&response), r#"{"error":"unknown service","code":12,"message":"unknown service"}"#);
    assert_eq!(response.headers.get("modelring-reason"), None);
}

#[tokio::test]
async fn a_caller_that_goes_away_cancels_its_call() {
    struct Hangs(Arc<Budget>, Arc<()>);
    impl Caller for Hangs {
        fn call(&self, _: Call) -> Local<'_, Result<CallAnswer, Answer>> {
            let running = self.1.clone();
            Box::pin(async move {
                std::future::pending::<()>().await;
                drop(running);
                Err(Answer::new(Reason::IN, "never"))
            })
        }
        fn now(&self) -> Time {
            NOW
        }
        fn budget(&self) -> &Arc<Budget> {
            &self.0
        }
    }
    let server = Hangs(Budget::new(1 << 20), Arc::new(()));
    let rest = Rest::new(Arc::new(Knows(true)));
    let mut answer = rest.handle(request(Method::POST, "/v2/models/m/infer", &[], SMALL, &server.0), &server);
    assert!(futures_util::poll!(&mut answer).is_pending());
    assert_eq!(Arc::strong_count(&server.1), 2, "the call runs");
    drop(answer);
    assert_eq!(Arc::strong_count(&server.1), 1, "the call was dropped");
    assert_eq!(server.0.used(), 0);
}

#[tokio::test]
async fn metadata_is_asked_of_the_model_server() {
    let server = Server::new();
    let response = call(&server, Method::GET, "/v2/models/m?version=7", &[], b"ignored").await;
    insta::assert_snapshot!(text(&response), @r#"{"name":"m","versions":["7"],"platform":"","inputs":[{"name":"x","datatype":"FP32","shape":[-1,2]}],"outputs":[]}"#);
    assert_eq!(response.headers["mm-model-id"], "m__isvc-1");
}

#[tokio::test]
async fn local_paths_ask_no_model_server() {
    let server = Server::new();
    for (target, status, body) in [
        ("/v2/health/live", 200, r#"{"live":true}"#),
        ("/v2/health/ready", 200, r#"{"ready":true}"#),
        ("/v2/models/m/ready", 200, r#"{"name":"m","ready":true}"#),
        ("/v2/models/m/versions/1/ready", 200, r#"{"name":"m","ready":true}"#),
        ("/v2/models/other/ready", 404, r#"{"error":"no such model","code":5,"message":"no such model"}"#),
        ("/v2/models/m/stats", 404, r#"{"error":"Not Found","code":5,"message":"Not Found"}"#),
        ("/v2/models/m/infer", 405, r#"{"error":"Method Not Allowed","code":12,"message":"Method Not Allowed"}"#),
    ] {
        let response = call(&server, Method::GET, target, &[], b"").await;
        assert_eq!((response.status.as_u16(), text(&response)), (status, body), "{target}");
        assert_eq!(response.headers["content-type"], "application/json");
    }
    let response = call(&server, Method::GET, "/v2/", &[], b"").await;
    let server_metadata: serde_json::Value = serde_json::from_str(text(&response)).expect("JSON");
    assert_eq!(server_metadata["name"], "modelring");
    assert_eq!(server_metadata["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(server_metadata["extensions"], serde_json::json!(["binary_tensor_data"]));
    assert!(server.calls.borrow().is_empty());
}

#[tokio::test]
async fn no_header_turns_a_post_into_a_get() {
    let server = Server::new();
    let headers = [("x-http-method-override", "GET"), ("content-type", "application/x-www-form-urlencoded")];
    let response = call(&server, Method::POST, "/v2/models/m", &headers, b"").await;
    assert_eq!(response.status, 405);
    assert!(server.calls.borrow().is_empty());
}

#[tokio::test]
async fn a_proxy_without_a_table_is_not_ready() {
    let server = Server::new();
    let request = request(Method::GET, "/v2/health/ready", &[], b"", &server.budget);
    let response = Rest::new(Arc::new(Knows(false))).handle(request, &server).await;
    assert_eq!(
        (response.status.as_u16(), &response.headers["modelring-reason"]),
        (503, &HeaderValue::from_static("TB"))
    );
}

#[tokio::test]
async fn an_answer_that_is_no_message_is_an_error() {
    struct Broken(Server);
    impl Caller for Broken {
        fn call(&self, _: Call) -> Local<'_, Result<CallAnswer, Answer>> {
            Box::pin(async {
                let message = Bytes::from_static(b"\xff\xff");
                Ok(CallAnswer {
                    message,
                    headers: HeaderMap::new(),
                    trailers: HeaderMap::new(),
                    held: self.0.budget.share(),
                })
            })
        }
        fn now(&self) -> Time {
            NOW
        }
        fn budget(&self) -> &Arc<Budget> {
            &self.0.budget
        }
    }
    let server = Broken(Server::new());
    let request = request(Method::POST, "/v2/models/m/infer", &[], SMALL, &server.0.budget);
    let response = Rest::new(Arc::new(Knows(true))).handle(request, &server).await;
    assert_eq!(response.status, 500);
    assert!(text(&response).contains("the model server's answer is no such message"));
}
