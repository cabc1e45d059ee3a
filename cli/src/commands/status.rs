//! `modelring status`.

mod json;
mod watch;

use std::{
    io::{IsTerminal, Write},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::{
    args::Seconds,
    observe::{Mesh, Observer},
    render::{self, Screen},
    tls::Tls,
};

/// How long to wait for what follows the snapshots: ledgers, use, what proxies have in force.
const SETTLE: Duration = Duration::from_millis(1500);

/// Which mesh, and how to show it.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The folder that is served; control's address is read from it
    #[arg(value_name = "DIR", default_value = ".")]
    dir: PathBuf,

    /// Where control is reached, instead of DIR
    #[arg(long, env = "MODELRING_CONTROL", value_name = "URL")]
    control: Option<String>,

    /// Namespace whose models are shown
    #[arg(long, env = "NAMESPACE", default_value = "default", value_name = "NAME")]
    namespace: String,

    /// Show only models whose name holds this
    #[arg(long, default_value = "", hide_default_value = true, value_name = "TEXT")]
    filter: String,

    /// Form of the output
    #[arg(long, short, value_enum, default_value_t = Output::Table)]
    output: Output,

    /// The same as --output json
    #[arg(long, hide = true)]
    json: bool,

    /// Show every change until Ctrl-C, or `q` on a terminal (with --output json: one object a line)
    #[arg(long, short)]
    watch: bool,

    #[command(flatten)]
    tls: Tls,

    /// How long to wait for answers
    #[arg(long, default_value = "5s", value_name = "TIME")]
    timeout: Seconds,
}

/// Form of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// Tables for people; colours on a terminal, unless NO_COLOR is set
    Table,
    /// JSON for programs; docs/observing.md says what is in it
    Json,
}

/// Looks and prints, once or until it is asked to stop.
pub(crate) async fn run(args: Args) -> Result<()> {
    let control = match &args.control {
        Some(control) => control.clone(),
        None => control_of(&args.dir)?,
    };
    let mut observer = Observer::start(control.clone(), args.namespace.clone(), args.tls.identity().await?)?;
    let complete = tokio::time::timeout(args.timeout.0, observer.complete()).await.is_ok();
    if complete {
        let _ = tokio::time::timeout(SETTLE.min(args.timeout.0), observer.settled()).await;
    }
    let mesh = observer.mesh();
    if mesh.table.is_none() {
        let why = mesh.trouble.map_or_else(|| "it has no table yet".to_owned(), |why| why.trim().to_owned());
        bail!("control at {control} does not answer within {:?} ({why}); is it running?", args.timeout.0);
    }
    if args.watch {
        return watch::run(&args, observer).await;
    }
    write(&shown(&args, &mesh, screen()))
}

/// The mesh in the form that is asked for.
fn shown(args: &Args, mesh: &Mesh, screen: Screen) -> String {
    match (args.output, args.json, args.watch) {
        (Output::Table, false, _) => render::tables(mesh, screen, &args.filter),
        (_, _, false) => format!("{:#}\n", json::of(mesh, &args.filter)),
        (_, _, true) => format!("{}\n", json::of(mesh, &args.filter)),
    }
}

/// What standard output is.
fn screen() -> Screen {
    if !std::io::stdout().is_terminal() {
        return Screen::default();
    }
    let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    let width = terminal_size::terminal_size().map_or(80, |(width, _)| usize::from(width.0));
    Screen { width: Some(width.max(40)), colours: !set("NO_COLOR") && !dumb }
}

/// Prints; that nobody reads any more (`| head`) is no error.
fn write(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error).context("cannot print"),
        _ => Ok(()),
    }
}

/// Address of the control that serves a folder.
fn control_of(dir: &std::path::Path) -> Result<String> {
    let file = dir.join(".modelring/control");
    let address = std::fs::read_to_string(&file).with_context(|| {
        format!(
            "{} cannot be read: name the folder that is served (modelring status DIR), or control itself (--control URL)",
            file.display()
        )
    })?;
    let address = address.trim();
    Ok(if address.starts_with("http") { address.to_owned() } else { format!("http://{address}") })
}
