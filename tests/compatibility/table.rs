//! The rows of the table.

use std::{collections::HashSet, fs};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

/// One behaviour.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Row {
    /// `area.topic.name`, unique.
    pub(crate) id: String,
    /// What Modelring does.
    pub(crate) does: String,
    /// Where it is specified.
    #[serde(rename = "source")]
    _source: String,
    /// How it relates to ModelMesh.
    pub(crate) verdict: Verdict,
    /// The tests that show it, `<package>::<binary> <test>` as cargo nextest names them, separated by commas; empty
    /// while the row is open.
    test: String,
}

/// How a behaviour relates to ModelMesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    /// As ModelMesh.
    Same,
    /// Deliberately better.
    Fixed,
    /// ModelMesh lacks it.
    Added,
    /// Not carried over.
    Dropped,
}

#[derive(Deserialize)]
struct File {
    row: Vec<Row>,
}

/// Reads the table.
pub(crate) fn read(path: &str) -> Result<Vec<Row>> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    let file: File = toml::from_str(&text).with_context(|| format!("{path} is not a table of rows"))?;
    let mut seen = HashSet::new();
    for row in &file.row {
        ensure!(seen.insert(&row.id), "{path} has two rows with id {}", row.id);
    }
    Ok(file.row)
}

// === impl Row ===

impl Row {
    /// The tests that show the row.
    pub(crate) fn tests(&self) -> impl Iterator<Item = &str> {
        self.test.split(',').map(str::trim).filter(|test| !test.is_empty())
    }

    /// First part of the id.
    pub(crate) fn area(&self) -> &str {
        self.id.split('.').next().unwrap_or(&self.id)
    }
}
