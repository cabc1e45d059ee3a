//! The embedded model server as a process of its own that keeps a journal of its models in a file, and whose models take
//! as long and as much as a test wants: `modelring-test-server SETTINGS`, with the JSON of [`ServerSettings`].

use std::sync::Arc;

use anyhow::{Context, Result};
use harness::{JournalFile, ServerSettings};
use modelring_runtime::{Config, Runtime};

#[tokio::main]
async fn main() -> Result<()> {
    let settings = std::env::args().nth(1).context("the settings are the one argument")?;
    let settings: ServerSettings = serde_json::from_str(&settings).context("the settings are JSON")?;
    tracing_subscriber::fmt()
        .with_env_filter(settings.log.as_str())
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    let config =
        Config { listen: settings.listen, capacity: settings.capacity, threads: settings.threads, ..Config::default() };
    let journal = JournalFile::append(&settings.journal).context("the journal can be written")?;
    let mut running = Runtime::start_with(config, Arc::new(journal.loader(settings.habits()))).await?;
    running.ended().await?;
    Ok(())
}
