//! The data plane: accepts calls, finds out which model they name, chooses a ready copy or has one loaded, and relays.

pub mod clock;
pub mod config;
pub mod engine;
pub mod error;
pub mod fleet;
pub mod metrics;
pub mod net;
pub mod policy;
pub mod rest;
pub mod start;
pub mod table;
