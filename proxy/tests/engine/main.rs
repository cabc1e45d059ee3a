//! The way of the bytes, over real sockets: real clients, the proxy, a real KServe v2 server.

mod support;
mod unary;
mod upstream;
