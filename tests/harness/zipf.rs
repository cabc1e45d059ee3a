//! A Zipf law.

/// Draws ranks `0..n` with probability proportional to `1 / (rank + 1)^exponent`.
#[derive(Clone, Debug)]
pub struct Zipf {
    cumulated: Vec<f64>,
}

// === impl Zipf ===

impl Zipf {
    /// A law over `n` ranks.
    #[must_use]
    pub fn new(n: usize, exponent: f64) -> Self {
        let mut sum = 0.0;
        let cumulated = (1..=n)
            .map(|rank| {
                sum += (rank as f64).powf(-exponent);
                sum
            })
            .collect();
        Self { cumulated }
    }

    /// The rank for a number drawn evenly from `0.0..1.0`.
    #[must_use]
    pub fn rank(&self, drawn: f64) -> usize {
        let total = self.cumulated.last().copied().unwrap_or(1.0);
        self.cumulated.partition_point(|sum| *sum <= drawn * total).min(self.cumulated.len().saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rank_is_drawn_most() {
        let zipf = Zipf::new(3, 1.0);
        // Shares 6/11, 3/11, 2/11.
        assert_eq!([0.0, 0.5, 0.6, 0.8, 0.83, 0.999].map(|drawn| zipf.rank(drawn)), [0, 0, 1, 1, 2, 2]);
    }
}
