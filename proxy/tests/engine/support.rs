//! A proxy in front of real servers, with a policy that forwards by name.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use modelring_placement::time::Time;
use modelring_process::{probes::Pulse, tls::Connector};
use modelring_proto::inference::{
    ModelInferRequest, grpc_inference_service_client::GrpcInferenceServiceClient,
    grpc_inference_service_server::GrpcInferenceServiceServer,
};
use modelring_proxy::{
    clock::Clock,
    engine::{
        answer::{Answer, Reason},
        budget::Budget,
        call::{Call, Caller, Local},
        policy::{Attempt, Decision, First, Head, Plan, Policy, Ran, Record},
        tail::suffix,
        target::Target,
    },
    net::{
        Server, Services, Settings,
        http::{HttpHandler, HttpRequest, HttpResponse},
    },
};
use parking_lot::Mutex;
use prost::Message;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use crate::upstream::Upstream;

pub(crate) const INFER: &str = "/inference.GRPCInferenceService/ModelInfer";
pub(crate) const STREAM: &str = "/inference.GRPCInferenceService/ModelStreamInfer";
pub(crate) const LIVE: &str = "/inference.GRPCInferenceService/ServerLive";

/// Forwards by name, strictly: what it does not know it refuses.
pub(crate) struct ByName {
    targets: HashMap<String, Vec<Arc<Target>>>,
    /// Calls of model `cold` are held until this is true.
    pub(crate) gate: watch::Sender<bool>,
    pub(crate) held: Arc<AtomicUsize>,
    leases: Arc<AtomicUsize>,
    /// Ends the attempts that are on.
    pub(crate) revoke: Arc<CancellationToken>,
    pub(crate) records: Mutex<Vec<Record>>,
    pub(crate) attempts: Mutex<Vec<Attempt>>,
}

/// Counts an attempt as long as it is on.
pub(crate) struct Lease(Arc<AtomicUsize>);

pub(crate) struct Proxy {
    pub(crate) server: Option<Server>,
    pub(crate) policy: Arc<ByName>,
    pub(crate) budget: Arc<Budget>,
}

/// Answers `/infer/NAME` by a call from inside, and repeats any other body.
struct Rest;

impl ByName {
    fn plan(&self, head: &Head, name: &str, number: usize) -> Decision<Lease> {
        let Some(target) = self.targets.get(name).and_then(|targets| targets.get(number).or(targets.last())) else {
            return Decision::Answer(Answer::new(Reason::NM, format!("model {name} not found")));
        };
        self.leases.fetch_add(1, Ordering::SeqCst);
        let id = format!("{name}__id");
        let unary = &*head.path == INFER;
        Decision::Forward(Plan {
            target: target.clone(),
            lease: Lease(self.leases.clone()),
            request_headers: vec![(
                HeaderName::from_static("mm-model-id"),
                HeaderValue::try_from(id.clone()).expect("ascii"),
            )],
            response_headers: vec![(
                HeaderName::from_static("mm-model-id"),
                HeaderValue::try_from(id.clone()).expect("ascii"),
            )],
            request_tail: Some(suffix(&[1], id.as_bytes())),
            response_tail: Some(suffix(if unary { &[1] } else { &[2, 1] }, name.as_bytes())),
            unary,
            max_message: 16 << 20,
            deadline: Time::NEVER,
            subject: None,
        })
    }

    pub(crate) fn leases(&self) -> usize {
        self.leases.load(Ordering::SeqCst)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Policy for ByName {
    type Lease = Lease;

    fn head(&self, head: &Head) -> First<Lease> {
        match &*head.path {
            INFER | STREAM => First::Peek([1].into()),
            LIVE => First::Decide(Decision::Serve),
            other => First::Decide(Decision::Answer(Answer::new(Reason::MN, format!("no method {other}")))),
        }
    }

    fn route(&self, head: &Head, name: Option<&[u8]>) -> Decision<Lease> {
        let header = || head.headers.get("mm-model-id").and_then(|it| it.to_str().ok());
        let Some(name) = name.map_or_else(header, |name| std::str::from_utf8(name).ok()) else {
            return Decision::Answer(Answer::new(Reason::BR, "must include mm-model-id header"));
        };
        let plan = self.plan(head, name, 0);
        if name != "cold" {
            return plan;
        }
        let (mut gate, held) = (self.gate.subscribe(), self.held.clone());
        Decision::Hold(Box::pin(async move {
            held.fetch_add(1, Ordering::SeqCst);
            struct Leaves(Arc<AtomicUsize>);
            impl Drop for Leaves {
                fn drop(&mut self) {
                    self.0.fetch_sub(1, Ordering::SeqCst);
                }
            }
            let _leaves = Leaves(held);
            gate.wait_for(|open| *open).await.expect("the policy lives");
            plan
        }))
    }

    fn usable(&self, _: &Lease) -> bool {
        true
    }

    fn again(&self, head: &Head, name: Option<&[u8]>, lease: Lease, attempt: Attempt) -> Decision<Lease> {
        drop(lease);
        self.attempts.lock().push(attempt.clone());
        let retry = attempt.replayable
            && attempt.tries < 3
            && (attempt.ran == Ran::No || attempt.code == Some(14) && &*head.path == INFER);
        let name = name.and_then(|name| std::str::from_utf8(name).ok());
        match (name, attempt.code) {
            (Some(name), _) if retry => self.plan(head, name, attempt.tries as usize),
            (_, Some(code)) => Decision::Answer(Answer::status(code, attempt.text)),
            _ if attempt.ran == Ran::No => Decision::Answer(Answer::new(Reason::UC, attempt.text)),
            _ => Decision::Answer(Answer::new(Reason::UR, attempt.text)),
        }
    }

    fn revoked(&self, _: &Lease) -> Option<Arc<CancellationToken>> {
        Some(self.revoke.clone())
    }

    fn answered(&self, _: &Lease, _: u32, _: Duration) {}

    fn done(&self, record: &Record) {
        self.records.lock().push(record.clone());
    }
}

impl HttpHandler for Rest {
    fn handle<'a>(&'a self, request: HttpRequest, calls: &'a dyn Caller) -> Local<'a, HttpResponse> {
        Box::pin(async move {
            let body = match request.body.collect(1 << 20).await {
                Ok(body) => body,
                Err(answer) => return answer.into(),
            };
            let Some(name) = request.uri.path().strip_prefix("/infer/") else {
                return HttpResponse { held: vec![body.held], ..HttpResponse::new(http::StatusCode::OK, body.bytes) };
            };
            let id = String::from_utf8_lossy(&body.bytes).into_owned();
            let message = ModelInferRequest { id, ..ModelInferRequest::default() }.encode_to_vec().into();
            let arrived = calls.now();
            let headers = http::HeaderMap::new();
            let head = Head { path: INFER.into(), headers, deadline: Time::NEVER, arrived, noted: Default::default() };
            let name = Some(Bytes::copy_from_slice(name.as_bytes()));
            match calls.call(Call { head, name, message }).await {
                Ok(answer) => {
                    let model = answer.model_id().unwrap_or_default().to_owned();
                    let response = modelring_proto::inference::ModelInferResponse::decode(answer.message);
                    let response = response.expect("is a response");
                    let text = format!("{} {} {}", response.model_name, response.id, model);
                    HttpResponse::new(http::StatusCode::OK, text)
                }
                Err(answer) => answer.into(),
            }
        })
    }
}

pub(crate) fn target(name: &str, address: SocketAddr) -> Arc<Target> {
    confirmed(name, address, true, Arc::default())
}

/// A target that is or is not the one that was meant, and counts how often it was asked.
pub(crate) fn confirmed(name: &str, address: SocketAddr, is_it: bool, asked: Arc<AtomicUsize>) -> Arc<Target> {
    let confirm = Arc::new(move || {
        asked.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move { is_it }) as std::pin::Pin<Box<dyn Future<Output = bool> + Send>>
    });
    Arc::new(Target {
        key: (name.into(), address.to_string().into()),
        address,
        connector: Connector::plaintext(),
        confirm,
        gone: CancellationToken::new(),
    })
}

impl Proxy {
    /// A proxy with models `echo` and `cold` on the server.
    pub(crate) async fn before(upstream: &Upstream) -> Self {
        let target = target("one", upstream.address);
        Self::of([("echo", vec![target.clone()]), ("cold", vec![target])]).await
    }

    pub(crate) async fn of<const N: usize>(targets: [(&str, Vec<Arc<Target>>); N]) -> Self {
        Self::with(Settings { threads: 2, ..Settings::loopback() }, 64 << 20, targets).await
    }

    pub(crate) async fn with<const N: usize>(
        settings: Settings,
        budget: u64,
        targets: [(&str, Vec<Arc<Target>>); N],
    ) -> Self {
        let policy = policy(targets);
        let budget = Budget::new(budget);
        let settings = Settings { drain_delay: Duration::ZERO, grace: Duration::from_secs(5), ..settings };
        let server = Server::start(&settings, services(policy.clone(), budget.clone())).expect("starts");
        Self { server: Some(server), policy, budget }
    }

    pub(crate) fn grpc(&self) -> SocketAddr {
        self.server.as_ref().expect("runs").grpc()
    }

    pub(crate) fn rest(&self) -> SocketAddr {
        self.server.as_ref().expect("runs").rest()
    }

    pub(crate) async fn client(&self) -> GrpcInferenceServiceClient<Channel> {
        connect(self.grpc()).await
    }

    /// Stops, and checks that nothing was left behind.
    pub(crate) async fn stop(mut self) {
        self.server.take().expect("runs").stop().await;
        assert_eq!(self.policy.leases(), 0, "every lease is given back");
        assert_eq!(self.budget.used(), 0, "every held byte is given back");
    }
}

pub(crate) async fn connect(address: SocketAddr) -> GrpcInferenceServiceClient<Channel> {
    let endpoint = Channel::from_shared(format!("http://{address}")).expect("is an address");
    let channel = endpoint.initial_stream_window_size(1 << 20).connect().await.expect("connects");
    GrpcInferenceServiceClient::new(channel).max_decoding_message_size(64 << 20).max_encoding_message_size(64 << 20)
}

pub(crate) fn infer(model: &str, id: &str, raw: impl Into<Bytes>) -> ModelInferRequest {
    ModelInferRequest {
        model_name: model.into(),
        id: id.into(),
        raw_input_contents: vec![raw.into()],
        ..ModelInferRequest::default()
    }
}

/// Waits until something holds, looking often; fails after ten seconds.
pub(crate) async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
}

fn policy<const N: usize>(targets: [(&str, Vec<Arc<Target>>); N]) -> Arc<ByName> {
    Arc::new(ByName {
        targets: targets.into_iter().map(|(name, targets)| (name.to_owned(), targets)).collect(),
        gate: watch::channel(false).0,
        held: Arc::default(),
        revoke: Arc::default(),
        leases: Arc::default(),
        records: Mutex::default(),
        attempts: Mutex::default(),
    })
}

fn services(policy: Arc<ByName>, budget: Arc<Budget>) -> Services<ByName> {
    let local = tonic::service::Routes::new(GrpcInferenceServiceServer::new(crate::upstream::service()));
    Services { policy, http: Arc::new(Rest), local, budget, clock: Clock::boot(), pulse: Pulse::default() }
}

/// A server with no models.
pub(crate) fn start(settings: &Settings) -> Result<Server, modelring_proxy::net::Error> {
    Server::start(settings, services(policy([]), Budget::new(1 << 20)))
}
