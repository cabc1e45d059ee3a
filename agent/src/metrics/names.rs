//! The metrics of an agent. Those named `modelmesh_...` are ModelMesh's, with its buckets.

use modelring_process::metrics::{Buckets, Metric};

/// Seconds, observed in microseconds.
pub(super) static PULL_TIME: Buckets = Buckets {
    bounds: &[
        10_000,
        50_000,
        100_000,
        500_000,
        1_000_000,
        5_000_000,
        10_000_000,
        30_000_000,
        60_000_000,
        300_000_000,
        1_800_000_000,
    ],
    per: 1e6,
};

pub(super) static LOAD: Metric = Metric::histogram(
    "modelmesh_loadmodel_milliseconds",
    &[],
    "Time of successful loads, from their place in memory to ready (pull included), in milliseconds.",
);
pub(super) static LOAD_FAILURE: Metric = Metric::counter("modelmesh_loadmodel_failure", &[], "Loads that failed.");
pub(super) static QUEUE_DELAY: Metric = Metric::histogram(
    "modelmesh_loading_queue_delay_milliseconds",
    &[],
    "Wait of loads for their place, in milliseconds.",
);
pub(super) static SIZING: Metric = Metric::histogram(
    "modelmesh_model_sizing_milliseconds",
    &[],
    "Time of calls that ask a model server for the size of a loaded model, in milliseconds.",
);
pub(super) static MODEL_SIZE: Metric =
    Metric::histogram("modelmesh_loaded_model_size_bytes", &[], "Memory of loaded models, in bytes.");
pub(super) static UNLOAD: Metric = Metric::histogram(
    "modelmesh_unloadmodel_milliseconds",
    &[],
    "Time of unloads until the model server confirmed them, in milliseconds.",
);
pub(super) static UNLOAD_ATTEMPT_FAILURE: Metric =
    Metric::counter("modelmesh_unloadmodel_attempt_failure", &[], "Attempts to unload that failed.");
pub(super) static UNLOAD_FAILURE: Metric = Metric::counter(
    "modelmesh_unloadmodel_failure",
    &[],
    "Unloads that were not confirmed within a minute; they are tried on.",
);
pub(super) static AGE_AT_EVICTION: Metric = Metric::histogram(
    "modelmesh_age_at_eviction_milliseconds",
    &[],
    "How long evicted copies had been unused, in milliseconds.",
);
pub(super) static LRU: Metric = Metric::gauge(
    "modelmesh_instance_lru_seconds",
    &[],
    "Last use of the copy that has been unused for longest, in seconds since 1970; huge while there is none.",
);
pub(super) static LRU_AGE: Metric = Metric::gauge(
    "modelmesh_instance_lru_age_seconds",
    &[],
    "How long the copy that has been unused for longest has been so, in seconds; 0 while there is none.",
);
pub(super) static CAPACITY: Metric =
    Metric::gauge("modelmesh_instance_capacity_bytes", &[], "Memory for models, in bytes.");
pub(super) static USED: Metric = Metric::gauge(
    "modelmesh_instance_used_bytes",
    &[],
    "Memory taken by models, in bytes: loaded, reserved, unloading.",
);
pub(super) static USED_BPS: Metric =
    Metric::gauge("modelmesh_instance_used_bps", &[], "Used memory in ten-thousandths of the capacity.");
pub(super) static MODELS: Metric =
    Metric::gauge("modelmesh_instance_models_total", &[], "Copies that are loading, ready or draining.");

pub(super) static LEDGER: Metric = Metric::gauge(
    "modelring_agent_memory_bytes",
    &["part"],
    "The account of the memory for models, in bytes: loaded, reserved for loads, unloading, free.",
);
pub(super) static OVERRUN: Metric = Metric::gauge(
    "modelring_agent_overrun_bytes",
    &[],
    "Memory above the capacity because models turned out larger than what was reserved for them, in bytes.",
);
pub(super) static COPIES: Metric = Metric::gauge("modelring_agent_models", &["state"], "Models by state.");
pub(super) static HUNG: Metric = Metric::gauge(
    "modelring_agent_hung_loads",
    &[],
    "Loads that the model server has not answered within four load timeouts.",
);
pub(super) static VICTIM_AGE: Metric = Metric::gauge(
    "modelring_agent_next_victim_age_seconds",
    &[],
    "How long the copy that would be evicted next has been unused, in seconds; absent while nothing may go.",
);
pub(super) static DRAINS: Metric = Metric::counter(
    "modelring_agent_drains_total",
    &["cause", "outcome"],
    "Drains of copies that have ended, by cause (room, overrun, too_large, gone, leave) and outcome (unloaded, \
     called_off, lost with the server).",
);
pub(super) static REFUSALS: Metric =
    Metric::counter("modelring_agent_refusals_total", &["reason"], "Loads that were refused, by reason.");
pub(super) static PULLS: Metric = Metric::counter(
    "modelring_agent_pulls_total",
    &["result"],
    "Times that files of a model were needed: done (brought), disk (they were there), failed.",
);
pub(super) static PULLED_BYTES: Metric =
    Metric::counter("modelring_agent_pulled_bytes_total", &[], "Bytes of the files that were brought.");
pub(super) static PULL_SECONDS: Metric =
    Metric::histogram("modelring_agent_pull_seconds", &[], "Time to bring the files of a model, in seconds.");
pub(super) static WATCHERS: Metric =
    Metric::gauge("modelring_agent_watchers", &["role"], "Open watches by who watches: proxy, control, observer.");
pub(super) static WAITERS: Metric = Metric::gauge("modelring_agent_waiters", &[], "Open calls that wait for a load.");
pub(super) static SERVER_READY: Metric = Metric::gauge(
    "modelring_agent_model_server_ready",
    &[],
    "1 while the model server is there and its handshake is done.",
);
pub(super) static SERVER_STARTS: Metric =
    Metric::counter("modelring_agent_model_server_starts_total", &[], "Handshakes with a process of the model server.");
pub(super) static LEAVING: Metric = Metric::gauge("modelring_agent_leaving", &[], "1 once the instance is going away.");

/// What an agent shows.
pub static METRICS: &[&Metric] = &[
    &LOAD,
    &LOAD_FAILURE,
    &QUEUE_DELAY,
    &SIZING,
    &MODEL_SIZE,
    &UNLOAD,
    &UNLOAD_ATTEMPT_FAILURE,
    &UNLOAD_FAILURE,
    &AGE_AT_EVICTION,
    &LRU,
    &LRU_AGE,
    &CAPACITY,
    &USED,
    &USED_BPS,
    &MODELS,
    &LEDGER,
    &OVERRUN,
    &COPIES,
    &HUNG,
    &VICTIM_AGE,
    &DRAINS,
    &REFUSALS,
    &PULLS,
    &PULLED_BYTES,
    &PULL_SECONDS,
    &WATCHERS,
    &WAITERS,
    &SERVER_READY,
    &SERVER_STARTS,
    &LEAVING,
];
