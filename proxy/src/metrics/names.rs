//! The metrics of a proxy. Those named `modelmesh_...` are ModelMesh's, with its labels and buckets.

use modelring_process::metrics::Metric;

const BY_METHOD: &[&str] = &["method", "code"];
const BY_MODEL: &[&str] = &["method", "code", "modelId", "vModelId"];

macro_rules! by_call {
    ($($(#[$doc:meta])* $name:ident, $by_model:ident = $text:literal, $help:literal;)*) => {
        $(
            pub(super) static $name: Metric = Metric::histogram($text, BY_METHOD, $help);
            pub(super) static $by_model: Metric = Metric::histogram($text, BY_MODEL, $help);
        )*
    };
}

by_call! {
    API_REQUEST, API_REQUEST_BY_MODEL = "modelmesh_api_request_milliseconds",
        "Whole time of calls, waits for loads included, in milliseconds.";
    INVOKE_MODEL, INVOKE_MODEL_BY_MODEL = "modelmesh_invoke_model_milliseconds",
        "Time of calls to model servers, each attempt by itself, in milliseconds.";
    REQUEST_SIZE, REQUEST_SIZE_BY_MODEL = "modelmesh_request_size_bytes",
        "Request messages of the calls that went to a model server, in bytes.";
    RESPONSE_SIZE, RESPONSE_SIZE_BY_MODEL = "modelmesh_response_size_bytes",
        "Response messages of the calls that went to a model server, in bytes.";
}

pub(super) static CACHE_MISS: Metric = Metric::histogram(
    "modelmesh_cache_miss_milliseconds",
    &[],
    "Wait of calls that were held for a load for more than 10 ms, in milliseconds.",
);
pub(super) static QUEUE_DELAY: Metric = Metric::histogram(
    "modelmesh_req_queue_delay_milliseconds",
    &[],
    "Wait of calls for their turn on a copy with a concurrency limit, in milliseconds.",
);
pub(super) static ANSWERS: Metric = Metric::counter(
    "modelring_proxy_answers_total",
    &["reason", "code"],
    "Answers that the proxy made itself, by their two-letter reason.",
);
pub(super) static RETRIES: Metric = Metric::counter(
    "modelring_proxy_retries_total",
    &["cause"],
    "Calls that were sent again, by what ended the attempt.",
);
pub(super) static RETRIES_REFUSED: Metric = Metric::counter(
    "modelring_proxy_retries_refused_total",
    &[],
    "Calls that were not sent again because the retry budget was spent.",
);
pub(super) static DENIED: Metric = Metric::counter(
    "modelring_proxy_denied_models_total",
    &[],
    "Times that a model server denied a model which should be ready, and its agent was told.",
);
pub(super) static WAITING: Metric = Metric::gauge(
    "modelring_proxy_waiting_calls",
    &["for"],
    "Calls that wait for a load, or for their turn on a copy.",
);
pub(super) static WAITED_MODELS: Metric =
    Metric::gauge("modelring_proxy_waited_models", &[], "Models that calls wait for.");
pub(super) static HELD: Metric = Metric::gauge(
    "modelring_proxy_held_bytes",
    &[],
    "Bytes held for slow readers, waiting calls and replays, in bytes.",
);
pub(super) static HELD_LIMIT: Metric =
    Metric::gauge("modelring_proxy_held_bytes_limit", &[], "Bytes that may be held, in bytes.");
pub(super) static CONNECTIONS: Metric =
    Metric::gauge("modelring_proxy_connections", &["thread"], "Connections of callers, by thread.");
pub(super) static STREAMS: Metric =
    Metric::gauge("modelring_proxy_streams", &["thread"], "Calls in flight, by thread.");
pub(super) static READY: Metric = Metric::gauge("modelring_proxy_ready", &[], "1 while the proxy takes calls.");
pub(super) static CONTROL: Metric =
    Metric::gauge("modelring_proxy_control_connected", &[], "1 while the proxy is connected to control.");
pub(super) static TABLE_EPOCH: Metric =
    Metric::gauge("modelring_proxy_table_epoch", &[], "Epoch of the table in force.");
pub(super) static TABLE_VERSION: Metric =
    Metric::gauge("modelring_proxy_table_version", &[], "Number of the table in force within its epoch.");
pub(super) static TABLE_AGE: Metric =
    Metric::gauge("modelring_proxy_table_age_seconds", &[], "Time since the table in force was taken, in seconds.");
pub(super) static TABLE_MODELS: Metric =
    Metric::gauge("modelring_proxy_table_models", &[], "Models of the table in force.");
pub(super) static INSTANCES: Metric = Metric::gauge(
    "modelring_proxy_instances",
    &["lease"],
    "Listed instances by what the proxy may believe of them: live, ejected, leaving, expired, or unknown (not yet heard).",
);

/// What a proxy shows.
pub static METRICS: &[&Metric] = &[
    &API_REQUEST,
    &INVOKE_MODEL,
    &REQUEST_SIZE,
    &RESPONSE_SIZE,
    &CACHE_MISS,
    &QUEUE_DELAY,
    &ANSWERS,
    &RETRIES,
    &RETRIES_REFUSED,
    &DENIED,
    &WAITING,
    &WAITED_MODELS,
    &HELD,
    &HELD_LIMIT,
    &CONNECTIONS,
    &STREAMS,
    &READY,
    &CONTROL,
    &TABLE_EPOCH,
    &TABLE_VERSION,
    &TABLE_AGE,
    &TABLE_MODELS,
    &INSTANCES,
];
