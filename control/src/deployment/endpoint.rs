//! Where a model server listens in its pod: `port:<n>`, or a unix socket `unix:<path>`.

use super::validate::Invalid;

/// Where a model server listens in its pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// On a port of loopback.
    Port(u16),
    /// On a unix socket: its folder and its whole path.
    Unix {
        /// The folder, shared by the containers.
        folder: String,
        /// The socket.
        path: String,
    },
}

/// Both endpoints of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoints {
    /// Where models are managed: `mmesh.ModelRuntime` for custom servers; of no use for those that the agent knows.
    pub(super) management: Option<Endpoint>,
    /// Where inference is served.
    pub(super) data: Endpoint,
}

// === impl Endpoint ===

impl Endpoint {
    /// Reads one. Anything that is no `port:<n>` is the path of a socket, with or without `unix:` or `unix://`.
    pub(super) fn read(field: &'static str, text: &str) -> Result<Self, Invalid> {
        let bad = |why| Invalid::new(format!("{field} `{text}` {why}; write port:<number> or unix:<path>"));
        if let Some(port) = text.strip_prefix("port:") {
            return match port.trim().parse() {
                Ok(0) | Err(_) => Err(bad("names no port")),
                Ok(port) => Ok(Self::Port(port)),
            };
        }
        let Some(path) = text.strip_prefix("unix://").or_else(|| text.strip_prefix("unix:")) else {
            return Err(bad("is no endpoint"));
        };
        let folder = path.rsplit_once('/').map(|(folder, file)| (folder, file.is_empty()));
        match folder {
            Some((folder, false)) if folder.starts_with('/') && !path.split('/').any(|part| part == "..") => {
                Ok(Self::Unix { folder: folder.to_owned(), path: path.to_owned() })
            }
            _ => Err(bad("is not the absolute path of a socket in a folder of its own")),
        }
    }

    /// The folder that server and agent must share.
    pub(super) fn folder(&self) -> Option<&str> {
        match self {
            Self::Port(_) => None,
            Self::Unix { folder, .. } => Some(folder),
        }
    }
}

// === impl Endpoints ===

impl Endpoints {
    /// The folder of the sockets, if there are any.
    pub(super) fn folder(&self) -> Option<&str> {
        self.management.as_ref().and_then(Endpoint::folder).or_else(|| self.data.folder())
    }
}
