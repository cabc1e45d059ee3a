//! Sockets, threads and the two HTTP versions.

pub mod http;
