//! Paths.

use http::Method;
use modelring_proxy::rest::route::{Model, Route, Stray, route};

fn model(name: &str, version: &str) -> Model {
    Model { name: name.to_owned(), version: version.to_owned() }
}

fn get(target: &str) -> Result<Route, Stray> {
    route(&Method::GET, target)
}

fn post(target: &str) -> Result<Route, Stray> {
    route(&Method::POST, target)
}

#[test]
fn infer_names_the_model() {
    assert_eq!(post("/v2/models/mnist/infer"), Ok(Route::Infer(model("mnist", ""))));
    assert_eq!(post("/v2/models/m%20n%C3%A9/infer?id=7"), Ok(Route::Infer(model("m né", ""))));
    assert_eq!(post("/v2/models/versions/infer"), Ok(Route::Infer(model("versions", ""))));
}

#[test]
fn infer_takes_a_version() {
    assert_eq!(post("/v2/models/mnist/versions/2/infer"), Ok(Route::Infer(model("mnist", "2"))));
}

#[test]
fn metadata_names_the_model() {
    assert_eq!(get("/v2/models/mnist"), Ok(Route::Metadata(model("mnist", ""))));
}

#[test]
fn metadata_takes_a_version_in_the_path_or_in_the_query() {
    assert_eq!(get("/v2/models/mnist/versions/3"), Ok(Route::Metadata(model("mnist", "3"))));
    assert_eq!(get("/v2/models/mnist?version=3"), Ok(Route::Metadata(model("mnist", "3"))));
    assert_eq!(get("/v2/models/mnist?x=1&version=a+b%21"), Ok(Route::Metadata(model("mnist", "a b!"))));
    assert_eq!(get("/v2/models/mnist/versions/3?version=4"), Ok(Route::Metadata(model("mnist", "3"))));
}

#[test]
fn health_has_two_paths() {
    assert_eq!(get("/v2/health/live"), Ok(Route::Live));
    assert_eq!(get("/v2/health/ready"), Ok(Route::Ready));
}

#[test]
fn readiness_of_a_model_takes_a_version() {
    assert_eq!(get("/v2/models/m/ready"), Ok(Route::ModelReady(model("m", ""))));
    assert_eq!(get("/v2/models/m/versions/1/ready"), Ok(Route::ModelReady(model("m", "1"))));
}

#[test]
fn the_server_is_described_with_or_without_a_slash() {
    assert_eq!(get("/v2"), Ok(Route::Server));
    assert_eq!(get("/v2/"), Ok(Route::Server));
}

#[test]
fn repository_paths_say_where_models_are_managed() {
    for target in ["/v2/repository/index", "/v2/repository/models/m/load", "/v2/repository/models/m/unload"] {
        let stray = post(target).expect_err(target);
        let answer = stray.answer();
        assert_eq!((answer.code, answer.http), (12, 501));
        assert!(answer.text.contains("InferenceService"), "{}", answer.text);
    }
}

#[test]
fn paths_of_other_protocols_are_not_found() {
    for target in [
        "/v2/models/m/generate",
        "/v2/models/m/generate_stream",
        "/v2/models/m/versions/1/generate",
        "/v2/models/m/stats",
        "/v2/models/m/config",
        "/v2/trace/setting",
        "/v2/systemsharedmemory/status",
        "/v1/models/m:predict",
    ] {
        assert_eq!(post(target), Err(Stray::NotFound), "{target}");
        assert_eq!(get(target), Err(Stray::NotFound), "{target}");
    }
}

#[test]
fn a_name_is_one_segment_and_no_slash_may_follow() {
    for target in [
        "/v2/models/a%2Fb/infer",
        "/v2/models/a/b/infer",
        "/v2/models/a/infer/",
        "/v2/models/a/versions/1%2f2/infer",
        "/v2/models/a/versions//infer",
        "/v2/models//infer",
        "/v2/models/a/versions/",
        "/v2/models/",
        "/v2/models/a/",
        "/v2/health/live/",
    ] {
        assert_eq!(post(target), Err(Stray::NotFound), "{target}");
        assert_eq!(get(target), Err(Stray::NotFound), "{target}");
    }
}

#[test]
fn an_unknown_path_is_not_found() {
    for target in ["/", "/v2/model", "/v3", "//v2", "*", ""] {
        let answer = get(target).expect_err(target).answer();
        assert_eq!((answer.code, answer.http, answer.text.as_str()), (5, 404, "Not Found"));
    }
}

#[test]
fn a_wrong_method_is_told_the_right_one() {
    for (method, target, allow) in [
        (Method::GET, "/v2/models/m/infer", "POST"),
        (Method::POST, "/v2/models/m", "GET"),
        (Method::POST, "/v2/health/live", "GET"),
        (Method::OPTIONS, "/v2/models/m/infer", "POST"),
        (Method::HEAD, "/v2", "GET"),
    ] {
        let stray = route(&method, target).expect_err(target);
        let answer = stray.answer();
        assert_eq!((answer.code, answer.http, answer.text.as_str()), (12, 405, "Method Not Allowed"));
        assert_eq!(stray.headers()["allow"], allow);
    }
}

#[test]
fn a_path_that_is_no_text_is_malformed() {
    for target in ["/v2/models/%", "/v2/models/%zz", "/v2/models/%ff/infer", "/v2/models/%2"] {
        assert_eq!(get(target), Err(Stray::Malformed), "{target}");
    }
}
