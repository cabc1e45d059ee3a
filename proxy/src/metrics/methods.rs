//! The values of the label `method`: a bounded set, so that no caller can fill anybody's memory with names.
//!
//! Known from the start are the methods of the usual protocols. Another one is learned when a model server has answered it
//! well; all others share [`OTHER`]. Finding one is a walk over a few names: no lock, no hash, no allocation.

use std::sync::{
    OnceLock,
    atomic::{AtomicUsize, Ordering},
};

/// Methods, most; the first is that of all others.
pub(super) const MOST: usize = 48;
/// Longest name that is learned, bytes.
const LONGEST: usize = 128;
/// What methods are called that nobody knows.
const OTHER: &str = "other";

/// The usual ones, the most frequent first.
const USUAL: [&str; 9] = [
    "/inference.GRPCInferenceService/ModelInfer",
    "/inference.GRPCInferenceService/ModelStreamInfer",
    "/inference.GRPCInferenceService/ModelMetadata",
    "/inference.GRPCInferenceService/ModelReady",
    "/inference.GRPCInferenceService/ModelConfig",
    "/inference.GRPCInferenceService/ModelStatistics",
    "/tensorflow.serving.PredictionService/Predict",
    "/org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions",
    "/grpc.health.v1.Health/Check",
];

/// Number of a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Method(u8);

/// The known methods.
#[derive(Debug)]
pub(super) struct Methods {
    paths: [OnceLock<Box<str>>; MOST - 1],
    known: AtomicUsize,
    /// Labels are full names.
    fq_names: bool,
}

// === impl Method ===

impl Method {
    /// From 0 to [`MOST`] - 1.
    pub(super) fn index(self) -> usize {
        self.0.into()
    }

    /// All that there can be.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        (0..MOST).map(|index| Self(index as u8))
    }
}

// === impl Methods ===

impl Methods {
    pub(super) fn new(fq_names: bool) -> Self {
        let paths =
            std::array::from_fn(|at| USUAL.get(at).map(|path| Box::from(*path)).map_or_else(OnceLock::new, Into::into));
        Self { paths, known: AtomicUsize::new(USUAL.len()), fq_names }
    }

    /// The number of `/pkg.Service/Method`.
    pub(super) fn of(&self, path: &str) -> Method {
        let known = self.paths.iter().map_while(OnceLock::get).position(|known| **known == *path);
        Method(known.map_or(0, |at| at as u8 + 1))
    }

    /// A model server has answered this method well.
    pub(super) fn learn(&self, path: &str) {
        let plain = path.len() <= LONGEST && path.bytes().all(|byte| byte.is_ascii_graphic());
        if !plain || self.of(path).index() != 0 {
            return;
        }
        let next = self
            .known
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |next| (next < self.paths.len()).then_some(next + 1));
        // Two threads that learn one method at once give it two numbers, which is shown as one.
        if let Ok(at) = next {
            let _ = self.paths[at].set(path.into());
        }
    }

    /// What a method is called in labels.
    pub(super) fn label(&self, method: Method) -> &str {
        let path = method.index().checked_sub(1).and_then(|at| self.paths[at].get());
        let Some(path) = path else { return OTHER };
        let full = path.trim_start_matches('/');
        if self.fq_names { full } else { full.rsplit('/').next().unwrap_or(full) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_is_known_from_the_start_or_learned_or_one_of_the_others() {
        let methods = Methods::new(false);
        let label = |path: &str| methods.label(methods.of(path)).to_owned();
        assert_eq!(label("/inference.GRPCInferenceService/ModelInfer"), "ModelInfer");
        assert_eq!(label("/my.Service/Guess"), "other");
        methods.learn("/my.Service/Guess");
        assert_eq!(label("/my.Service/Guess"), "Guess");
        let full = Methods::new(true);
        assert_eq!(
            full.label(full.of("/tensorflow.serving.PredictionService/Predict")),
            "tensorflow.serving.PredictionService/Predict"
        );
    }

    #[test]
    fn names_are_learned_until_the_set_is_full_and_odd_ones_never() {
        let methods = Methods::new(false);
        (0..1000).for_each(|n| methods.learn(&format!("/a.B/M{n}")));
        methods.learn("/a.B/new");
        let labels: std::collections::BTreeSet<_> = Method::all().map(|method| methods.label(method)).collect();
        assert_eq!(labels.len(), MOST);
        assert_eq!(methods.of("/a.B/new").index(), 0);
        let odd = Methods::new(false);
        for path in ["/a.B/\u{e4}", "/a.B/with blank", &format!("/a.B/{}", "x".repeat(200))] {
            odd.learn(path);
            assert_eq!(odd.of(path).index(), 0, "{path}");
        }
    }
}
