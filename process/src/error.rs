//! What can be wrong at the rim of a process. The process ends and says it.

use std::{io, net::SocketAddr, path::PathBuf};

/// Why a part of the rim does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A port cannot be had.
    #[error("cannot listen on {address} for {what}: {source}; choose another address with `{flag}`")]
    Listen {
        /// The address that was asked for.
        address: SocketAddr,
        /// What was to be served there.
        what: &'static str,
        /// The flag that says the address.
        flag: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// An internal port would be open to others.
    #[error(
        "{flag} {address}: an internal port speaks plaintext on loopback only; give --tls-cert, --tls-key and --tls-ca (PEM \
         files) to have it speak mTLS there, or choose a loopback address such as 127.0.0.1:{port}",
        port = address.port()
    )]
    Plaintext {
        /// The address that was asked for.
        address: SocketAddr,
        /// The flag that says the address.
        flag: &'static str,
    },
    /// Some of the files for mTLS are given, and not all.
    #[error("{given} needs {missing} too: mTLS takes certificate, key and CA together")]
    Incomplete {
        /// Flags that were given.
        given: String,
        /// Flags that were not.
        missing: String,
    },
    /// A file for mTLS cannot be read.
    #[error("cannot read {flag} {}: {source}", path.display())]
    Read {
        /// The flag that names the file.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file for mTLS does not hold what it should.
    #[error("{flag} {}: {text}", path.display())]
    Content {
        /// The flag that names the file.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        text: String,
    },
    /// A namespace cannot stand in a certificate.
    #[error("namespace `{0}` cannot stand in a certificate's name: use letters, digits and `-`")]
    Namespace(String),
}

// === impl Error ===

impl Error {
    /// Short name of the kind of failure, for logs and exit messages.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Listen { .. } => "listen",
            Self::Plaintext { .. } => "plaintext",
            Self::Incomplete { .. } => "tls-incomplete",
            Self::Read { .. } => "tls-read",
            Self::Content { .. } => "tls-content",
            Self::Namespace(_) => "namespace",
        }
    }

    /// Whether starting again without a change may help.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Listen { .. } | Self::Read { .. } | Self::Content { .. } => true,
            Self::Plaintext { .. } | Self::Incomplete { .. } | Self::Namespace(_) => false,
        }
    }
}
