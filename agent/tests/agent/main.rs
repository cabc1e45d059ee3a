//! The agent, asked over gRPC, with a scripted double in the place of a model server.

mod fixture;
mod handshake;
mod loading;
mod restart;
mod scripted;
mod starting;
mod watching;
