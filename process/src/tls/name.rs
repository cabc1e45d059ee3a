//! Who is who: names in certificates.

use std::{fmt, sync::Arc};

use rustls::{
    client::verify_server_name,
    pki_types::{CertificateDer, DnsName, ServerName},
    server::ParsedCertificate,
};

use crate::Error;

/// The name of a kind of process, as it stands in the SAN of its certificate: `agent.<ns>.modelring`,
/// `proxy.<ns>.modelring`, `control.modelring`.
#[derive(Clone, PartialEq, Eq)]
pub struct Name(DnsName<'static>);

/// Who is at the other end of a connection that was accepted.
#[derive(Clone)]
pub enum Peer {
    /// Somebody on this machine: loopback is plaintext, and proves nothing.
    Local,
    /// Who holds this certificate, of our CA.
    Certified(Arc<CertificateDer<'static>>),
}

// === impl Name ===

impl Name {
    /// The agents of a namespace.
    ///
    /// # Errors
    ///
    /// [`Error::Namespace`] if the namespace cannot stand in a name.
    pub fn agent(namespace: &str) -> Result<Self, Error> {
        Self::of("agent", namespace)
    }

    /// The proxies of a namespace.
    ///
    /// # Errors
    ///
    /// [`Error::Namespace`] if the namespace cannot stand in a name.
    pub fn proxy(namespace: &str) -> Result<Self, Error> {
        Self::of("proxy", namespace)
    }

    /// Control.
    #[must_use]
    pub fn control() -> Self {
        Self(DnsName::try_from("control.modelring").expect("it is a name"))
    }

    fn of(role: &str, namespace: &str) -> Result<Self, Error> {
        let wrong = || Error::Namespace(namespace.to_owned());
        // One label: a dot would reach into another namespace's names.
        if namespace.contains(['.', '*']) {
            return Err(wrong());
        }
        DnsName::try_from(format!("{role}.{namespace}.modelring")).map(Self).map_err(|_| wrong())
    }

    pub(super) fn server_name(&self) -> ServerName<'static> {
        ServerName::DnsName(self.0.clone())
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_ref())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

// === impl Peer ===

impl Peer {
    /// Whether it may speak for `name`: its certificate carries it, or it is on this machine.
    #[must_use]
    pub fn is(&self, name: &Name) -> bool {
        match self {
            Self::Local => true,
            Self::Certified(certificate) => ParsedCertificate::try_from(&**certificate)
                .is_ok_and(|parsed| verify_server_name(&parsed, &name.server_name()).is_ok()),
        }
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Local => "local",
            Self::Certified(_) => "certified",
        })
    }
}
