//! Steady calls: an open loop over many models by a Zipf law, each call written down.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use modelring_proto::inference::{ModelInferRequest, ModelInferResponse, model_infer_request::InferInputTensor};
use prost::Message;
use rand::{Rng, SeedableRng, rngs::SmallRng};
use tokio::{sync::Semaphore, task::JoinHandle};

use super::connection::{Answer, Connection};
use crate::Zipf;

/// Calls in flight at most: an open loop that is never answered must end too.
const MOST: usize = 4000;
const INFER: &str = "/inference.GRPCInferenceService/ModelInfer";

/// What is called, and how.
#[derive(Clone, Debug)]
pub struct Pattern {
    /// Proxies; each connection begins at another one.
    pub proxies: Vec<SocketAddr>,
    /// Connections.
    pub connections: usize,
    /// Models, `model-00` and so on, each with its number for an answer ([`crate::Folder::add_numbered`]).
    pub models: usize,
    /// Exponent of the Zipf law.
    pub skew: f64,
    /// Calls a second.
    pub rate: f64,
    /// How long a call may take.
    pub deadline: Duration,
}

/// One call.
#[derive(Clone, Debug)]
pub struct Call {
    /// Number of the model.
    pub model: usize,
    /// When it was made.
    pub begin: Instant,
    /// When it was over.
    pub end: Instant,
    /// The proxy that it was sent to at last.
    pub proxy: Option<SocketAddr>,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The answer of its model.
    Right,
    /// The answer of something else.
    Wrong(String),
    /// gRPC code, reason, text.
    Status(u32, String, String),
    /// The connection broke, or no answer came in time.
    Broken(String),
}

/// Steady calls that are going on. They end when this is dropped.
#[derive(Debug)]
pub struct Steady {
    calls: Arc<Mutex<Vec<Call>>>,
    rate: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    open: Arc<Semaphore>,
    task: JoinHandle<()>,
}

/// Name of a numbered model.
#[must_use]
pub fn model(number: usize) -> String {
    format!("model-{number:02}")
}

/// One call of a numbered model.
pub async fn call(connection: &Connection, number: usize, deadline: Duration) -> Call {
    let request = ModelInferRequest {
        model_name: model(number),
        inputs: vec![InferInputTensor {
            name: "x".to_owned(),
            datatype: "FP32".to_owned(),
            shape: vec![1, 3],
            ..InferInputTensor::default()
        }],
        raw_input_contents: vec![vec![0; 12].into()],
        ..ModelInferRequest::default()
    };
    let begin = Instant::now();
    let Answer { proxy, outcome } = connection.call(INFER, &request.encode_to_vec(), deadline).await;
    let outcome = match outcome {
        Err(broken) => Outcome::Broken(broken),
        Ok(told) if told.code == 0 => right(number, &told.message),
        Ok(told) => Outcome::Status(told.code, told.reason, told.text),
    };
    Call { model: number, begin, end: Instant::now(), proxy, outcome }
}

/// Whether this is the answer of that model and no other.
fn right(number: usize, message: &[u8]) -> Outcome {
    let Ok(answer) = ModelInferResponse::decode(message) else {
        return Outcome::Wrong(format!("{} bytes that are no answer", message.len()));
    };
    let expected: Vec<u8> =
        [number as f32 + 1.0, -(number as f32) - 1.0].iter().flat_map(|value| value.to_le_bytes()).collect();
    if answer.model_name == model(number) && answer.raw_output_contents.first().is_some_and(|raw| *raw == expected) {
        Outcome::Right
    } else {
        Outcome::Wrong(format!("of {}: {answer:?}", model(number)))
    }
}

// === impl Steady ===

impl Steady {
    /// Begins to call.
    #[must_use]
    pub fn start(pattern: Pattern) -> Self {
        let calls = Arc::new(Mutex::new(Vec::new()));
        let rate = Arc::new(AtomicU64::new(pattern.rate.to_bits()));
        let stop = Arc::new(AtomicBool::new(false));
        let open = Arc::new(Semaphore::new(MOST));
        let task = tokio::spawn(run(pattern, calls.clone(), rate.clone(), stop.clone(), open.clone()));
        Self { calls, rate, stop, open, task }
    }

    /// Changes the rate.
    pub fn set_rate(&self, rate: f64) {
        self.rate.store(rate.to_bits(), Ordering::Relaxed);
    }

    /// Calls that are not over.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        MOST - self.open.available_permits()
    }

    /// The calls that are over.
    ///
    /// # Panics
    /// Never.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.calls.lock().expect("nothing panics while it holds the list").clone()
    }

    /// Makes no more calls, waits for those in flight, and gives all.
    ///
    /// # Panics
    /// When a call does not end.
    pub async fn stop(mut self) -> Vec<Call> {
        self.stop.store(true, Ordering::Relaxed);
        (&mut self.task).await.expect("the loop does not panic");
        let all = self.open.acquire_many(u32::try_from(MOST).expect("it is few"));
        drop(tokio::time::timeout(Duration::from_secs(120), all).await.expect("every call ends within its deadline"));
        self.calls()
    }
}

impl Drop for Steady {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(
    pattern: Pattern,
    calls: Arc<Mutex<Vec<Call>>>,
    rate: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    open: Arc<Semaphore>,
) {
    let connections: Vec<_> =
        (0..pattern.connections).map(|number| Connection::new(pattern.proxies.clone(), number)).collect();
    let zipf = Zipf::new(pattern.models, pattern.skew);
    let mut random = SmallRng::seed_from_u64(5);
    let mut next = tokio::time::Instant::now();
    for connection in connections.iter().cycle() {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let permit = open.clone().acquire_owned().await.expect("the semaphore is never closed");
        let (number, connection, calls) = (zipf.rank(random.random()), connection.clone(), calls.clone());
        tokio::spawn(async move {
            let call = call(&connection, number, pattern.deadline).await;
            calls.lock().expect("nothing panics while it holds the list").push(call);
            drop(permit);
        });
        next += Duration::from_secs_f64(1.0 / f64::from_bits(rate.load(Ordering::Relaxed)));
        tokio::time::sleep_until(next).await;
    }
}

// === impl Call ===

impl Call {
    /// Whether its model answered.
    #[must_use]
    pub fn is_right(&self) -> bool {
        self.outcome == Outcome::Right
    }

    /// How long it took.
    #[must_use]
    pub fn took(&self) -> Duration {
        self.end - self.begin
    }

    /// Whether it was in flight at this moment, or up to `margin` before or after.
    #[must_use]
    pub fn was_in_flight(&self, at: Instant, margin: Duration) -> bool {
        self.begin <= at + margin && self.end + margin >= at
    }
}

/// Outcomes that are not right, with their numbers, for the text of a failed assertion.
#[must_use]
pub fn failures<'c>(calls: impl IntoIterator<Item = &'c Call>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for call in calls.into_iter().filter(|call| !call.is_right()) {
        *counts.entry(format!("{:?}", call.outcome)).or_default() += 1;
    }
    counts
}

/// The time that so many of a hundred calls took at most.
#[must_use]
pub fn percentile(calls: &[Call], percent: usize) -> Duration {
    let mut took: Vec<Duration> = calls.iter().map(Call::took).collect();
    took.sort();
    took.get((took.len() * percent / 100).min(took.len().saturating_sub(1))).copied().unwrap_or_default()
}
