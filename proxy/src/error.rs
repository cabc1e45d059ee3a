//! Why a proxy does not start.

use std::io;

/// Why a proxy does not start. Nothing of this passes by itself: the process ends and says it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A port is taken or not allowed, or a thread cannot be had.
    #[error(transparent)]
    Server(#[from] crate::net::Error),
    /// The background threads cannot be had.
    #[error("cannot start the background threads: {0}")]
    Background(io::Error),
    /// The address of control is none.
    #[error("`{address}` is no address of control: it is `http://host:port`")]
    Control {
        /// What was given.
        address: String,
    },
    /// The namespace cannot stand in a certificate.
    #[error(transparent)]
    Rim(#[from] modelring_process::Error),
    /// A defect of ours.
    #[error("cannot describe the proxy's own services: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
}
