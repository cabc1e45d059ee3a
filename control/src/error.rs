//! What can end control.

use std::{io, net::SocketAddr, path::PathBuf};

/// An error that control cannot work with.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder of manifests cannot be read at start.
    #[error("cannot read the folder {}: {source}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// State beside the manifests cannot be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    State {
        /// `read`, `write`, `remove`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file of state has a content that control did not write.
    #[error("{} is damaged ({text}); remove it to start without what it kept", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        text: String,
    },
    /// A built-in runtime's YAML is wrong.
    #[error("built-in runtime: {0}")]
    BuiltIn(String),
    /// The folder cannot be watched.
    #[error("cannot watch {}: {source}", path.display())]
    Watch {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: notify::Error,
    },
    /// The dataplane configuration cannot be used, and there is none before it.
    #[error("{what} {source}")]
    Dataplane {
        /// Which one.
        what: String,
        /// Why.
        source: crate::dataplane::Unusable,
    },
    /// Another control took a higher epoch.
    #[error("another control has taken epoch {theirs}, this one has {ours}")]
    Superseded {
        /// Epoch of the other.
        theirs: u64,
        /// Epoch of this one.
        ours: u64,
    },
    /// A port would be open to others, or a namespace cannot stand in a certificate.
    #[error(transparent)]
    Rim(#[from] modelring_process::Error),
    /// The port cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The Routes service ended.
    #[error("the Routes service ended: {0}")]
    Serve(#[from] tonic::transport::Error),
    /// A task of control ended that never should.
    #[error("control stopped: {0}")]
    Stopped(&'static str),
}

// === impl Error ===

impl Error {
    /// Whether starting anew, with nothing else changed, may help.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        !matches!(self, Self::BuiltIn(_) | Self::Dataplane { .. } | Self::Rim(_) | Self::Damaged { .. })
    }
}
