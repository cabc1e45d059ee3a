use std::{collections::BTreeSet, time::Duration};

use modelring_process::metrics::{Options, Page};

use super::*;

const INFER: &str = "/inference.GRPCInferenceService/ModelInfer";

fn record(path: &str, code: u32, subject: Option<Subject>) -> Record {
    Record {
        path: path.into(),
        code,
        reason: None,
        tries: 1,
        took: Duration::from_millis(3),
        held: Duration::ZERO,
        served: false,
        bytes: Some((200, 90)),
        subject,
    }
}

fn shown(metrics: &Metrics) -> String {
    let mut page = Page::default();
    metrics.show(&mut page);
    page.into_text()
}

/// Values of one label over all lines of a metric.
fn values(text: &str, metric: &str, label: &str) -> BTreeSet<String> {
    let lines = text.lines().filter(|line| line.starts_with(&format!("{metric}{{")));
    let value =
        |line: &str| line.split(&format!("{label}=\"")).nth(1).and_then(|rest| rest.split('"').next()).map(Into::into);
    lines.filter_map(value).collect()
}

#[test]
fn calls_of_all_threads_are_added_up_by_method_and_code() {
    let metrics = Metrics::new(&Options::default(), 3);
    std::thread::scope(|scope| {
        for _ in 0..5 {
            scope.spawn(|| {
                for _ in 0..20 {
                    metrics.invoked(INFER, None, 0, Duration::from_millis(2));
                    metrics.call(&record(INFER, 0, None));
                }
                metrics.call(&Record { reason: Some(Reason::NM), bytes: None, ..record(INFER, 5, None) });
                metrics.call(&Record { served: true, ..record("/grpc.health.v1.Health/Check", 0, None) });
            });
        }
    });
    let text = shown(&metrics);
    for line in [
        "modelmesh_api_request_milliseconds_count{method=\"ModelInfer\",code=\"OK\"} 100",
        "modelmesh_api_request_milliseconds_bucket{method=\"ModelInfer\",code=\"OK\",le=\"2.0\"} 0",
        "modelmesh_api_request_milliseconds_bucket{method=\"ModelInfer\",code=\"OK\",le=\"5.0\"} 100",
        "modelmesh_api_request_milliseconds_count{method=\"ModelInfer\",code=\"NOT_FOUND\"} 5",
        "modelmesh_invoke_model_milliseconds_sum{method=\"ModelInfer\",code=\"OK\"} 200.0",
        "modelmesh_request_size_bytes_sum{method=\"ModelInfer\",code=\"OK\"} 20000.0",
        "modelmesh_response_size_bytes_bucket{method=\"ModelInfer\",code=\"OK\",le=\"128.0\"} 100",
        "modelring_proxy_answers_total{reason=\"NM\",code=\"NOT_FOUND\"} 5",
    ] {
        assert!(text.lines().any(|shown| shown == line), "{line}\n{text}");
    }
    assert!(!text.contains("Check"), "what the proxy answers for itself is no call of a model");
    assert!(!text.contains("request_size_bytes_count{method=\"ModelInfer\",code=\"NOT_FOUND\"}"));
}

#[test]
fn hostile_method_names_share_one_label() {
    let metrics = Metrics::new(&Options::default(), 2);
    for n in 0..10_000 {
        metrics.call(&record(&format!("/x.Y/M{n}"), 12, None));
        metrics.invoked(&format!("/x.Y/M{n}"), None, 12, Duration::ZERO);
    }
    metrics.call(&record(INFER, 0, None));
    let text = shown(&metrics);
    let methods = values(&text, "modelmesh_api_request_milliseconds_count", "method");
    assert_eq!(methods, ["ModelInfer", "other"].map(String::from).into());
    assert!(text.contains("modelmesh_api_request_milliseconds_count{method=\"other\",code=\"UNIMPLEMENTED\"} 10000\n"));
}

#[test]
fn methods_that_a_server_answers_well_are_named_up_to_a_bound() {
    let metrics = Metrics::new(&Options::default(), 1);
    for n in 0..10_000 {
        metrics.invoked(&format!("/x.Y/M{n}"), None, 0, Duration::ZERO);
    }
    let methods = values(&shown(&metrics), "modelmesh_invoke_model_milliseconds_count", "method");
    assert!(methods.contains("M0") && methods.contains("other"));
    assert!(methods.len() <= methods::MOST, "{}", methods.len());
}

#[test]
fn by_model_calls_carry_both_ids_and_further_models_share_a_label() {
    let options = Options::default().with_per_model(true);
    let metrics = Metrics::new(&options, 1);
    let of = |n: u32| Some(Subject { model: format!("mnist__isvc-{n}").into(), vmodel: "mnist".into() });
    metrics.call(&record(INFER, 5, None));
    for n in 0..5_000 {
        metrics.call(&record(INFER, 0, of(n)));
    }
    let text = shown(&metrics);
    let first = "modelmesh_api_request_milliseconds_count{method=\"ModelInfer\",code=\"OK\",modelId=\"mnist__isvc-0\",vModelId=\"mnist\"} 1\n";
    assert!(text.contains(first));
    assert!(text.contains("{method=\"ModelInfer\",code=\"NOT_FOUND\",modelId=\"\",vModelId=\"\"} 1\n"));
    let models = values(&text, "modelmesh_api_request_milliseconds_count", "modelId");
    assert!(models.contains("_other") && models.len() < 2_100, "{}", models.len());
}
