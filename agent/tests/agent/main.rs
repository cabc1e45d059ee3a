//! The agent, asked over gRPC, with a scripted double in the place of a model server.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it expects")]

mod embedded;
mod fixture;
mod handshake;
mod loading;
mod restart;
mod scripted;
mod starting;
mod watching;
