//! An endpoint behind TLS, with a certificate of its own.

use std::sync::Arc;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::{ServerConfig, pki_types::PrivatePkcs8KeyDer};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;
use tonic::Code;

use super::*;

/// Ends TLS before the S3 server; the certificate in PEM.
async fn tls_before(upstream: std::net::SocketAddr) -> (std::net::SocketAddr, String) {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivatePkcs8KeyDer::from(signing_key.serialize_der());
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key.into())
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let mut upstream = TcpStream::connect(upstream).await?;
                copy_bidirectional(&mut acceptor.accept(client).await?, &mut upstream).await
            });
        }
    });
    (addr, cert.pem())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_https_endpoint_is_trusted_by_the_certificate_of_the_entry_and_not_without() {
    let stage = Stage::new([("m/a".to_owned(), &b"1"[..])]).await;
    let (addr, pem) = tls_before(stage.link.addr).await;
    let plain = stage.s3.entry("models");
    let entry = plain.replace(&format!("http://{}", stage.s3.addr), &format!("https://localhost:{}", addr.port()));
    stage.fixture.write("storage-config/s3", &entry);
    let ended = stage.started.ensure(at("untrusted", "m")).await;
    let (code, text) = ended.failed();
    assert_eq!(code, Code::FailedPrecondition as u32, "{text}");
    assert!(text.contains("is not trusted: invalid peer certificate") && text.contains("set 'certificate'"), "{text}");

    let mut trusting: serde_json::Value = serde_json::from_str(&entry).unwrap();
    trusting["certificate"] = pem.into();
    stage.fixture.write("storage-config/s3", &trusting.to_string());
    stage.started.ensure(at("trusted", "m")).await.loaded();
    assert_eq!(stage.files("trusted")["m/a"], b"1");
}
