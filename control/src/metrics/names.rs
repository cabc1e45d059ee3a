//! The metrics of control. Those named `modelmesh_...` are ModelMesh's; here they come from one place.

use modelring_process::metrics::Metric;

pub(super) static MODELS_MANAGED: Metric =
    Metric::gauge("modelmesh_models_managed_total", &[], "Models of the table in force.");
pub(super) static MODELS_LOADED: Metric =
    Metric::gauge("modelmesh_models_loaded_total", &[], "Models that are ready on at least one instance.");
pub(super) static MODELS_FAILED: Metric =
    Metric::gauge("modelmesh_models_with_failure_total", &[], "Models with a failure to load that still counts.");
pub(super) static SERVICES: Metric = Metric::gauge(
    "modelring_control_services",
    &["state"],
    "InferenceServices: steady, changing to another model, troubled.",
);
pub(super) static WANTED: Metric =
    Metric::gauge("modelring_control_wanted_copies", &[], "Copies that models should have, over all models.");
pub(super) static READY: Metric =
    Metric::gauge("modelring_control_ready_copies", &[], "Copies that are ready, over all models.");
pub(super) static ASKS: Metric = Metric::gauge(
    "modelring_control_open_asks",
    &[],
    "Loads that control has asked agents for and that have not ended.",
);
pub(super) static AGENTS: Metric = Metric::gauge(
    "modelring_control_agents",
    &["state"],
    "Listed agents: live (heard under a lease), silent (not heard yet, or no more), unreachable (it cannot be watched, or \
     is refused).",
);
pub(super) static NOT_ACCEPTING: Metric =
    Metric::gauge("modelring_control_instances_not_accepting", &[], "Instances that get no new copies for now.");
pub(super) static PROXIES: Metric = Metric::gauge(
    "modelring_control_proxies",
    &["table"],
    "Connected proxies by whether the newest table is in force there: current or behind.",
);
pub(super) static REFUSING: Metric = Metric::gauge(
    "modelring_control_proxies_refusing",
    &[],
    "Proxies that refused a table and have not taken one since.",
);
pub(super) static OBSERVERS: Metric = Metric::gauge("modelring_control_observers", &[], "Connected observers.");
pub(super) static EPOCH: Metric = Metric::gauge("modelring_control_epoch", &[], "Epoch of this control.");
pub(super) static VERSION: Metric = Metric::gauge(
    "modelring_control_table_version",
    &[],
    "Number of the newest table within its epoch; 0 before the first.",
);
pub(super) static FROZEN: Metric = Metric::gauge(
    "modelring_control_source_frozen",
    &[],
    "1 while the source of manifests cannot be believed and the last state stays.",
);
pub(super) static NOTICES: Metric =
    Metric::gauge("modelring_control_notices", &[], "Things that are wrong in the desired state or its execution.");

/// What control shows.
pub static METRICS: &[&Metric] = &[
    &MODELS_MANAGED,
    &MODELS_LOADED,
    &MODELS_FAILED,
    &SERVICES,
    &WANTED,
    &READY,
    &ASKS,
    &AGENTS,
    &NOT_ACCEPTING,
    &PROXIES,
    &REFUSING,
    &OBSERVERS,
    &EPOCH,
    &VERSION,
    &FROZEN,
    &NOTICES,
];
