//! Calls by method and code. Each thread counts in a shard of its own; a scrape adds the shards up.

use std::{
    cell::Cell,
    collections::{BTreeMap, HashMap},
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use modelring_process::metrics::{Histogram, MESSAGE_SIZE, Metric, Options, Page, Seen, TIME};
use parking_lot::Mutex;

use super::{
    code,
    methods::{MOST, Method, Methods},
    names::*,
};
use crate::engine::policy::{Record, Subject};

/// Models and vmodels that are told apart, most; the calls of further ones share a label.
const MOST_SUBJECTS: usize = 2_000;
/// What further models are called.
const OTHER_MODELS: &str = "_other";

thread_local! {
    /// The shard of this thread.
    static SHARD: Cell<Option<usize>> = const { Cell::new(None) };
}

/// The calls of a process.
#[derive(Debug)]
pub(super) struct Calls {
    methods: Methods,
    shards: Box<[Shard]>,
    next: AtomicUsize,
    by_model: bool,
}

#[derive(Debug)]
struct Shard {
    /// By method and code, made when the first call of both ends.
    series: Box<[OnceLock<Box<Series>>]>,
    /// The same by model, where that is asked for.
    by_model: Mutex<ByModel>,
}

type ByModel = HashMap<Subject, BTreeMap<(Method, usize), Series>>;

/// Calls of one method that ended with one code.
#[derive(Debug)]
struct Series {
    api: Histogram,
    invoke: Histogram,
    request: Histogram,
    response: Histogram,
}

/// The same, as it is shown.
type Shown = BTreeMap<[String; 4], [Option<Seen>; 4]>;

// === impl Calls ===

impl Calls {
    /// For so many threads; more share shards.
    pub(super) fn new(options: &Options, threads: usize) -> Self {
        Self {
            methods: Methods::new(options.fq_names),
            shards: (0..threads.max(1)).map(|_| Shard::new()).collect(),
            next: AtomicUsize::new(0),
            by_model: options.per_model,
        }
    }

    pub(super) fn by_model(&self) -> bool {
        self.by_model
    }

    /// A call is over.
    pub(super) fn call(&self, record: &Record) {
        self.count(&record.path, record.subject.as_ref(), record.code, |series| {
            series.api.observe_time(record.took);
            if let Some((request, response)) = record.bytes {
                series.request.observe(request);
                series.response.observe(response);
            }
        });
    }

    /// A call that was sent to a server is over there.
    pub(super) fn invoked(&self, path: &str, subject: Option<&Subject>, code: u32, took: Duration) {
        if code == 0 {
            self.methods.learn(path);
        }
        self.count(path, subject, code, |series| series.invoke.observe_time(took));
    }

    fn count(&self, path: &str, subject: Option<&Subject>, code: u32, how: impl FnOnce(&Series)) {
        let (method, code) = (self.methods.of(path), code::index(code));
        let shard = &self.shards[self.shard()];
        if self.by_model {
            shard.by_model(subject, method, code, how);
        } else {
            how(shard.series[method.index() * code::NAMES.len() + code].get_or_init(Box::default));
        }
    }

    fn shard(&self) -> usize {
        let mine = SHARD.get().unwrap_or_else(|| {
            let mine = self.next.fetch_add(1, Ordering::Relaxed);
            SHARD.set(Some(mine));
            mine
        });
        mine % self.shards.len()
    }

    pub(super) fn show(&self, page: &mut Page) {
        let mut shown = Shown::new();
        for shard in &self.shards {
            for method in Method::all() {
                for (code, name) in code::NAMES.iter().enumerate() {
                    if let Some(series) = shard.series[method.index() * code::NAMES.len() + code].get() {
                        let labels =
                            [self.methods.label(method).to_owned(), (*name).to_owned(), String::new(), String::new()];
                        series.add_to(shown.entry(labels).or_default());
                    }
                }
            }
            for (subject, calls) in &*shard.by_model.lock() {
                for ((method, code), series) in calls {
                    let labels =
                        [self.methods.label(*method), code::NAMES[*code], subject.model.as_str(), &subject.vmodel];
                    series.add_to(shown.entry(labels.map(ToOwned::to_owned)).or_default());
                }
            }
        }
        let (metrics, labels): ([&'static Metric; 4], usize) = if self.by_model {
            ([&API_REQUEST_BY_MODEL, &INVOKE_MODEL_BY_MODEL, &REQUEST_SIZE_BY_MODEL, &RESPONSE_SIZE_BY_MODEL], 4)
        } else {
            ([&API_REQUEST, &INVOKE_MODEL, &REQUEST_SIZE, &RESPONSE_SIZE], 2)
        };
        for (which, metric) in metrics.into_iter().enumerate() {
            let mut series = page.series(metric);
            for (values, seen) in &shown {
                let values: Vec<&str> = values.iter().take(labels).map(String::as_str).collect();
                if let Some(seen) = &seen[which] {
                    series.histogram(&values, seen);
                }
            }
        }
    }
}

// === impl Shard ===

impl Shard {
    fn new() -> Self {
        Self { series: (0..MOST * code::NAMES.len()).map(|_| OnceLock::new()).collect(), by_model: Mutex::default() }
    }

    fn by_model(&self, subject: Option<&Subject>, method: Method, code: usize, how: impl FnOnce(&Series)) {
        let mut calls = self.by_model.lock();
        let name = |model: &str| Subject { model: model.into(), vmodel: "".into() };
        let none = name("");
        let mut subject = subject.unwrap_or(&none);
        let others = name(OTHER_MODELS);
        if calls.len() >= MOST_SUBJECTS && !calls.contains_key(subject) {
            subject = &others;
        }
        if !calls.contains_key(subject) {
            calls.insert(subject.clone(), BTreeMap::new());
        }
        if let Some(of_subject) = calls.get_mut(subject) {
            how(of_subject.entry((method, code)).or_default());
        }
    }
}

// === impl Series ===

impl Series {
    fn add_to(&self, sums: &mut [Option<Seen>; 4]) {
        for (sum, histogram) in sums.iter_mut().zip([&self.api, &self.invoke, &self.request, &self.response]) {
            let seen = histogram.seen();
            match sum {
                Some(sum) => sum.add(&seen),
                None if seen.count() > 0 => *sum = Some(seen),
                None => {}
            }
        }
    }
}

impl Default for Series {
    fn default() -> Self {
        Self {
            api: Histogram::new(&TIME),
            invoke: Histogram::new(&TIME),
            request: Histogram::new(&MESSAGE_SIZE),
            response: Histogram::new(&MESSAGE_SIZE),
        }
    }
}
