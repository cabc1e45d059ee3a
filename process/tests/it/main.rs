//! The rim of a process, over real sockets.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it expects")]

mod http;
mod prestop;
mod probes;
