//! The journal of a model server that is a process of its own: a line for each thing that happens, written at once and
//! whole, so that nothing is lost when the process is killed.
//!
//! ```text
//! start
//! load BEGIN END MODEL LIFE        it was loaded; LIFE numbers the copies of a process
//! unloading AT MODEL               an unload has arrived
//! call BEGIN END MODEL LIFE        an inference
//! ```
//! Times are nanoseconds since 1970, by one clock for all processes of the machine.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{self, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use modelring_runtime::{Error, Loader, ModelFiles, OnnxLoader, Servable, Signature, Tensor};
use serde::{Deserialize, Serialize};

use crate::Habits;

/// What `modelring-test-server` is started with.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct ServerSettings {
    /// Where it serves.
    pub listen: SocketAddr,
    /// Its journal.
    pub journal: PathBuf,
    /// What it logs.
    pub log: String,
    /// Bytes that models may fill.
    pub capacity: u64,
    /// Threads that run inference.
    pub threads: usize,
    /// Bytes that each model takes, and that are predicted for it.
    pub size: u64,
    /// How long each load sleeps, milliseconds.
    pub load_delay_millis: u64,
    /// How long each load works at least, milliseconds.
    pub load_work_millis: u64,
}

/// A journal that is being written.
#[derive(Clone, Debug)]
pub struct JournalFile {
    file: Arc<File>,
}

/// One life of a copy in one process.
#[derive(Clone, Debug, Default)]
pub struct Life {
    /// Model id.
    pub model: String,
    /// When its load began and was done.
    pub load: (u64, u64),
    /// When its unload arrived.
    pub unloading: Option<u64>,
    /// Begin and end of each call.
    pub calls: Vec<(u64, u64)>,
}

/// What a journal says: the lives of each process that wrote it, in order.
#[derive(Clone, Debug, Default)]
pub struct Lives(pub Vec<Vec<Life>>);

struct FileLoader {
    journal: JournalFile,
    habits: Habits,
    lives: AtomicU64,
}

struct Written {
    model: Box<dyn Servable>,
    journal: JournalFile,
    id: String,
    life: u64,
    size: u64,
}

/// Nanoseconds since 1970.
#[must_use]
pub fn wall() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

// === impl ServerSettings ===

impl ServerSettings {
    /// What the loader does beside loading.
    #[must_use]
    pub fn habits(&self) -> Habits {
        Habits {
            load_delay: Duration::from_millis(self.load_delay_millis),
            load_work: Duration::from_millis(self.load_work_millis),
            size: self.size,
            predicted: self.size,
        }
    }
}

// === impl JournalFile ===

impl JournalFile {
    /// Opens a journal, behind what it says already, and notes the start of a process.
    ///
    /// # Errors
    /// Those of the file.
    pub fn append(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let journal = Self { file: Arc::new(file) };
        journal.note("start");
        Ok(journal)
    }

    /// A loader of ONNX models that writes into this journal.
    #[must_use]
    pub fn loader(&self, habits: Habits) -> impl Loader + use<> {
        FileLoader { journal: self.clone(), habits, lives: AtomicU64::new(0) }
    }

    /// One write for one line: lines of several threads do not mix.
    fn note(&self, line: &str) {
        let written = (&*self.file).write_all(format!("{line}\n").as_bytes());
        written.expect("the journal can be written");
    }
}

impl Loader for FileLoader {
    fn load(&self, files: &ModelFiles) -> Result<Box<dyn Servable>, Error> {
        let begin = wall();
        let mut model = OnnxLoader.load(files)?;
        while Duration::from_nanos(wall() - begin) < self.habits.load_work {
            model = OnnxLoader.load(files)?;
        }
        std::thread::sleep(self.habits.load_delay);
        let life = self.lives.fetch_add(1, Ordering::Relaxed);
        let id = files.id.clone();
        self.journal.note(&format!("load {begin} {} {id} {life}", wall()));
        Ok(Box::new(Written { model, journal: self.journal.clone(), id, life, size: self.habits.size }))
    }

    fn predict(&self, _files: &ModelFiles) -> Result<u64, Error> {
        Ok(self.habits.predicted)
    }

    fn unloading(&self, id: &str) {
        self.journal.note(&format!("unloading {} {id}", wall()));
    }
}

impl Servable for Written {
    fn signature(&self) -> &Signature {
        self.model.signature()
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn infer(&self, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, Error> {
        let begin = wall();
        let outputs = self.model.infer(inputs);
        self.journal.note(&format!("call {begin} {} {} {}", wall(), self.id, self.life));
        outputs
    }
}

// === impl Lives ===

impl Lives {
    /// Reads a journal; one that was never written is empty.
    ///
    /// # Panics
    /// When a line is not one of a journal.
    #[must_use]
    pub fn read(path: &Path) -> Self {
        let mut processes: Vec<BTreeMap<u64, Life>> = Vec::new();
        let text = std::fs::read_to_string(path).unwrap_or_default();
        // The last line may be on its way.
        for line in text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
            let words: Vec<&str> = line.split(' ').collect();
            let number =
                |word: &str| word.parse::<u64>().unwrap_or_else(|_| panic!("{line:?} is no line of a journal"));
            if words == ["start"] {
                processes.push(BTreeMap::new());
                continue;
            }
            let lives = processes.last_mut().expect("a journal begins with a start");
            match words[..] {
                ["load", begin, end, model, life] => {
                    let life = lives.entry(number(life)).or_default();
                    (life.model, life.load) = (model.to_owned(), (number(begin), number(end)));
                }
                ["unloading", at, model] => {
                    let at = number(at);
                    if let Some(life) = lives.values_mut().rev().find(|life| life.model == model) {
                        life.unloading.get_or_insert(at);
                    }
                }
                ["call", begin, end, _, life] => {
                    lives.entry(number(life)).or_default().calls.push((number(begin), number(end)));
                }
                _ => panic!("{line:?} is no line of a journal"),
            }
        }
        Self(processes.into_iter().map(|lives| lives.into_values().collect()).collect())
    }

    /// Loads of one model, or of all whose id begins so.
    #[must_use]
    pub fn loads(&self, prefix: &str) -> usize {
        self.all().filter(|life| life.model.starts_with(prefix)).count()
    }

    /// All lives.
    pub fn all(&self) -> impl Iterator<Item = &Life> {
        self.0.iter().flatten()
    }

    /// Checks that no inference lies outside its model's span from the end of its load to the arrival of its unload, and
    /// that no model was loaded twice without an unload between.
    ///
    /// # Panics
    /// When one does, naming it.
    pub fn assert_no_call_outside_its_span(&self, server: &str) {
        for lives in &self.0 {
            let mut last: BTreeMap<&str, &Life> = BTreeMap::new();
            for life in lives {
                let model = &life.model;
                for (begin, end) in &life.calls {
                    assert!(*begin >= life.load.1, "{server}: {model}: a call began before its model was loaded");
                    if let Some(unloading) = life.unloading {
                        let late = Duration::from_nanos(end.saturating_sub(unloading));
                        assert!(late.is_zero(), "{server}: {model}: a call ended {late:?} after the unload came");
                    }
                }
                if let Some(before) = last.insert(model, life) {
                    let gone = before.unloading.unwrap_or_else(|| panic!("{server}: {model}: loaded twice"));
                    assert!(gone <= life.load.1, "{server}: {model}: loaded again before its unload came");
                }
            }
        }
    }
}
