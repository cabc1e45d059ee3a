//! Rule `static-stability`: what a source no longer says is gone only if it was seen to go. A source that shrinks to
//! nothing, because it cannot be read or is another one, changes nothing.

/// Whether each of the things that were there before is there still, or was seen to go.
pub fn only_what_was_seen_to_go<T>(
    before: impl IntoIterator<Item = T>,
    is_there: impl Fn(&T) -> bool,
    seen_to_go: impl Fn(&T) -> bool,
) -> bool {
    before.into_iter().all(|thing| is_there(&thing) || seen_to_go(&thing))
}
