//! mTLS between the processes: who listens, who dials, and who the other one is.
//!
//! A process has one [`Identity`], read from three files and re-read when they change. With it every internal port and every
//! dial is mTLS; without it they are plaintext, and internal ports are on loopback only ([`may_listen`]). Whom one dials is
//! known by the [`Name`] in its certificate, never by its address; whom one is called by, by the [`Peer`].
//!
//! TLS 1.3 without resumption: each connection proves both certificates anew, and what was proven holds for its life.

mod connection;
mod connector;
mod identity;
mod incoming;
mod name;
mod read;

use std::net::SocketAddr;

pub use connection::Connection;
pub use connector::Connector;
pub use identity::{Files, Identity};
pub use incoming::Incoming;
pub use name::{Name, Peer};

use crate::Error;

/// Whether an internal port may be opened there: on loopback, or with an identity anywhere. `flag` says the address.
///
/// # Errors
///
/// [`Error::Plaintext`] if it may not.
pub fn may_listen(address: SocketAddr, flag: &'static str, identity: Option<&Identity>) -> Result<(), Error> {
    if identity.is_some() || address.ip().to_canonical().is_loopback() {
        return Ok(());
    }
    Err(Error::Plaintext { address, flag })
}
