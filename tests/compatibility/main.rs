//! The compatibility table: every behaviour that a user of ModelMesh can see is a row of `tests/compatibility.toml`, and a
//! row that is true names the test that shows it.
//!
//! `compatibility check TABLE JUNIT PAGE` fails where a named test was not in the run or did not pass, and where PAGE is
//! not what the table makes; `compatibility page TABLE PAGE` writes PAGE.

mod page;
mod run;
mod table;

use std::{env, fs, process::ExitCode};

use anyhow::{Context, Result, bail};

fn main() -> ExitCode {
    match try_main() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("compatibility: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn try_main() -> Result<()> {
    let args: Vec<String> = env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["check", table, junit, page] => check(table, junit, page),
        ["page", table, page] => {
            let rows = table::read(table)?;
            fs::write(page, page::render(&rows)).with_context(|| format!("cannot write {page}"))
        }
        _ => bail!("usage: compatibility check TABLE JUNIT PAGE | compatibility page TABLE PAGE"),
    }
}

fn check(table: &str, junit: &str, page: &str) -> Result<()> {
    let rows = table::read(table)?;
    let passed = run::passed(junit)?;
    let mut shown = 0;
    let mut unshown = Vec::new();
    for row in &rows {
        let missing: Vec<&str> = row.tests().filter(|test| !passed.contains(*test)).collect();
        shown += usize::from(row.tests().next().is_some() && missing.is_empty());
        unshown.extend(
            missing
                .iter()
                .map(|test| format!("  {}: `{test}` did not pass in this run, or is not there, or is ignored", row.id)),
        );
    }
    println!("compatibility: {shown} of {} shown", rows.len());
    if !unshown.is_empty() {
        bail!("rows name tests that do not show them:\n{}", unshown.join("\n"));
    }
    if fs::read_to_string(page).unwrap_or_default() != page::render(&rows) {
        bail!("{page} is not what the table makes; run `./dev docs`");
    }
    Ok(())
}
