use proptest::prelude::*;

use super::*;

proptest! {
    #[test]
    fn the_ranges_of_an_object_follow_each_other_and_cover_it(bytes in 0..PART * 9) {
        let mut at = 0;
        for range in ranges(bytes) {
            prop_assert_eq!(range.start, at);
            prop_assert!(range.end > range.start && range.end - range.start <= PART);
            at = range.end;
        }
        prop_assert_eq!(at, bytes);
    }
}
