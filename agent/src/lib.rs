//! The agent in a runtime pod: pulls models, drives the model server, keeps the account of the pod's memory, and tells
//! proxies and control which copies are ready.

mod access;
pub mod adapter;
mod agent;
mod clock;
pub mod config;
mod connection;
mod core;
mod custom;
pub mod error;
mod failure;
mod handshake;
mod identity;
pub mod metrics;
mod mlserver;
pub mod relay;
pub mod server;
mod service;
mod storage;
mod watch;
mod wire;

pub use agent::{Agent, Running};
pub use config::{Config, ServerKind};
pub use error::Error;
