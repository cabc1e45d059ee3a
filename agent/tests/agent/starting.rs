//! What an agent refuses to start with.

use std::time::Duration;

use modelring_agent::{Agent, Error};

use crate::{
    fixture::{Fixture, Started},
    scripted::{Script, Scripted},
};

async fn refused(change: impl FnOnce(&mut modelring_agent::Config)) -> Error {
    let fixture = Fixture::new(&[]);
    let mut config = fixture.config("http://127.0.0.1:1");
    change(&mut config);
    Agent::start(config).await.unwrap_err()
}

#[tokio::test]
async fn an_address_that_others_reach_is_refused_and_the_text_says_why() {
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:11881"] {
        let error = refused(|config| config.listen = address.parse().unwrap()).await;
        assert!(matches!(error, Error::Rim(modelring_process::Error::Plaintext { .. })), "{error}");
        assert!(error.to_string().contains("mTLS") && error.to_string().contains("loopback"), "{error}");
        assert!(!error.is_retryable());
    }
}

#[tokio::test]
async fn a_port_that_is_taken_and_settings_out_of_range_are_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let error = refused(|config| config.listen = address).await;
    assert!(error.to_string().starts_with(&format!("cannot listen on {address}")), "{error}");
    let error = refused(|config| config.drain_timeout = Duration::from_secs(2)).await;
    assert!(error.to_string().contains("agent.drainTimeout"), "{error}");
    let error = refused(|config| config.management = "ftp://x".to_owned()).await;
    assert!(error.to_string().contains("invalid endpoint 'ftp://x'"), "{error}");
}

#[tokio::test]
async fn a_second_agent_on_a_model_directory_is_refused_until_the_first_has_stopped() {
    let server = Scripted::start(Script::default());
    let fixture = Fixture::new(&[]);
    let first = fixture.start(&server.endpoint()).await;
    let config = fixture.config(&server.endpoint());
    assert!(matches!(Started::of(config.clone()).await, Err(Error::ModelDirInUse(_))));
    first.running.shutdown(Duration::ZERO).await;
    Started::of(config).await.unwrap();
}

#[tokio::test]
async fn without_a_name_the_instance_keeps_the_one_it_made_up() {
    let server = Scripted::start(Script::default());
    let fixture = Fixture::new(&[]);
    let mut config = fixture.config(&server.endpoint());
    (config.instance, config.pod_uid) = (None, None);
    let first = Started::of(config.clone()).await.unwrap();
    let name = first.running.instance_id.clone();
    first.running.shutdown(Duration::ZERO).await;
    assert_eq!(Started::of(config).await.unwrap().running.instance_id, name);
}
