//! `modelring`: one binary, whose first argument says which process of the mesh, or which tool, it is.

mod args;
mod commands;
mod dataplane;
mod limits;
mod logging;
mod observe;
mod render;
mod rim;
mod signal;
mod tls;

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
            eprintln!("modelring: {}", told(error.chain()));
            ExitCode::FAILURE
        }
    }
}

/// An error and its causes; a cause that the text before it ends with already is not said again.
fn told<'e>(causes: impl Iterator<Item = &'e (dyn std::error::Error + 'static)>) -> String {
    causes.map(ToString::to_string).fold(String::new(), |text, cause| match text.is_empty() {
        true => cause,
        false if text.ends_with(&cause) => text,
        false => format!("{text}: {cause}"),
    })
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::told;

    #[test]
    fn a_cause_is_said_once() {
        let repeats = anyhow!("denied").context("cannot make 'x': denied").context("the agent cannot start");
        assert_eq!(told(repeats.chain()), "the agent cannot start: cannot make 'x': denied");
    }
}
