//! One file for each subcommand.

mod adapter;
pub(crate) mod agent;
pub(crate) mod control;
pub(crate) mod infer;
pub(crate) mod proxy;
pub(crate) mod runtime;
pub(crate) mod status;
pub(crate) mod up;

use anyhow::{Context, Result};

use crate::args::Command;

/// Runs a command to its end.
pub(crate) fn run(command: Command) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the threads of this process")?;
    runtime.block_on(async {
        match command {
            Command::Up(args) => up::run(args).await,
            Command::Infer(args) => infer::run(args).await,
            Command::Status(args) => status::run(args).await,
            Command::Proxy(args) => proxy::run(args).await,
            Command::Control(args) => control::run(args).await,
            Command::Agent(args) => agent::run(*args).await,
            Command::Runtime(args) => runtime::run(args).await,
        }
    })
}
