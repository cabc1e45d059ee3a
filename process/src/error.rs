//! What can be wrong at the rim of a process. Nothing of it passes by itself: the process ends and says it.

use std::{io, net::SocketAddr};

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
}

// === impl Error ===

impl Error {
    /// Short name of the kind of failure, for logs and exit messages.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Listen { .. } => "listen",
        }
    }

    /// Whether starting again without a change may help.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Listen { .. } => true,
        }
    }
}
