//! The control plane: desired state in, tables out.
//!
//! A [`source`] delivers the desired state, the core turns it and what the agents say into the table that proxies hold
//! copies of, and keeps the wanted copies. One task owns all state; every decision is a pure function of
//! `modelring-placement`.

pub mod classes;
pub mod config;
mod control;
pub mod convert;
pub mod core;
pub mod crd;
pub mod dataplane;
pub mod deployment;
mod error;
pub mod folder;
pub mod metrics;
mod routes;
pub mod scale;
pub mod settings;
pub mod source;
pub mod status;

pub use config::Config;
pub use control::{Control, Running};
pub use error::Error;
