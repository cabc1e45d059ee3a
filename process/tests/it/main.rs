//! The rim of a process, over real sockets.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it expects")]

#[expect(unreachable_pub, dead_code, reason = "it is shared with the end-to-end tests")]
#[path = "../../../tests/harness/ca.rs"]
mod ca;
mod http;
mod prestop;
mod probes;
mod tls;
