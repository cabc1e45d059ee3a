//! `--watch`: shows every change, in place on a terminal.

use std::{
    io::{IsTerminal, Read},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::Result;
use tokio::sync::mpsc;

use super::{Args, Output, screen, shown, write};
use crate::{observe::Observer, signal::Stop};

/// Shortest time between two showings.
const BETWEEN: Duration = Duration::from_millis(250);
/// The cursor at the upper left.
const HOME: &str = "\x1b[H";
/// To the end of the line, and of the screen, nothing.
const REST_OF_LINE: &str = "\x1b[K\n";
const REST_OF_SCREEN: &str = "\x1b[J";

/// A terminal that hands on keys at once. Restored when dropped.
struct Keys(Option<String>);

/// Shows changes until Ctrl-C, `q`, or nobody reads any more.
pub(super) async fn run(args: &Args, mut observer: Observer) -> Result<()> {
    let mut stop = Stop::listen()?;
    let in_place = std::io::stdout().is_terminal() && args.output == Output::Table && !args.json;
    let _keys = Keys::take(in_place);
    let mut pressed = keys(in_place);
    if in_place {
        write("\x1b[2J")?;
    }
    let mut last = String::new();
    loop {
        let text = shown(args, &observer.mesh(), screen());
        if text != last {
            write(&if in_place { placed(&text) } else { text.clone() })?;
            last = text;
        }
        tokio::select! {
            () = stop.asked() => return Ok(()),
            key = key(&mut pressed) => if matches!(key, b'q' | b'Q') {
                return Ok(());
            },
            () = async {
                observer.changed().await;
                tokio::time::sleep(BETWEEN).await;
            } => {}
        }
    }
}

/// Text over what stood there, without a flicker.
fn placed(text: &str) -> String {
    format!("{HOME}{}{REST_OF_SCREEN}", text.replace('\n', REST_OF_LINE))
}

/// What is typed, where somebody can.
fn keys(wanted: bool) -> Option<mpsc::Receiver<u8>> {
    if !wanted || !std::io::stdin().is_terminal() {
        return None;
    }
    let (sender, keys) = mpsc::channel(1);
    // Ends with the process: a read cannot be given up.
    std::thread::spawn(move || {
        let mut key = [0];
        while std::io::stdin().read_exact(&mut key).is_ok() && sender.blocking_send(key[0]).is_ok() {}
    });
    Some(keys)
}

/// The next key; never where none will come.
async fn key(keys: &mut Option<mpsc::Receiver<u8>>) -> u8 {
    if let Some(pressed) = keys {
        match pressed.recv().await {
            Some(key) => return key,
            None => *keys = None,
        }
    }
    std::future::pending().await
}

// === impl Keys ===

impl Keys {
    /// Where there is no stty, `q` needs Enter.
    fn take(wanted: bool) -> Self {
        let before = (wanted && std::io::stdin().is_terminal()).then(|| stty(&["-g"])).flatten();
        if before.is_some() {
            stty(&["-icanon", "-echo"]);
        }
        Self(before)
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            stty(&[before]);
        }
    }
}

fn stty(args: &[&str]) -> Option<String> {
    let output = Command::new("stty").args(args).stdin(Stdio::inherit()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
