//! `/prestop`.

use std::time::Duration;

use modelring_process::{http::Server, prestop::Prestop};

use crate::http::ask;

const LONG: Duration = Duration::from_secs(600);

async fn serve(prestop: &Prestop, most: Duration) -> Server {
    Server::start(([127, 0, 0, 1], 0).into(), "prestop", "--prestop", prestop.routes(most)).await.unwrap()
}

#[tokio::test]
async fn all_who_wait_are_answered_when_the_drain_is_over_and_not_before() {
    let prestop = Prestop::new();
    let server = serve(&prestop, LONG).await;
    let addr = server.addr();
    let mut waiting: Vec<_> =
        ["GET /prestop", "GET /prestop/"].map(|head| tokio::spawn(async move { ask(addr, head).await })).into();
    let early = tokio::time::timeout(Duration::from_millis(200), &mut waiting[0]).await;
    assert!(early.is_err(), "{early:?}");
    prestop.over().await;
    for answer in waiting {
        let answer = answer.await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("drained\n"), "{answer}");
    }
    assert!(ask(addr, "GET /prestop").await.ends_with("drained\n"));
}

#[tokio::test]
async fn a_container_that_stops_alone_is_let_go_in_the_end() {
    let prestop = Prestop::new();
    let server = serve(&prestop, Duration::from_millis(50)).await;
    assert!(ask(server.addr(), "GET /prestop").await.ends_with("not drained within the time\n"));
}
