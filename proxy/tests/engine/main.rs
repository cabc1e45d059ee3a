//! The way of the bytes, over real sockets: real clients, the proxy, a real KServe v2 server.

mod abuse;
mod ending;
mod hold;
mod http1;
mod messages;
mod names;
mod ports;
mod raw;
mod refusal;
mod rest;
mod streams;
mod support;
mod unary;
mod upstream;
mod upstreams;
