//! Log lines go to standard error, so that standard output is the tool's own.

use std::io;

use tracing_subscriber::EnvFilter;

use crate::args::{Cli, Command, LogFormat};

/// Starts logging. Processes log what happens; tools, which talk to a person, only what goes wrong.
pub(crate) fn start(cli: &Cli) {
    let default = match cli.command {
        Command::Proxy(_) | Command::Control(_) | Command::Agent(_) | Command::Runtime(_) => "info",
        Command::Up(_) | Command::Infer(_) | Command::Status(_) => "error",
    };
    let directives = cli.log.as_deref().unwrap_or(default);
    let filter = EnvFilter::try_new(directives).unwrap_or_else(|error| {
        eprintln!("modelring: --log {directives}: {error}; logging at `{default}`");
        EnvFilter::new(default)
    });
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    match cli.log_format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().init(),
    }
}
