//! Figures for people and for files.

use std::{fs, path::PathBuf};

use anyhow::Result;
use serde::Serialize;

/// One figure of a benchmark, as it stands in `target/bench/NAME.json`.
#[derive(Debug, Serialize)]
pub(crate) struct Figure {
    /// What was measured.
    pub(crate) name: String,
    /// The figure.
    pub(crate) value: f64,
    /// Its unit; `x` for a ratio.
    pub(crate) unit: &'static str,
    /// Which way is better.
    pub(crate) better: Better,
    /// What is aimed at.
    pub(crate) goal: Option<f64>,
    /// What must not be missed.
    pub(crate) floor: Option<f64>,
}

/// Which way is better.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Better {
    Higher,
    Lower,
}

/// Writes `target/bench/NAME.json`.
pub(crate) fn write(name: &str, figures: &[Figure]) -> Result<()> {
    let dir = PathBuf::from("target/bench");
    fs::create_dir_all(&dir)?;
    let file = dir.join(format!("{name}.json"));
    fs::write(&file, serde_json::to_string_pretty(figures)? + "\n")?;
    println!("\nwritten to {}", file.display());
    Ok(())
}

/// The middle one of an odd number of figures, the lower of the middle two of an even one.
pub(crate) fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len().saturating_sub(1) / 2).copied().unwrap_or(f64::NAN)
}
