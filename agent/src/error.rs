//! Why an agent does not start, or ends.

use std::{io, net::SocketAddr, path::PathBuf};

use modelring_placement::pod::LoadError;

/// Why an agent does not start, or ends by itself.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A port would be open to others, or a certificate is wrong.
    #[error(transparent)]
    Rim(#[from] modelring_process::Error),
    /// The agent's port cannot be opened.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// A setting is out of its range.
    #[error("{key}: {text}")]
    Setting {
        /// The setting.
        key: &'static str,
        /// What is wrong with it.
        text: String,
    },
    /// The model directory cannot be used.
    #[error("cannot {verb} '{path}': {source}", path = path.display())]
    ModelDir {
        /// What was tried.
        verb: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// Another agent uses the model directory.
    #[error("another agent uses the model directory '{}'", .0.display())]
    ModelDirInUse(PathBuf),
    /// The model server will never be ready.
    #[error("the model server cannot be used: {}", .0.text)]
    Server(LoadError),
    /// The gRPC server of the agent ended.
    #[error("the agent's server ended: {0}")]
    Serve(String),
}

// === impl Error ===

impl Error {
    /// Short name of the kind of failure, for logs and exit messages.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Rim(error) => error.code(),
            Self::Listen { .. } => "listen",
            Self::Setting { .. } => "setting",
            Self::ModelDir { .. } => "model-dir",
            Self::ModelDirInUse(_) => "model-dir-in-use",
            Self::Server(_) => "server",
            Self::Serve(_) => "serve",
        }
    }

    /// Whether starting again without a change may help.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Listen { .. } | Self::ModelDirInUse(_) | Self::Serve(_) => true,
            Self::Server(error) => error.passing,
            Self::Rim(error) => error.is_retryable(),
            Self::Setting { .. } | Self::ModelDir { .. } => false,
        }
    }
}
