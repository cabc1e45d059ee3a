//! Metrics as Prometheus scrapes them: text format 0.0.4, as ModelMesh's were, so that its dashboards go on.
//!
//! Values live where they are counted (atomics; the hot ones in a shard per thread) and are read when somebody scrapes: a
//! [`Collect`] writes them to a [`Page`]. A counter has the name that it is given: no suffix is appended, since ModelMesh's
//! counters and gauges do not follow the convention of today.
//!
//! | module | does |
//! |---|---|
//! | `page` | the text, and the `name[]=` filter |
//! | `value` | histograms |
//! | `own` | what the process uses: memory, CPU, descriptors |
//! | `options` | ModelMesh's environment variables for metrics |
//! | `serve` | `GET /metrics`, gzip if asked |

mod options;
mod own;
mod page;
mod serve;
mod value;

use std::{future::Future, pin::Pin};

pub use options::{Options, OptionsError};
pub use own::{METRICS as OWN, Own};
pub use page::{Page, Series};
pub use serve::routes;
pub use value::{AGE, Buckets, Histogram, MESSAGE_SIZE, MODEL_SIZE, Seen, TIME};

/// What kind of values a metric has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows while the process lives.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by size.
    Histogram,
}

/// A metric: what scrapers and the documentation are told of it.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Name.
    pub name: &'static str,
    /// Kind of its values.
    pub kind: Kind,
    /// Names of its labels.
    pub labels: &'static [&'static str],
    /// What it says, for people.
    pub help: &'static str,
}

/// A future that writes to a page.
pub type Collecting<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// Has values to show.
pub trait Collect: Send + Sync + 'static {
    /// Writes all values as they are now.
    fn collect<'a>(&'a self, page: &'a mut Page) -> Collecting<'a>;
}

// === impl Kind ===

impl Kind {
    /// As the text format calls it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

// === impl Metric ===

impl Metric {
    /// A counter.
    #[must_use]
    pub const fn counter(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Self {
        Self { name, kind: Kind::Counter, labels, help }
    }

    /// A gauge.
    #[must_use]
    pub const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Self {
        Self { name, kind: Kind::Gauge, labels, help }
    }

    /// A histogram.
    #[must_use]
    pub const fn histogram(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Self {
        Self { name, kind: Kind::Histogram, labels, help }
    }
}
