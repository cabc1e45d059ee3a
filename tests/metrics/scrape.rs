//! A strict reader of Prometheus' text format 0.0.4.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    net::SocketAddr,
    path::PathBuf,
    process::{Command, Stdio},
};

use harness::Rest;

/// What a process has shown.
#[derive(Debug, Default)]
pub(crate) struct Scrape {
    pub(crate) text: String,
    /// Kind by name.
    pub(crate) families: BTreeMap<String, String>,
    samples: Vec<Sample>,
}

#[derive(Debug)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

// === impl Scrape ===

impl Scrape {
    /// Scrapes what is shown there.
    pub(crate) async fn of(address: SocketAddr) -> Self {
        let answer = Rest::send(address, "GET", "/metrics", "").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
        Self::read(answer.text())
    }

    /// Reads a page and checks that it keeps the rules of the format.
    pub(crate) fn read(text: String) -> Self {
        let mut scrape = Self::default();
        let mut family: Option<(String, String)> = None;
        let mut seen = BTreeSet::new();
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, help) = help.split_once(' ').expect("a name and a text");
                assert!(!help.trim().is_empty() && !scrape.families.contains_key(name), "{line}");
                family = Some((name.to_owned(), String::new()));
                continue;
            }
            let (name, kind) = family.as_mut().expect("a sample belongs to a family");
            if let Some(told) = line.strip_prefix("# TYPE ") {
                let (of, told) = told.split_once(' ').expect("a name and a kind");
                assert!(of == name && ["counter", "gauge", "histogram"].contains(&told), "{line}");
                told.clone_into(kind);
                scrape.families.insert(name.clone(), kind.clone());
                continue;
            }
            let sample = Sample::read(line);
            let base = sample.name.strip_prefix(name.as_str()).unwrap_or_else(|| panic!("{line} is not of {name}"));
            let suffixes: &[&str] = if kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
            assert!(suffixes.contains(&base), "{line}");
            assert!(seen.insert((sample.name.clone(), sample.labels.clone())), "said twice: {line}");
            scrape.samples.push(sample);
        }
        scrape.check_histograms();
        Self { text, ..scrape }
    }

    /// The value under these labels, 0 where there is none.
    pub(crate) fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let fits = |sample: &&Sample| {
            sample.name == name
                && labels.iter().all(|(label, value)| sample.labels.get(*label).is_some_and(|is| is == value))
        };
        self.samples.iter().filter(fits).map(|sample| sample.value).sum()
    }

    /// All values of a label of a metric.
    pub(crate) fn values(&self, name: &str, label: &str) -> BTreeSet<&str> {
        let samples = self.samples.iter().filter(|sample| sample.name == name);
        samples.filter_map(|sample| sample.labels.get(label).map(String::as_str)).collect()
    }

    /// Names of the labels of a metric, in their order in the text.
    pub(crate) fn labels(&self, name: &str) -> Vec<String> {
        let line = self.text.lines().find(|line| line.starts_with(&format!("{name}{{"))).unwrap_or_default();
        let labels =
            line.split(['{', ',']).skip(1).filter_map(|pair| pair.split_once("=\"").map(|(name, _)| name.to_owned()));
        labels.filter(|label| label != "le").collect()
    }

    /// Upper bounds of a histogram, in order.
    pub(crate) fn bounds(&self, name: &str) -> Vec<&str> {
        let bucket = format!("{name}_bucket");
        let mut bounds = Vec::new();
        for sample in self.samples.iter().filter(|sample| sample.name == bucket) {
            let bound = sample.labels["le"].as_str();
            if bounds.first() == Some(&bound) {
                break;
            }
            bounds.push(bound);
        }
        bounds
    }

    /// Buckets grow, the last one is all, and the count says the same.
    fn check_histograms(&self) {
        for name in self.families.iter().filter(|(_, kind)| *kind == "histogram").map(|(name, _)| name) {
            let mut last = BTreeMap::new();
            for sample in self.samples.iter().filter(|sample| sample.name == format!("{name}_bucket")) {
                let mut labels = sample.labels.clone();
                labels.remove("le").expect("a bucket has a bound");
                let before = last.insert(labels, sample.value).unwrap_or(0.0);
                assert!(sample.value >= before, "{sample:?}");
            }
            for (labels, all) in last {
                let labels: Vec<_> = labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
                assert_eq!(self.value(&format!("{name}_count"), &labels), all, "{name} {labels:?}");
            }
        }
    }

    /// Has promtool look at the page, where it is there: it must parse, and names of our own must be as it wants them
    /// (ModelMesh's are as they are).
    pub(crate) fn check_by_promtool(&self) {
        let Some(promtool) = promtool() else {
            println!("promtool is missing: ./dev setup");
            return;
        };
        let mut child = Command::new(promtool)
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("promtool starts");
        child.stdin.take().expect("it is piped").write_all(self.text.as_bytes()).expect("promtool reads");
        let output = child.wait_with_output().expect("promtool ends");
        let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() || output.status.code() == Some(3), "promtool cannot read the page: {said}");
        let ours: Vec<&str> = said.lines().filter(|line| !line.starts_with("modelmesh_")).collect();
        assert!(ours.is_empty(), "{ours:#?}");
    }
}

// === impl Sample ===

impl Sample {
    fn read(line: &str) -> Self {
        let (series, value) = line.rsplit_once(' ').expect("a series and a value");
        let value = value.parse().unwrap_or_else(|_| panic!("no number: {line}"));
        let (name, rest) = series.split_once('{').map_or((series, None), |(name, rest)| (name, Some(rest)));
        let plain =
            |name: &str| !name.is_empty() && name.chars().all(|sign| sign.is_ascii_alphanumeric() || sign == '_');
        assert!(plain(name), "{line}");
        let mut labels = BTreeMap::new();
        for pair in
            rest.map(|rest| rest.strip_suffix("\"}").expect("labels end")).into_iter().flat_map(|it| it.split("\","))
        {
            let (label, value) = pair.split_once("=\"").unwrap_or_else(|| panic!("no label: {line}"));
            assert!(plain(label) && labels.insert(label.to_owned(), value.to_owned()).is_none(), "{line}");
        }
        Self { name: name.to_owned(), labels, value }
    }
}

fn promtool() -> Option<PathBuf> {
    let cache = std::env::var("MODELRING_CACHE").map_or_else(
        |_| PathBuf::from(std::env::var("HOME").unwrap_or_default()).join(".cache/modelring"),
        PathBuf::from,
    );
    let path = cache.join("bin/promtool");
    path.is_file().then_some(path)
}
