//! What can go wrong, and the gRPC code that says so.

use std::{io, net::SocketAddr, path::PathBuf};

use tonic::{Code, Status};

/// Errors of the model server. [`Error::code`] is what a caller sees; the text is for people.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is taken or not ours.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address that was asked for.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// A setting is below its least value.
    #[error("setting {name} is {value}, must be at least {least}")]
    Setting {
        /// Name of the setting.
        name: &'static str,
        /// Its value.
        value: u128,
        /// Its least value.
        least: u128,
    },
    /// The server ended by itself.
    #[error("the server ended: {0}")]
    Ended(String),
    /// No model of that id is loaded.
    #[error("model '{0}' is not loaded")]
    UnknownModel(String),
    /// The model is loaded, but not in that version.
    #[error("model '{model}' has no version '{version}', only version '1'")]
    UnknownVersion {
        /// Id of the model.
        model: String,
        /// The version that was asked for.
        version: String,
    },
    /// The request does not fit the model; the text names the tensor, what was expected and what came.
    #[error("{0}")]
    InvalidRequest(String),
    /// There is no model file at that path.
    #[error("no model at {path}: {why}", path = path.display())]
    NoFile {
        /// The path that was asked for.
        path: PathBuf,
        /// What is there instead.
        why: String,
    },
    /// The file is no model, or a model that this server cannot run; the text names the operator.
    #[error("{0}")]
    InvalidModel(String),
    /// The id is loaded from another path. Ids are never reused for other content.
    #[error("model '{model}' is already loaded from {path}")]
    OtherPath {
        /// Id of the model.
        model: String,
        /// Where the loaded one came from.
        path: String,
    },
    /// All models were purged while this load waited for its turn.
    #[error("all models were purged before the load of '{0}' began")]
    Purged(String),
    /// As many calls wait for a thread as may.
    #[error("{0} calls wait for a thread already")]
    Busy(usize),
    /// A defect of this server or of what it runs.
    #[error("{0}")]
    Internal(String),
}

/// What most functions of this crate answer.
pub type Result<T, E = Error> = std::result::Result<T, E>;

// === impl Error ===

impl Error {
    /// The gRPC code of the error. For loads INVALID_ARGUMENT and FAILED_PRECONDITION say that nothing was loaded and
    /// that trying again will not help.
    pub fn code(&self) -> Code {
        match self {
            Self::Listen { .. } | Self::Ended(_) => Code::Unavailable,
            Self::UnknownModel(_) | Self::UnknownVersion { .. } => Code::NotFound,
            Self::Setting { .. } | Self::InvalidRequest(_) | Self::InvalidModel(_) => Code::InvalidArgument,
            Self::NoFile { .. } | Self::OtherPath { .. } => Code::FailedPrecondition,
            Self::Purged(_) => Code::Aborted,
            Self::Busy(_) => Code::ResourceExhausted,
            Self::Internal(_) => Code::Internal,
        }
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        Self::new(error.code(), error.to_string())
    }
}
