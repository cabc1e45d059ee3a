//! Errors over HTTP.

use std::time::Duration;

use modelring_proxy::{
    engine::answer::{Answer, Reason},
    rest::error,
};

#[test]
fn the_body_has_error_code_and_message() {
    let answer = Answer::new(Reason::NM, "no \"model\"");
    let body = String::from_utf8(error::body(&answer)).expect("text");
    assert_eq!(body, r#"{"error":"no \"model\"","code":5,"message":"no \"model\""}"#);
    assert_eq!(error::headers(&answer)["modelring-reason"], "NM");
}

#[test]
fn grpc_codes_have_their_http_status() {
    let table = [
        (1, 499),
        (2, 500),
        (3, 400),
        (4, 504),
        (5, 404),
        (6, 409),
        (7, 403),
        (8, 429),
        (9, 400),
        (10, 409),
        (11, 400),
        (12, 501),
        (13, 500),
        (14, 503),
        (15, 500),
        (16, 401),
        (17, 500),
        (99, 500),
    ];
    for (code, status) in table {
        assert_eq!(Answer::status(code, "").http, status, "{code}");
    }
}

#[test]
fn a_401_challenges() {
    let answer = Answer::status(16, "who\r\nare you");
    assert_eq!(error::headers(&answer)["www-authenticate"], "who  are you");
    assert!(error::headers(&Answer::new(Reason::NM, "x")).get("www-authenticate").is_none());
}

#[test]
fn a_503_says_when_to_come_back() {
    let mut answer = Answer::new(Reason::NP, "full");
    assert_eq!(error::headers(&answer)["retry-after"], "1");
    answer.retry_after = Some(Duration::from_millis(1500));
    assert_eq!(error::headers(&answer)["retry-after"], "2");
    answer.retry_after = Some(Duration::ZERO);
    assert_eq!(error::headers(&answer)["retry-after"], "1");
}

#[test]
fn a_spent_place_budget_is_unavailable_and_a_spent_load_budget_a_passed_deadline() {
    let codes = |reason| (Answer::new(reason, "").code, Answer::new(reason, "").http);
    assert_eq!((codes(Reason::NP), codes(Reason::NI), codes(Reason::LT)), ((14, 503), (14, 503), (4, 504)));
}
