use proptest::prelude::*;

use super::*;
use crate::storage::record::Records;

fn record(bytes: u64) -> Record {
    let dir = tempfile::tempdir().unwrap();
    Records::open(dir.path().to_owned()).unwrap().new_record("r".to_owned(), "f".to_owned(), bytes)
}

fn id(name: &str) -> ModelId {
    name.into()
}

#[test]
fn the_least_recently_used_files_go_and_those_in_use_stay() {
    let mut tier = Tier::new(10);
    for name in ["a", "b", "c"] {
        tier.add(id(name), record(3));
    }
    tier.pin(&id("a"));
    tier.pin(&id("new"));
    assert_eq!(tier.reserve(&id("new"), 3, 100).unwrap(), [id("b")]);
    tier.pin(&id("other"));
    let short = tier.reserve(&id("other"), 5, 100).unwrap_err();
    assert_eq!((short.limit, short.in_use), (10, 6));
    assert_eq!(tier.record(&id("c")), Some(&record(3)), "nothing goes in vain");
    tier.unpin(&id("a"));
    assert_eq!(tier.reserve(&id("other"), 5, 100).unwrap(), [id("c"), id("a")]);
}

#[test]
fn a_full_volume_counts_as_the_limit_does_and_promises_count_as_written() {
    let mut tier = Tier::new(1000);
    tier.add(id("old"), record(5));
    tier.pin(&id("new"));
    assert_eq!(tier.reserve(&id("new"), 4, 3).unwrap(), [id("old")]);
    tier.pin(&id("more"));
    assert!(tier.reserve(&id("more"), 4, 6).is_err(), "4 of the 6 are promised");
    tier.keep(&id("new"), record(4));
    assert_eq!(tier.reserve(&id("more"), 2, 2).unwrap(), Vec::<ModelId>::new());
}

#[test]
fn what_was_promised_to_a_pull_that_ended_is_free_again() {
    let mut tier = Tier::new(10);
    tier.pin(&id("a"));
    tier.reserve(&id("a"), 10, 100).unwrap();
    tier.unpin(&id("a"));
    assert_eq!(tier.used(), 0);
}

proptest! {
    #[test]
    fn files_are_within_the_limit_and_nothing_in_use_goes(steps in proptest::collection::vec((0..4_u8, 0..5_u8, 1..8_u64), 1..60)) {
        let mut tier = Tier::new(12);
        let mut pins = HashMap::<ModelId, u32>::new();
        for (step, model, bytes) in steps {
            let model = id(&format!("m{model}"));
            let pinned = pins.get(&model).copied().unwrap_or(0);
            match step {
                0 if pinned == 0 => {
                    tier.pin(&model);
                    if let Ok(victims) = tier.reserve(&model, bytes, 100) {
                        for victim in victims {
                            prop_assert_eq!(pins.get(&victim).copied().unwrap_or(0), 0);
                        }
                        pins.insert(model, 1);
                    } else {
                        tier.unpin(&model);
                    }
                }
                1 if pinned > 0 => tier.keep(&model, record(bytes.min(tier.items[&model].bytes))),
                2 if pinned > 0 => {
                    tier.unpin(&model);
                    pins.insert(model, pinned - 1);
                }
                3 => tier.forget(&model),
                _ => {}
            }
            prop_assert!(tier.used() <= 12);
        }
        for (model, count) in pins {
            for _ in 0..count {
                tier.unpin(&model);
            }
        }
        prop_assert!(tier.items.values().all(|item| item.pins == 0 && item.record.is_some()));
    }
}
