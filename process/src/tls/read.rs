//! From files to what rustls works with.

use std::{io::Read, path::Path, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    client::Resumption,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
    sign::{CertifiedKey, SingleCertAndKey},
    version::TLS13,
};

use super::Files;
use crate::Error;

/// Flags that name the files.
pub(super) const FLAGS: [&str; 3] = ["--tls-cert", "--tls-key", "--tls-ca"];
/// Largest file that is read, bytes.
const LARGEST: u64 = 1 << 20;

/// What the files hold. Has a key in it: never printed.
#[derive(PartialEq, Eq)]
pub(super) struct Contents {
    certificate: Vec<u8>,
    key: Vec<u8>,
    ca: Vec<u8>,
}

/// Both ends of a connection, ready to use.
pub(super) struct Configs {
    pub(super) server: Arc<ServerConfig>,
    pub(super) client: Arc<ClientConfig>,
}

// === impl Contents ===

impl Contents {
    /// Reads the files.
    pub(super) fn read(files: &Files) -> Result<Self, Error> {
        let [certificate, key, ca] = FLAGS;
        Ok(Self {
            certificate: read(certificate, &files.certificate)?,
            key: read(key, &files.key)?,
            ca: read(ca, &files.ca)?,
        })
    }

    /// Makes something of them. A certificate and a key that are no pair are refused: one of them is yet to be written.
    pub(super) fn configs(&self, files: &Files) -> Result<Configs, Error> {
        let [certificate_flag, key_flag, ca_flag] = FLAGS;
        let wrong = |flag, path: &Path, text: String| Error::Content { flag, path: path.to_owned(), text };
        let of_certificate = |text: String| wrong(certificate_flag, &files.certificate, text);
        let of_ca = |text: String| wrong(ca_flag, &files.ca, text);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let chain = certificates(&self.certificate).map_err(of_certificate)?;
        let key = PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|error| wrong(key_flag, &files.key, format!("it holds no private key in PEM: {error}")))?;
        let mut roots = RootCertStore::empty();
        for ca in certificates(&self.ca).map_err(of_ca)? {
            roots.add(ca).map_err(|error| of_ca(error.to_string()))?;
        }
        let roots = Arc::new(roots);
        let pair = CertifiedKey::from_der(chain, key, &provider).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                of_certificate(format!("it is no pair with the key in {}", files.key.display()))
            }
            error => of_certificate(error.to_string()),
        })?;
        let pair = Arc::new(SingleCertAndKey::from(pair));
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
            .build()
            .map_err(|error| of_ca(error.to_string()))?;
        let mut server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| of_certificate(error.to_string()))?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(pair.clone());
        server.send_tls13_tickets = 0;
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| of_certificate(error.to_string()))?
            .with_root_certificates(roots)
            .with_client_cert_resolver(pair);
        client.resumption = Resumption::disabled();
        // All that is spoken inside is HTTP/2.
        server.alpn_protocols = vec![b"h2".to_vec()];
        client.alpn_protocols = server.alpn_protocols.clone();
        Ok(Configs { server: Arc::new(server), client: Arc::new(client) })
    }
}

fn read(flag: &'static str, path: &Path) -> Result<Vec<u8>, Error> {
    let mut contents = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(LARGEST).read_to_end(&mut contents))
        .map_err(|source| Error::Read { flag, path: path.to_owned(), source })?;
    Ok(contents)
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match read {
        Ok(certificates) if certificates.is_empty() => Err("it holds no certificate in PEM".to_owned()),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(format!("it is no PEM file, or not a whole one: {error}")),
    }
}
