//! The text that is scraped.

use std::fmt::Write;

use super::{Kind, Metric, Seen};

/// A page of metrics under way.
#[derive(Debug, Default)]
pub struct Page {
    text: String,
    /// Only what has one of these names is shown; empty = all.
    names: Vec<String>,
}

/// One metric of a page: takes its values.
#[derive(Debug)]
pub struct Series<'a> {
    page: &'a mut Page,
    metric: &'static Metric,
    begun: bool,
}

// === impl Page ===

impl Page {
    /// An empty page that shows what has one of these names (of a metric, or of one of its lines); none = all.
    #[must_use]
    pub fn new(names: Vec<String>) -> Self {
        Self { text: String::new(), names }
    }

    /// The text so far.
    #[must_use]
    pub fn into_text(self) -> String {
        self.text
    }

    /// Begins a metric. It shows once it has a value.
    pub fn series(&mut self, metric: &'static Metric) -> Series<'_> {
        Series { page: self, metric, begun: false }
    }

    /// A metric with one value and no labels.
    pub fn value(&mut self, metric: &'static Metric, value: impl Into<Number>) {
        self.series(metric).value(&[], value);
    }

    /// A histogram without labels.
    pub fn histogram(&mut self, metric: &'static Metric, seen: &Seen) {
        self.series(metric).histogram(&[], seen);
    }

    fn shows(&self, metric: &Metric, line: &str) -> bool {
        self.names.is_empty() || self.names.iter().any(|name| name == metric.name || name == line)
    }
}

/// A value of a line.
#[derive(Clone, Copy, Debug)]
pub enum Number {
    /// A whole number.
    Whole(u64),
    /// Any other.
    Real(f64),
}

// === impl Number ===

impl From<u64> for Number {
    fn from(value: u64) -> Self {
        Self::Whole(value)
    }
}

impl From<u32> for Number {
    fn from(value: u32) -> Self {
        Self::Whole(value.into())
    }
}

impl From<usize> for Number {
    fn from(value: usize) -> Self {
        Self::Whole(value as u64)
    }
}

impl From<bool> for Number {
    fn from(value: bool) -> Self {
        Self::Whole(value.into())
    }
}

impl From<f64> for Number {
    fn from(value: f64) -> Self {
        Self::Real(value)
    }
}

// === impl Series ===

impl Series<'_> {
    /// A value under these label values, in the order of the metric's labels.
    pub fn value(&mut self, labels: &[&str], value: impl Into<Number>) {
        self.line("", labels, None, value.into());
    }

    /// A histogram under these label values.
    pub fn histogram(&mut self, labels: &[&str], seen: &Seen) {
        debug_assert_eq!(self.metric.kind, Kind::Histogram, "{}", self.metric.name);
        for (bound, count) in seen.cumulated() {
            let bound = bound.map_or_else(|| "+Inf".to_owned(), |bound| format!("{bound:?}"));
            self.line("_bucket", labels, Some(&bound), count.into());
        }
        self.line("_sum", labels, None, seen.sum().into());
        self.line("_count", labels, None, seen.count().into());
    }

    fn line(&mut self, suffix: &str, labels: &[&str], bound: Option<&str>, value: Number) {
        debug_assert_eq!(labels.len(), self.metric.labels.len(), "labels of {}", self.metric.name);
        let name = format!("{}{suffix}", self.metric.name);
        if !self.page.shows(self.metric, &name) {
            return;
        }
        let Metric { name: family, kind, help, .. } = *self.metric;
        let text = &mut self.page.text;
        if !std::mem::replace(&mut self.begun, true) {
            // Writing to a String cannot fail, here and below.
            let _ = writeln!(text, "# HELP {family} {help}\n# TYPE {family} {}", kind.as_str());
        }
        text.push_str(&name);
        let pairs = self.metric.labels.iter().copied().zip(labels.iter().copied()).chain(bound.map(|le| ("le", le)));
        let mut open = '{';
        for (label, value) in pairs {
            let _ = write!(text, "{open}{label}=\"");
            escape(text, value);
            text.push('"');
            open = ',';
        }
        if open == ',' {
            text.push('}');
        }
        let _ = match value {
            Number::Whole(value) => writeln!(text, " {value}"),
            Number::Real(value) => writeln!(text, " {value:?}"),
        };
    }
}

fn escape(text: &mut String, value: &str) {
    for sign in value.chars() {
        match sign {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            sign => text.push(sign),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Buckets, *};
    use crate::metrics::Histogram;

    static CALLS: Metric = Metric::counter("calls_total", &["method", "code"], "calls");
    static SIZE: Metric = Metric::histogram("size_bytes", &[], "sizes");
    static FEW: Buckets = Buckets { bounds: &[10, 20], per: 10.0 };

    fn page(names: &[&str]) -> String {
        let mut page = Page::new(names.iter().map(ToString::to_string).collect());
        page.series(&CALLS).value(&["a\"\\\nb", "OK"], 3_u64);
        let sizes = Histogram::new(&FEW);
        [10, 11, 100].iter().for_each(|value| sizes.observe(*value));
        page.histogram(&SIZE, &sizes.seen());
        page.into_text()
    }

    #[test]
    fn the_text_is_that_of_the_format() {
        let text = "# HELP calls_total calls\n# TYPE calls_total counter\ncalls_total{method=\"a\\\"\\\\\\nb\",code=\"OK\"} 3\n\
                    # HELP size_bytes sizes\n# TYPE size_bytes histogram\nsize_bytes_bucket{le=\"1.0\"} 1\n\
                    size_bytes_bucket{le=\"2.0\"} 2\nsize_bytes_bucket{le=\"+Inf\"} 3\nsize_bytes_sum 12.1\nsize_bytes_count 3\n";
        assert_eq!(page(&[]), text);
    }

    #[test]
    fn only_what_is_asked_for_is_shown() {
        assert!(page(&["calls_total"]).contains("calls_total{") && !page(&["calls_total"]).contains("size_bytes"));
        let count = page(&["size_bytes_count"]);
        assert!(count.ends_with("size_bytes_count 3\n") && !count.contains("bucket"), "{count}");
        assert_eq!(page(&["size_bytes"]).lines().count(), 7);
        assert_eq!(page(&["none"]), "");
    }
}
