//! The agent in a runtime pod: pulls models, drives the model server, keeps the account of the pod's memory, and tells
//! proxies and control which copies are ready.

pub mod config;
pub mod server;
pub mod storage;
