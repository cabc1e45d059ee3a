//! Which instances get new copies (bounded load).
//!
//! An instance whose calls keep it busier than 1.25 x the average of its runtime's instances, or that would evict what was
//! used more recently than on the others (cache age below 0.8 x their median), gets no new copies while others do. Bytes
//! in use say nothing: a cache is always full. An instance with memory to spare evicts nothing, so its cache is as old as
//! can be.
//!
//! The mark goes on at one bound and off at another, or an instance near a bound would change the order of all models again
//! and again. It is looked at every [`LOOK_EVERY`].

use std::time::Duration;

/// Between two looks; busy time is the average over this long.
pub const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Busier than so many times the average: no new copies.
const BUSY: f64 = 1.25;
/// Less busy than so many times the average: new copies again.
const BUSY_NO_MORE: f64 = 1.1;
/// With fewer calls at once than this nobody is busy.
const IDLE: f64 = 0.5;
/// A cache younger than so many times the median: no new copies.
const YOUNG: f64 = 0.8;
/// Older than so many times the median: new copies again.
const YOUNG_NO_MORE: f64 = 0.9;
/// Ages are told every 10 s; what differs by less says nothing.
const AGES_DIFFER: Duration = Duration::from_secs(10);

/// What is known of one instance.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Load {
    /// Calls at once on it, on average.
    pub busy: f64,
    /// How long the copy that it would evict next has been unused; `None` = it need not evict, or there is none.
    pub cache_age: Option<Duration>,
    /// Loads hang there beyond all their timeouts.
    pub hung: bool,
    /// The mark that it has.
    pub accepts: bool,
}

/// The marks of the instances of one runtime, in their order. At least one accepts, unless loads hang on all.
#[must_use]
pub fn marks(loads: &[Load]) -> Vec<bool> {
    let average = loads.iter().map(|load| load.busy).sum::<f64>() / loads.len().max(1) as f64;
    let median = median(loads);
    let mut marks: Vec<bool> =
        loads.iter().map(|load| !(load.hung || load.is_busy(average) || load.is_young(median))).collect();
    if !marks.contains(&true) {
        // The one with the oldest cache, of these the one with the fewest calls.
        let best = loads
            .iter()
            .enumerate()
            .filter(|(_, load)| !load.hung)
            .min_by(|(_, a), (_, b)| b.age().cmp(&a.age()).then(a.busy.total_cmp(&b.busy)));
        if let Some((best, _)) = best {
            marks[best] = true;
        }
    }
    marks
}

/// The middle cache age, the higher one of two.
fn median(loads: &[Load]) -> Duration {
    let mut ages: Vec<_> = loads.iter().map(Load::age).collect();
    ages.sort_unstable();
    ages.get(ages.len() / 2).copied().unwrap_or(Duration::MAX)
}

// === impl Load ===

impl Load {
    fn age(&self) -> Duration {
        self.cache_age.unwrap_or(Duration::MAX)
    }

    fn is_busy(&self, average: f64) -> bool {
        let bound = if self.accepts { BUSY } else { BUSY_NO_MORE };
        self.busy > IDLE && self.busy > bound * average
    }

    fn is_young(&self, median: Duration) -> bool {
        let bound = if self.accepts { YOUNG } else { YOUNG_NO_MORE };
        let age = self.age();
        median.saturating_sub(age) > AGES_DIFFER && age.as_secs_f64() < bound * median.as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CALM: Load = Load { busy: 0.0, cache_age: None, hung: false, accepts: true };

    fn busy(calls: f64) -> Load {
        Load { busy: calls, ..CALM }
    }

    fn aged(seconds: u64) -> Load {
        Load { cache_age: Some(Duration::from_secs(seconds)), ..CALM }
    }

    #[test]
    fn an_instance_busier_than_five_quarters_of_the_average_gets_nothing_new_until_it_is_calmer() {
        assert_eq!(marks(&[busy(6.0), busy(4.0), busy(4.0)]), [false, true, true]);
        assert_eq!(marks(&[busy(5.0), busy(4.0), busy(4.0)]), [true, true, true]);
        let marked = Load { accepts: false, ..busy(5.0) };
        assert_eq!(marks(&[marked, busy(4.0), busy(4.0)]), [false, true, true], "it was marked at a higher bound");
        assert_eq!(marks(&[Load { busy: 4.5, ..marked }, busy(4.0), busy(4.0)]), [true, true, true]);
        assert_eq!(marks(&[busy(0.3), busy(0.0), busy(0.0)]), [true, true, true], "nobody is busy");
    }

    #[test]
    fn an_instance_that_would_evict_younger_copies_than_the_others_gets_nothing_new() {
        assert_eq!(marks(&[aged(700), aged(1000), aged(1000)]), [false, true, true]);
        assert_eq!(marks(&[aged(850), aged(1000), aged(1000)]), [true, true, true]);
        let marked = Load { accepts: false, ..aged(850) };
        assert_eq!(marks(&[marked, aged(1000), aged(1000)]), [false, true, true]);
        assert_eq!(marks(&[aged(1), aged(8), aged(8)]), [true, true, true], "ages are not known so exactly");
    }

    #[test]
    fn while_most_have_memory_to_spare_the_full_ones_get_nothing_new() {
        assert_eq!(marks(&[aged(5000), CALM, CALM]), [false, true, true]);
        assert_eq!(marks(&[aged(5000), CALM]), [false, true]);
        assert_eq!(marks(&[aged(5000)]), [true]);
    }

    #[test]
    fn a_hung_load_marks_its_instance_also_where_it_is_the_only_one() {
        let hung = Load { hung: true, ..CALM };
        assert_eq!(marks(&[hung, CALM]), [false, true]);
        assert_eq!(marks(&[hung]), [false]);
        assert_eq!(marks(&[]), [] as [bool; 0]);
    }

    proptest! {
        #[test]
        fn at_least_one_always_accepts_unless_all_hang(
            loads in proptest::collection::vec(
                (0.0_f64..50.0, proptest::option::of(0_u64..100_000), proptest::bool::weighted(0.2), any::<bool>()),
                1..12,
            ),
        ) {
            let load = |(busy, age, hung, accepts): (f64, Option<u64>, bool, bool)| Load {
                busy,
                cache_age: age.map(Duration::from_secs),
                hung,
                accepts,
            };
            let loads: Vec<_> = loads.into_iter().map(load).collect();
            let marks = marks(&loads);
            prop_assert!(marks.contains(&true) || loads.iter().all(|load| load.hung));
            prop_assert!(loads.iter().zip(&marks).all(|(load, accepts)| !(load.hung && *accepts)));
            // Nothing that does not change makes a mark change twice.
            let again: Vec<_> = loads.iter().zip(&marks).map(|(load, accepts)| Load { accepts: *accepts, ..*load }).collect();
            prop_assert_eq!(super::marks(&again), marks);
        }
    }
}
