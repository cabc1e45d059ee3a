//! How much memory to reserve for a model whose files are known: learned per type from what loaded models turned out to
//! need.

use std::collections::HashMap;

/// Bytes in memory per byte on disk, before anything is learned.
const AT_FIRST: f64 = 1.25;
/// Weight of the newest model.
const NEWEST: f64 = 0.2;
/// Most types that are remembered.
const MOST_TYPES: usize = 1024;

/// What is known of the types of models.
#[derive(Debug, Default)]
pub(super) struct Sizes {
    factors: HashMap<String, f64>,
}

// === impl Sizes ===

impl Sizes {
    /// Bytes to reserve for so many bytes of files.
    pub(super) fn expected(&self, model_type: &str, on_disk: u64) -> u64 {
        let factor = self.factors.get(model_type).copied().unwrap_or(AT_FIRST);
        (on_disk as f64 * factor).ceil() as u64
    }

    /// A model of so many bytes of files needed so many bytes in memory.
    pub(super) fn learn(&mut self, model_type: &str, on_disk: u64, in_memory: u64) {
        if on_disk == 0 || in_memory == 0 {
            return;
        }
        // Memory below the size on disk is believed only in part: the next model may not be compressed.
        let seen = (in_memory as f64 / on_disk as f64).clamp(0.5, 1e3);
        if let Some(factor) = self.factors.get_mut(model_type) {
            *factor += (seen - *factor) * NEWEST;
        } else if self.factors.len() < MOST_TYPES {
            self.factors.insert(model_type.to_owned(), seen);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_factor_starts_at_five_quarters_and_follows_what_is_seen() {
        let mut sizes = Sizes::default();
        assert_eq!(sizes.expected("mt:onnx", 1000), 1250);
        sizes.learn("mt:onnx", 1000, 2000);
        assert_eq!(sizes.expected("mt:onnx", 1000), 2000);
        assert_eq!(sizes.expected("mt:other", 1000), 1250);
        for _ in 0..50 {
            sizes.learn("mt:onnx", 1000, 3000);
        }
        assert_eq!(sizes.expected("mt:onnx", 1000), 3000);
    }

    #[test]
    fn nothing_is_learned_from_nothing() {
        let mut sizes = Sizes::default();
        sizes.learn("mt:onnx", 0, 5);
        sizes.learn("mt:onnx", 5, 0);
        assert_eq!(sizes.expected("mt:onnx", 1000), 1250);
        assert_eq!(sizes.expected("mt:onnx", 0), 0);
    }
}
