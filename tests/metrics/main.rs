//! Metrics as a Prometheus scrapes them from real processes, after real calls.

mod documented;
mod scrape;

use std::{io::Read, time::Duration};

use bytes::Bytes;
use harness::{
    Folder, Rest,
    fleet::{Connection, Fleet, FleetSetup, Outcome, beside, call},
};
use http::Request;
use http_body_util::Full;

use scrape::Scrape;

const DEADLINE: Duration = Duration::from_secs(60);
const INFER: [(&str, &str); 1] = [("method", "ModelInfer")];

async fn start(models: usize, setup: FleetSetup) -> (Folder, Fleet) {
    let folder = Folder::with_storage();
    (0..models).for_each(|number| folder.add_numbered(number));
    let fleet = Fleet::start(&folder, setup).await;
    (folder, fleet)
}

#[tokio::test]
async fn the_counts_of_a_proxy_are_the_calls_that_were_made() {
    let (_folder, fleet) = start(2, FleetSetup { proxies: 1, instances: 1, ..FleetSetup::default() }).await;
    let caller = Connection::new(fleet.grpc(), 0);
    for number in [0, 1, 0, 0, 1] {
        assert_eq!(call(&caller, number, DEADLINE).await.outcome, Outcome::Right);
    }
    for _ in 0..3 {
        let outcome = call(&caller, 77, DEADLINE).await.outcome;
        assert!(matches!(&outcome, Outcome::Status(5, reason, _) if reason == "NM"), "{outcome:?}");
    }
    for number in 0..100 {
        caller.call(&format!("/hostile.Service{number}/Method{number}"), &[], DEADLINE).await;
    }
    let rest = fleet.proxies[0].rest;
    let body = r#"{"inputs":[{"name":"x","shape":[1,3],"datatype":"FP32","data":[0,0,0]}]}"#;
    assert_eq!(Rest::send(rest, "POST", "/v2/models/model-00/infer", body).await.status, 200);
    assert_eq!(Rest::send(rest, "POST", "/v2/models/model-00/infer", "{").await.reason(), "BR");
    assert_eq!(Rest::send(rest, "POST", "/v2/models/unknown/infer", body).await.reason(), "NM");

    let shown = Scrape::of(beside(fleet.proxies[0].grpc)).await;
    shown.check_by_promtool();
    let calls = "modelmesh_api_request_milliseconds_count";
    let of = |code: &'static str| [INFER[0], ("code", code)];
    assert_eq!(shown.value(calls, &of("OK")), 6.0, "{}", shown.text);
    assert_eq!(shown.value(calls, &of("NOT_FOUND")), 4.0);
    assert_eq!(shown.values(calls, "method"), ["ModelInfer", "other"].into());
    assert_eq!(shown.value(calls, &[("method", "other")]), 100.0);
    assert_eq!(shown.labels(calls), ["method", "code"]);
    assert_eq!(shown.value("modelmesh_invoke_model_milliseconds_count", &of("OK")), 6.0);
    assert_eq!(shown.value("modelmesh_request_size_bytes_count", &of("OK")), 6.0);
    assert_eq!(shown.value("modelmesh_response_size_bytes_count", &of("OK")), 6.0);
    assert!(shown.value("modelmesh_request_size_bytes_sum", &of("OK")) > 6.0 * 30.0);
    let answers = |reason: &'static str| shown.value("modelring_proxy_answers_total", &[("reason", reason)]);
    assert_eq!((answers("NM"), answers("BR")), (4.0, 101.0), "a name is missing in each of the hostile calls");
    assert!(shown.value("modelmesh_cache_miss_milliseconds_count", &[]) <= 2.0);
    assert_eq!(shown.value("modelring_proxy_ready", &[]), 1.0);
    assert_eq!(shown.value("modelring_proxy_control_connected", &[]), 1.0);
    assert_eq!(shown.value("modelring_proxy_instances", &[("lease", "live")]), 1.0);
    assert_eq!(shown.value("modelring_proxy_table_models", &[]), 2.0);
    assert!(shown.value("modelring_proxy_connections", &[]) >= 1.0, "the caller's");
    documented::assert_all_are_listed(&shown, modelring_proxy::metrics::METRICS);
}

#[tokio::test]
async fn buckets_and_labels_are_those_of_modelmesh() {
    let (_folder, fleet) = start(1, FleetSetup { proxies: 1, instances: 1, ..FleetSetup::default() }).await;
    let caller = Connection::new(fleet.grpc(), 0);
    assert_eq!(call(&caller, 0, DEADLINE).await.outcome, Outcome::Right);
    let proxy = Scrape::of(beside(fleet.proxies[0].grpc)).await;
    let agent = Scrape::of(beside(fleet.instances[0].address)).await;
    let time = "0.5 1.0 2.0 5.0 10.0 20.0 50.0 75.0 100.0 200.0 500.0 1000.0 2000.0 5000.0 10000.0 20000.0 60000.0 120000.0 \
                300000.0 +Inf";
    for name in [
        "modelmesh_api_request_milliseconds",
        "modelmesh_invoke_model_milliseconds",
        "modelmesh_cache_miss_milliseconds",
    ] {
        assert_eq!(proxy.bounds(name).join(" "), time, "{name}");
    }
    let age = "30000.0 300000.0 900000.0 3600000.0 14400000.0 43200000.0 86400000.0 604800000.0 2592000000.0 7776000000.0 +Inf";
    assert_eq!(agent.bounds("modelmesh_loadmodel_milliseconds").join(" "), time);
    assert_eq!(agent.bounds("modelmesh_age_at_eviction_milliseconds").join(" "), age);
    let message = "128.0 512.0 2048.0 8192.0 32768.0 131072.0 524288.0 2097152.0 +Inf";
    assert_eq!(proxy.bounds("modelmesh_request_size_bytes").join(" "), message);
    assert_eq!(proxy.bounds("modelmesh_response_size_bytes").join(" "), message);
    let model = "262144.0 1048576.0 4194304.0 16777216.0 67108864.0 268435456.0 1073741824.0 4294967296.0 +Inf";
    assert_eq!(agent.bounds("modelmesh_loaded_model_size_bytes").join(" "), model);
}

#[tokio::test]
async fn an_agent_counts_what_it_loads_and_evicts() {
    let setup = FleetSetup {
        proxies: 1,
        instances: 1,
        room: 2,
        load_delay: Duration::from_millis(50),
        agent_flags: ["--min-churn-age", "1ms"].map(String::from).into(),
        ..FleetSetup::default()
    };
    let size = setup.size as f64;
    let (folder, fleet) = start(4, setup).await;
    folder.add_isvc("missing", "affine/none.onnx");
    let caller = Connection::new(fleet.grpc(), 0);
    for number in [0, 1, 2, 3] {
        let outcome = call(&caller, number, DEADLINE).await.outcome;
        assert_eq!(outcome, Outcome::Right, "model {number}");
    }
    let agent = beside(fleet.instances[0].address);
    let mut shown = Scrape::of(agent).await;
    let deadline = std::time::Instant::now() + harness::fleet::SOON;
    while shown.value("modelmesh_loadmodel_failure", &[]) < 1.0 {
        assert!(std::time::Instant::now() < deadline, "the missing model has not failed: {}", shown.text);
        tokio::time::sleep(Duration::from_millis(50)).await;
        shown = Scrape::of(agent).await;
    }
    shown.check_by_promtool();
    let proxy = Scrape::of(beside(fleet.proxies[0].grpc)).await;
    let misses = proxy.value("modelmesh_cache_miss_milliseconds_count", &[]);
    assert!(misses >= 2.0, "of four models at least two were not loaded when they were called: {}", proxy.text);
    assert!(proxy.value("modelmesh_cache_miss_milliseconds_sum", &[]) >= misses * 10.0);
    let value = |name: &str| shown.value(name, &[]);
    let loads = value("modelmesh_loadmodel_milliseconds_count");
    // A load may be under way.
    assert!(loads <= fleet.loads("") as f64, "{}", shown.text);
    assert!(loads >= 4.0 && value("modelmesh_loadmodel_milliseconds_sum") >= loads * 50.0);
    assert_eq!(value("modelmesh_loaded_model_size_bytes_sum"), loads * size);
    assert!(value("modelmesh_loading_queue_delay_milliseconds_count") >= loads);
    let evictions = value("modelmesh_age_at_eviction_milliseconds_count");
    assert!(evictions >= 2.0, "{}", shown.text);
    assert_eq!(shown.value("modelring_agent_drains_total", &[("cause", "room"), ("outcome", "unloaded")]), evictions);
    assert!(value("modelmesh_unloadmodel_milliseconds_count") >= 2.0);
    assert_eq!(value("modelmesh_unloadmodel_attempt_failure"), 0.0);
    assert_eq!(value("modelmesh_instance_capacity_bytes"), 2.0 * size);
    let used = value("modelmesh_instance_used_bytes");
    assert!(used > 0.0 && used <= 2.0 * size);
    assert_eq!(value("modelmesh_instance_used_bps"), (used / (2.0 * size) * 10_000.0).floor());
    assert_eq!(value("modelring_agent_memory_bytes"), 2.0 * size, "the parts are the whole");
    assert!(value("modelmesh_instance_models_total") >= 1.0);
    let now =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("it is after 1970").as_secs_f64();
    let lru = value("modelmesh_instance_lru_seconds");
    assert!(lru <= now && lru > now - 600.0, "{lru}");
    assert!(value("modelmesh_instance_lru_age_seconds") <= now - lru + 1.0);
    assert_eq!(value("modelring_agent_pulled_bytes_total").rem_euclid(1.0), 0.0);
    assert!(shown.value("modelring_agent_pulls_total", &[("result", "done")]) >= 4.0);
    assert_eq!(shown.value("modelring_agent_watchers", &[("role", "proxy")]), 1.0);
    assert_eq!(shown.value("modelring_agent_watchers", &[("role", "control")]), 1.0);
    assert_eq!(value("modelring_agent_model_server_ready"), 1.0);
    documented::assert_all_are_listed(&shown, modelring_agent::metrics::METRICS);
}

#[tokio::test]
async fn control_shows_the_models_of_all_and_no_other_process_does() {
    let (folder, fleet) = start(2, FleetSetup { proxies: 2, instances: 2, ..FleetSetup::default() }).await;
    folder.add_isvc("missing", "affine/none.onnx");
    let caller = Connection::new(fleet.grpc(), 0);
    for number in [0, 1] {
        assert_eq!(call(&caller, number, DEADLINE).await.outcome, Outcome::Right);
    }
    let control = beside(fleet.control.listens);
    let mut shown = Scrape::of(control).await;
    let deadline = std::time::Instant::now() + harness::fleet::SOON;
    let settled = |shown: &Scrape| {
        shown.value("modelmesh_models_with_failure_total", &[]) == 1.0
            && shown.value("modelmesh_models_loaded_total", &[]) == 2.0
            && shown.value("modelring_control_proxies", &[("table", "current")]) == 2.0
    };
    while !settled(&shown) {
        assert!(std::time::Instant::now() < deadline, "{}", shown.text);
        tokio::time::sleep(Duration::from_millis(50)).await;
        shown = Scrape::of(control).await;
    }
    shown.check_by_promtool();
    assert_eq!(shown.value("modelmesh_models_managed_total", &[]), 3.0);
    assert_eq!(shown.value("modelring_control_agents", &[("state", "live")]), 2.0);
    assert_eq!(shown.value("modelring_control_source_frozen", &[]), 0.0);
    assert!(
        shown.value("modelring_control_epoch", &[]) >= 1.0
            && shown.value("modelring_control_table_version", &[]) >= 1.0
    );
    documented::assert_all_are_listed(&shown, modelring_control::metrics::METRICS);
    for other in [beside(fleet.proxies[0].grpc), beside(fleet.instances[0].address)] {
        let other = Scrape::of(other).await;
        for name in ["models_managed_total", "models_loaded_total", "models_with_failure_total"] {
            assert!(!other.families.contains_key(&format!("modelmesh_{name}")), "{}", other.text);
        }
    }
}

#[tokio::test]
async fn the_endpoint_filters_by_name_and_zips_if_asked() {
    let (_folder, fleet) = start(0, FleetSetup { proxies: 1, instances: 1, ..FleetSetup::default() }).await;
    let address = beside(fleet.instances[0].address);
    let filtered = Rest::send(
        address,
        "GET",
        "/metrics?name[]=modelmesh_instance_capacity_bytes&name%5B%5D=modelmesh_loadmodel_milliseconds_count",
        "",
    );
    let filtered = filtered.await.text();
    let lines: Vec<&str> = filtered.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(lines, ["modelmesh_loadmodel_milliseconds_count 0", "modelmesh_instance_capacity_bytes 83886080"]);

    let request = Request::builder().uri("/metrics").header("host", "x").header("accept-encoding", "gzip");
    let zipped = Rest::request(address, request.body(Full::new(Bytes::new())).expect("it is well-formed")).await;
    assert_eq!(zipped.headers["content-encoding"], "gzip");
    let mut text = String::new();
    flate2::read::GzDecoder::new(&zipped.body[..]).read_to_string(&mut text).expect("it is gzip");
    assert!(Scrape::read(text).families.contains_key("process_resident_memory_bytes"));
    assert_eq!(Rest::send(address, "POST", "/metrics", "").await.status, 405);
    assert_eq!(Rest::send(address, "GET", "/elsewhere", "").await.status, 404);
}

#[tokio::test]
async fn mm_metrics_and_mm_info_metrics_are_understood() {
    let (_folder, mut fleet) = start(1, FleetSetup { proxies: 1, instances: 1, ..FleetSetup::default() }).await;
    let proxy = &mut fleet.proxies[0];
    proxy.part.environment = vec![
        ("MM_METRICS".to_owned(), "prometheus:port=2112;scheme=http;fq_names=true;per_model_metrics=true".to_owned()),
        ("MM_INFO_METRICS".to_owned(), "mesh_info;region=MESH_REGION".to_owned()),
        ("MESH_REGION".to_owned(), "north".to_owned()),
    ];
    proxy.part.kill_and_start();
    fleet.wait_until_ready(0).await;
    let caller = Connection::new(fleet.grpc(), 0);
    assert_eq!(call(&caller, 0, DEADLINE).await.outcome, Outcome::Right);
    let shown = Scrape::of(beside(fleet.proxies[0].grpc)).await;
    shown.check_by_promtool();
    let calls = "modelmesh_api_request_milliseconds_count";
    assert_eq!(shown.labels(calls), ["method", "code", "modelId", "vModelId"]);
    assert_eq!(shown.values(calls, "method"), ["inference.GRPCInferenceService/ModelInfer"].into());
    assert_eq!(shown.values(calls, "vModelId"), ["model-00"].into());
    assert!(shown.values(calls, "modelId").first().is_some_and(|id| id.starts_with("model-00__")));
    assert_eq!(shown.value("mesh_info", &[("region", "north")]), 1.0);
}

#[tokio::test]
async fn every_process_shows_what_it_uses() {
    let (_folder, fleet) = start(0, FleetSetup { proxies: 1, instances: 1, ..FleetSetup::default() }).await;
    let listens = [fleet.proxies[0].grpc, fleet.instances[0].address, fleet.control.listens];
    for (part, name) in listens.into_iter().zip(["proxy", "agent", "control"]) {
        let shown = Scrape::of(beside(part)).await;
        assert_eq!(shown.value("modelring_build_info", &[("process", name)]), 1.0);
        assert!(shown.value("process_resident_memory_bytes", &[]) > 1e6);
        assert!(shown.value("process_open_fds", &[]) > 5.0);
        documented::assert_all_are_listed(&shown, &[]);
    }
}
