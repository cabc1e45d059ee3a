//! Clients of S3 endpoints. One is made per endpoint and credentials, and used again by later pulls.

use std::{
    fmt,
    time::{Duration, Instant},
};

use aws_sdk_s3::{
    Client, Config,
    config::{
        BehaviorVersion, Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation, SharedHttpClient,
        StalledStreamProtectionConfig, retry::RetryConfig, timeout::TimeoutConfig,
    },
};
use aws_smithy_http_client::{
    Builder, Connector,
    proxy::ProxyConfig,
    tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode},
};
use http::Uri;
use modelring_placement::pod::LoadError;
use parking_lot::Mutex;
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use tonic::Code;

use crate::{failure::permanent, storage::entry::Entry};

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(3);
/// How long the head of an answer may take.
const ANSWER: Duration = Duration::from_secs(10);
/// A client that was not used for so long goes.
const IDLE: Duration = Duration::from_secs(60 * 60);
/// Most clients.
const MOST: usize = 64;
/// Region where the entry names none: stores of one's own do not look at it.
const REGION: &str = "us-east-1";

/// An endpoint and who asks. All of it tells clients apart.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// URL; none = AWS in the region.
    pub(super) endpoint: Option<String>,
    /// Host and port, for people.
    pub(super) host: String,
    pub(super) region: String,
    /// Empty with the secret = unsigned requests.
    pub(super) access_key_id: String,
    secret_access_key: String,
    /// PEM; replaces the system's roots.
    certificate: Option<String>,
}

/// The clients of an agent.
#[derive(Debug, Default)]
pub(in crate::storage) struct Clients(Mutex<Vec<(Place, Client, Instant)>>);

// === impl Place ===

impl Place {
    /// Where an entry points.
    pub(super) fn of(entry: &Entry) -> Result<Self, LoadError> {
        let invalid = |text: String| permanent(Code::InvalidArgument, text);
        let (access_key_id, secret_access_key) =
            (entry.required("access_key_id")?, entry.required("secret_access_key")?);
        let (endpoint, region) = (entry.required("endpoint_url")?, entry.required("region")?);
        if access_key_id.is_empty() != secret_access_key.is_empty() {
            let text =
                "only one of 'access_key_id' and 'secret_access_key' is set; set both, or none for a public bucket";
            return Err(invalid(text.to_owned()));
        }
        let region = if region.is_empty() { REGION } else { region };
        let (endpoint, host) = match endpoint {
            "" => (None, format!("s3.{region}.amazonaws.com")),
            _ => {
                let (url, host) =
                    url(endpoint).map_err(|what| invalid(format!("configuration 'endpoint_url' {what}")))?;
                (Some(url), host)
            }
        };
        let certificate = entry.optional("certificate")?.map(str::to_owned);
        if let Some(pem) = &certificate {
            check(pem).map_err(|what| invalid(format!("configuration 'certificate' {what}")))?;
        }
        Ok(Self {
            endpoint,
            host,
            region: region.to_owned(),
            access_key_id: access_key_id.to_owned(),
            secret_access_key: secret_access_key.to_owned(),
            certificate,
        })
    }

    fn client(&self) -> Client {
        let mut config = Config::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(Region::new(self.region.clone()))
            .force_path_style(true)
            .http_client(self.http_client())
            // Asked again, and watched for stalls, by the download: it knows what has come.
            .retry_config(RetryConfig::disabled())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .timeout_config(TimeoutConfig::builder().connect_timeout(CONNECT).read_timeout(ANSWER).build())
            // Only AWS itself knows the newer checksums.
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
        config.set_endpoint_url(self.endpoint.clone());
        config = if self.access_key_id.is_empty() {
            config.allow_no_auth()
        } else {
            let (id, secret) = (self.access_key_id.clone(), self.secret_access_key.clone());
            config.credentials_provider(Credentials::new(id, secret, None, None, "storage-config"))
        };
        Client::from_conf(config.build())
    }

    fn http_client(&self) -> SharedHttpClient {
        let plain = self.endpoint.as_ref().is_some_and(|url| url.starts_with("http://"));
        let roots = match &self.certificate {
            None => TrustStore::default(),
            Some(pem) => TrustStore::empty().with_pem_certificate(pem.as_bytes()),
        };
        let context = TlsContext::builder().with_trust_store(roots).build();
        let context = context.expect("a context of a trust store can be built");
        let loopback =
            self.host.starts_with("localhost:") || self.host.starts_with("127.") || self.host.starts_with("[::1]");
        Builder::new().build_with_connector_fn(move |settings, components| {
            let mut connector = Connector::builder().enable_tcp_nodelay(true);
            connector.set_connector_settings(settings.cloned());
            connector.set_sleep_impl(components.and_then(|components| components.sleep_impl()));
            if !loopback {
                connector = connector.proxy_config(ProxyConfig::from_env());
            }
            if plain {
                connector.build_http()
            } else {
                connector.tls_provider(Provider::Rustls(CryptoMode::Ring)).tls_context(context.clone()).build()
            }
        })
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Place").field("host", &self.host).field("region", &self.region).finish_non_exhaustive()
    }
}

/// The URL of an endpoint, and its host and port. Without a scheme it is `https`, as for ModelMesh.
fn url(endpoint: &str) -> Result<(String, String), String> {
    let url = if endpoint.contains("://") { endpoint.to_owned() } else { format!("https://{endpoint}") };
    let expected = "expected http://host:port or https://host";
    let Ok(uri) = url.parse::<Uri>() else { return Err(format!("is no URL: {expected}")) };
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(format!("is no URL: {expected}"));
    };
    if !["http", "https"].contains(&scheme) {
        return Err(format!("has scheme '{scheme}': {expected}"));
    }
    // Not shown: whatever stands before the '@' may be a secret.
    if authority.as_str().contains('@') {
        return Err("holds credentials; use 'access_key_id' and 'secret_access_key'".to_owned());
    }
    if uri.query().is_some() {
        return Err(format!("has a query: {expected}"));
    }
    let host = authority.to_string();
    Ok((url, host))
}

/// Refuses what the TLS library would refuse, which ends the process where it does.
fn check(pem: &str) -> Result<(), String> {
    let mut roots = RootCertStore::empty();
    for found in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = found.map_err(|error| format!("is no PEM: {error}"))?;
        roots.add(certificate).map_err(|error| format!("holds what is no certificate: {error}"))?;
    }
    if roots.is_empty() { Err("holds no certificate in PEM".to_owned()) } else { Ok(()) }
}

// === impl Clients ===

impl Clients {
    /// The client of a place.
    pub(super) fn get(&self, place: &Place) -> Result<Client, LoadError> {
        let mut clients = self.0.lock();
        let now = Instant::now();
        clients.retain(|(_, _, used)| now.duration_since(*used) < IDLE);
        if let Some((_, client, used)) = clients.iter_mut().find(|(known, ..)| known == place) {
            *used = now;
            return Ok(client.clone());
        }
        if clients.len() >= MOST {
            let oldest = clients.iter().enumerate().min_by_key(|(_, (_, _, used))| *used).map(|(index, _)| index);
            oldest.map(|index| clients.swap_remove(index));
        }
        let client = place.client();
        clients.push((place.clone(), client.clone(), now));
        Ok(client)
    }
}

#[cfg(test)]
#[path = "client/tests.rs"]
mod tests;
