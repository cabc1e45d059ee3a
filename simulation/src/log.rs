//! What is told of a run: nothing, each event on stdout, or the last events, kept for whoever explains a broken rule.

use std::{cell::RefCell, collections::VecDeque, rc::Rc};

use crate::queue::Nanos;

/// Events that are kept.
const KEPT: usize = 20_000;
/// Events that are shown of a broken rule.
const SHOWN: usize = 80;

/// Where events are told.
#[derive(Clone, Debug, Default)]
pub enum Log {
    /// Nowhere.
    #[default]
    Off,
    /// On stdout.
    Print,
    /// The last ones are kept.
    Keep(Rc<RefCell<VecDeque<String>>>),
}

// === impl Log ===

impl Log {
    /// A log that keeps.
    #[must_use]
    pub fn keep() -> Self {
        Self::Keep(Rc::default())
    }

    /// Tells an event.
    pub fn write(&self, now: Nanos, what: impl FnOnce() -> String) {
        let line = |what: String| format!("{:>10.3} {}", now as f64 / 1e9, what);
        match self {
            Self::Off => {}
            Self::Print => println!("{}", line(what())),
            Self::Keep(kept) => {
                let mut kept = kept.borrow_mut();
                if kept.len() == KEPT {
                    kept.pop_front();
                }
                kept.push_back(line(what()));
            }
        }
    }

    /// The last events that concern what a broken rule names: its models, where it names any.
    #[must_use]
    pub fn last_of(&self, broken: &str) -> Vec<String> {
        let Self::Keep(kept) = self else { return Vec::new() };
        let kept = kept.borrow();
        let is_id = |word: &&str| word.contains("__isvc-");
        let trim = |word: &str| word.trim_matches(|c: char| !c.is_alphanumeric()).to_owned();
        let models: Vec<_> = broken.split_whitespace().filter(is_id).map(trim).collect();
        let lives = |line: &str| line.contains("starts") || line.contains("is killed") || line.contains("Fault(");
        let concerns = |line: &&String| {
            models.is_empty() || lives(line) || models.iter().any(|model| line.contains(model.as_str()))
        };
        let all: Vec<_> = kept.iter().filter(concerns).cloned().collect();
        all[all.len().saturating_sub(SHOWN)..].to_vec()
    }
}
