//! A model server that writes down what happens to its models: the embedded one, with a journal around its loader.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use modelring_runtime::{Error, Loader, ModelFiles, OnnxLoader, Servable, Signature, Tensor};

/// What the journal's loader does beside loading.
#[derive(Clone, Copy, Debug)]
pub struct Habits {
    /// How much longer each load takes, asleep.
    pub load_delay: Duration,
    /// How long each load works at least: a model of a few KiB loads in a moment, real ones do not.
    pub load_work: Duration,
    /// Bytes that each model says it takes.
    pub size: u64,
    /// Bytes that are predicted for each model.
    pub predicted: u64,
}

/// One life of a copy: from the end of its load to the arrival of its unload, with the calls that it answered.
#[derive(Clone, Debug)]
struct Span {
    loaded: Instant,
    unloading: Option<Instant>,
    calls: Vec<(Instant, Instant)>,
}

/// What happened to each model.
#[derive(Debug, Default)]
pub struct Journal {
    spans: Mutex<BTreeMap<String, Vec<Span>>>,
    loading_nanos: AtomicU64,
}

// === impl Journal ===

impl Journal {
    /// A loader of ONNX models that writes into this journal.
    #[must_use]
    pub fn loader(self: &Arc<Self>, habits: Habits) -> Arc<dyn Loader> {
        Arc::new(JournalLoader { journal: self.clone(), habits })
    }

    /// Loads of one model, or of all whose id begins so.
    #[must_use]
    pub fn loads(&self, prefix: &str) -> usize {
        self.spans().iter().filter(|(id, _)| id.starts_with(prefix)).map(|(_, spans)| spans.len()).sum()
    }

    /// Inferences in all.
    #[must_use]
    pub fn calls(&self) -> usize {
        self.spans().values().flatten().map(|span| span.calls.len()).sum()
    }

    /// Summed time that loads took.
    #[must_use]
    pub fn loading(&self) -> Duration {
        Duration::from_nanos(self.loading_nanos.load(Ordering::Relaxed))
    }

    /// Checks that no inference lies outside a span of its model. (A call is written into the span whose model it ran on,
    /// so what is left to check is its end.)
    ///
    /// # Panics
    /// When one does, naming it.
    pub fn assert_no_call_outside_its_span(&self) {
        for (id, spans) in self.spans().iter() {
            for span in spans {
                for (begin, end) in &span.calls {
                    assert!(*begin >= span.loaded, "{id}: a call began before its model was loaded");
                    if let Some(unloading) = span.unloading {
                        assert!(*end <= unloading, "{id}: a call ended {:?} after the unload came", *end - unloading);
                    }
                }
            }
            for pair in spans.windows(2) {
                let gone = pair[0].unloading.unwrap_or_else(|| panic!("{id}: loaded twice without an unload between"));
                assert!(gone <= pair[1].loaded, "{id}: loaded again before its unload came");
            }
        }
    }

    fn spans(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Vec<Span>>> {
        self.spans.lock().expect("nothing panics while it holds the journal")
    }
}

struct JournalLoader {
    journal: Arc<Journal>,
    habits: Habits,
}

impl Loader for JournalLoader {
    fn load(&self, files: &ModelFiles) -> Result<Box<dyn Servable>, Error> {
        let begin = Instant::now();
        let mut model = OnnxLoader.load(files)?;
        while begin.elapsed() < self.habits.load_work {
            model = OnnxLoader.load(files)?;
        }
        let took = u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.journal.loading_nanos.fetch_add(took, Ordering::Relaxed);
        std::thread::sleep(self.habits.load_delay);
        let mut spans = self.journal.spans();
        let lives = spans.entry(files.id.clone()).or_default();
        lives.push(Span { loaded: Instant::now(), unloading: None, calls: Vec::new() });
        let life = lives.len() - 1;
        let (journal, id, size) = (self.journal.clone(), files.id.clone(), self.habits.size);
        Ok(Box::new(Written { model, journal, id, life, size }))
    }

    fn predict(&self, _files: &ModelFiles) -> Result<u64, Error> {
        Ok(self.habits.predicted)
    }

    fn unloading(&self, id: &str) {
        if let Some(span) = self.journal.spans().get_mut(id).and_then(|spans| spans.last_mut()) {
            span.unloading.get_or_insert_with(Instant::now);
        }
    }
}

struct Written {
    model: Box<dyn Servable>,
    journal: Arc<Journal>,
    id: String,
    life: usize,
    size: u64,
}

impl Servable for Written {
    fn signature(&self) -> &Signature {
        self.model.signature()
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn infer(&self, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, Error> {
        let begin = Instant::now();
        let outputs = self.model.infer(inputs);
        if let Some(span) = self.journal.spans().get_mut(&self.id).and_then(|spans| spans.get_mut(self.life)) {
            span.calls.push((begin, Instant::now()));
        }
        outputs
    }
}
