//! The command line. Every flag of a process has an environment twin `MODELRING_<FLAG>`.

use std::str::FromStr;

use clap::{Parser, Subcommand, ValueEnum};

use crate::commands::{agent, control, infer, proxy, runtime, status, up};

/// Serves thousands of machine-learning models on a few model servers, and has cold models loaded while the caller waits.
#[derive(Debug, Parser)]
#[command(name = "modelring", version, propagate_version = true, max_term_width = 110)]
pub(crate) struct Cli {
    /// What to log: a level (error, warn, info, debug, trace), or directives such as `modelring_proxy=debug,warn`
    #[arg(long, global = true, env = "MODELRING_LOG", value_name = "FILTER")]
    pub(crate) log: Option<String>,

    /// How to log
    #[arg(long, global = true, env = "MODELRING_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text, hide_env_values = true)]
    pub(crate) log_format: LogFormat,

    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Form of log lines.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

/// The processes and tools.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve a folder of manifests on this machine: every part of the mesh in one process
    Up(up::Args),
    /// Send one inference request and print the answer
    Infer(infer::Args),
    /// Show models, copies and instances: where, how large, in which state, and what is wrong
    Status(status::Args),
    /// Run a proxy: takes calls, routes them by model name, has cold models loaded
    Proxy(proxy::Args),
    /// Run control: reads the manifests, decides how many copies, tells the proxies
    Control(control::Args),
    /// Run an agent: pulls models and drives the model server beside it
    Agent(Box<agent::Args>),
    /// Run the embedded ONNX model server
    Runtime(runtime::Args),
}

/// A number of bytes: `1073741824`, `512MiB`, `1.5GiB`, `500MB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bytes(pub(crate) u64);

/// A length of time: `500ms`, `30s`, `5m`, `1h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seconds(pub(crate) std::time::Duration);

// === impl Bytes ===

impl FromStr for Bytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const UNITS: [(&str, f64); 8] = [
            ("KiB", 1024.0),
            ("MiB", 1_048_576.0),
            ("GiB", 1_073_741_824.0),
            ("KB", 1e3),
            ("MB", 1e6),
            ("GB", 1e9),
            ("B", 1.0),
            ("", 1.0),
        ];
        number_and_unit(text, &UNITS)
            .filter(|bytes| *bytes < 1e18)
            .map(|bytes| Self(bytes as u64))
            .ok_or_else(|| format!("`{text}` is not a number of bytes such as 512MiB or 1.5GiB"))
    }
}

// === impl Seconds ===

impl FromStr for Seconds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const UNITS: [(&str, f64); 4] = [("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];
        number_and_unit(text, &UNITS)
            .filter(|seconds| *seconds < 1e9)
            .map(|seconds| Self(std::time::Duration::from_secs_f64(seconds)))
            .ok_or_else(|| format!("`{text}` is not a length of time such as 500ms, 30s or 5m"))
    }
}

/// The number before the first matching unit, in units of 1; units are tried in order.
fn number_and_unit(text: &str, units: &[(&str, f64)]) -> Option<f64> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let (_, factor) = units.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit.trim()))?;
    Some(number.parse::<f64>().ok()? * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_take_units() {
        assert_eq!("512MiB".parse(), Ok(Bytes(512 << 20)));
        assert_eq!("1.5 gib".parse(), Ok(Bytes(3 << 29)));
        assert_eq!("42".parse(), Ok(Bytes(42)));
        assert!("-1".parse::<Bytes>().is_err());
        assert!("ten".parse::<Bytes>().is_err());
        assert!("1e30GiB".parse::<Bytes>().is_err());
    }

    #[test]
    fn seconds_take_units() {
        assert_eq!("500ms".parse(), Ok(Seconds(std::time::Duration::from_millis(500))));
        assert_eq!("2m".parse(), Ok(Seconds(std::time::Duration::from_secs(120))));
        assert!("5".parse::<Seconds>().is_err());
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
