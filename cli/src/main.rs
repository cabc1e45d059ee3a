//! `modelring`: one binary, whose first argument says which process of the mesh, or which tool, it is.

mod args;
mod commands;
mod logging;
mod observe;
mod render;
mod signal;

use std::process::ExitCode;

use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = args::Cli::parse();
    logging::start(&cli);
    match commands::run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("modelring: {error:#}");
            ExitCode::FAILURE
        }
    }
}
