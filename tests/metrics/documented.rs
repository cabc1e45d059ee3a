//! The page on observing lists every metric, and nothing else.

use std::{fmt::Write, fs};

use harness::Folder;
use modelring_process::metrics::{Metric, OWN};

use crate::scrape::Scrape;

const BEGIN: &str = "<!-- metrics: begin -->\n";
const END: &str = "<!-- metrics: end -->\n";

/// Everything that is shown is listed, as it is listed; and of what is listed all is shown that needs no special event.
pub(crate) fn assert_all_are_listed(shown: &Scrape, metrics: &[&Metric]) {
    let listed = || metrics.iter().chain(OWN);
    for (name, kind) in shown.families.iter().filter(|(name, _)| !metrics.is_empty() || name.starts_with("process_")) {
        let metric = listed().find(|metric| metric.name == name);
        let metric = metric.unwrap_or_else(|| panic!("{name} is shown and not listed"));
        assert_eq!(metric.kind.as_str(), kind, "{name}");
    }
    let special = ["modelring_agent_next_victim_age_seconds"];
    for metric in listed().filter(|metric| !special.contains(&metric.name)) {
        assert!(shown.families.contains_key(metric.name), "{} is listed and not shown", metric.name);
    }
}

fn table(metrics: &[&Metric]) -> String {
    let mut table = "| metric | kind | labels | says |\n|---|---|---|---|\n".to_owned();
    for metric in metrics {
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        let _ = writeln!(
            table,
            "| `{}` | {} | {} | {} |",
            metric.name,
            metric.kind.as_str(),
            labels.join(", "),
            metric.help.trim_end_matches('.')
        );
    }
    table
}

#[test]
fn the_documented_metrics_are_those_that_there_are() {
    let path = Folder::checkout().join("docs/observing.md");
    let page = fs::read_to_string(&path).expect("the page is there");
    let (before, rest) = page.split_once(BEGIN).expect("the list has a beginning");
    let (listed, after) = rest.split_once(END).expect("the list has an end");
    let mut expected = String::new();
    for (title, metrics) in [
        ("Proxy", modelring_proxy::metrics::METRICS),
        ("Agent", modelring_agent::metrics::METRICS),
        ("Control", modelring_control::metrics::METRICS),
        ("Every process", OWN),
    ] {
        let _ = write!(expected, "\n### {title}\n\n{}", table(metrics));
    }
    expected.push('\n');
    if listed != expected && std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, format!("{before}{BEGIN}{expected}{END}{after}")).expect("the page can be written");
        return;
    }
    assert_eq!(listed, expected, "UPDATE_DOCS=1 writes the list anew");
}

#[test]
fn what_was_of_the_jvm_or_for_statsd_is_not_there() {
    let all = [
        modelring_proxy::metrics::METRICS,
        modelring_agent::metrics::METRICS,
        modelring_control::metrics::METRICS,
        OWN,
    ];
    for name in all.into_iter().flatten().map(|metric| metric.name) {
        let is_gone = ["jvm_", "netty_"].iter().any(|gone| name.starts_with(gone));
        assert!(!is_gone && !name.ends_with("_statsd") && !name.contains("mem_detail"), "{name}");
    }
}
