//! Who may ask this agent for what: proxies of its own namespace, and control. A caller speaks for the role in its
//! certificate and for no other; an observer may have either.

use modelring_process::tls::{Name, Peer};
use modelring_proto::v1::Role;
use tonic::{Request, Status};

use crate::error::Error;

/// Who may.
#[derive(Clone, Debug)]
pub(crate) struct Access {
    proxy: Name,
    control: Name,
}

// === impl Access ===

impl Access {
    /// To an agent of this namespace.
    pub(crate) fn of(namespace: &str) -> Result<Self, Error> {
        Ok(Self { proxy: Name::proxy(namespace)?, control: Name::control() })
    }

    /// Whether the caller may watch in this role.
    pub(crate) fn may_watch(&self, peer: &Peer, role: Role) -> Result<(), Status> {
        match role {
            Role::Proxy => check(peer, &[&self.proxy]),
            Role::Control => check(peer, &[&self.control]),
            Role::Observer | Role::Unspecified => check(peer, &[&self.proxy, &self.control]),
        }
    }

    /// Whether the caller may ask for a load; to have another copy go for it is control's alone.
    pub(crate) fn may_ask(&self, peer: &Peer, replaces: bool) -> Result<(), Status> {
        if replaces { check(peer, &[&self.control]) } else { check(peer, &[&self.proxy, &self.control]) }
    }
}

/// Who is at the other end of a request's connection.
pub(crate) fn peer<T>(request: &Request<T>) -> Result<Peer, Status> {
    request.extensions().get().cloned().ok_or_else(|| Status::internal("the connection does not say who calls"))
}

fn check(peer: &Peer, names: &[&Name]) -> Result<(), Status> {
    if names.iter().any(|name| peer.is(name)) {
        return Ok(());
    }
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    Err(Status::permission_denied(format!("this takes a certificate of {}", names.join(" or "))))
}
