//! The rim of a process, over real sockets.

mod http;
mod prestop;
mod probes;
