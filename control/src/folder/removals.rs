//! The removals that the watch of the folder saw. What goes with an event was taken away by somebody; what is only not there
//! any more may be back in a moment: a mount that is gone, a checkout that is on.

use std::collections::BTreeSet;

use notify::{
    Event, EventKind,
    event::{ModifyKind, RenameMode},
};

/// Names that are remembered; more at once is no removal one by one.
const MOST: usize = 1 << 16;

/// Names of files that were seen to go.
#[derive(Debug, Default)]
pub(super) struct Removals(BTreeSet<String>);

// === impl Removals ===

impl Removals {
    /// Takes in what the watch says.
    pub(super) fn note(&mut self, event: &Event) {
        let goes = match event.kind {
            EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(RenameMode::From)) => &event.paths[..],
            EventKind::Modify(ModifyKind::Name(RenameMode::Both)) => event.paths.get(..1).unwrap_or_default(),
            _ => return,
        };
        let names = goes.iter().filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()));
        for name in names {
            if self.0.len() < MOST {
                self.0.insert(name);
            }
        }
    }

    /// Whether this file was seen to go.
    pub(super) fn saw(&self, name: &str) -> bool {
        self.0.contains(name)
    }

    /// Forgets what counts no more: what was acted on, and what is there again.
    pub(super) fn forget(&mut self, counts_no_more: impl Fn(&str) -> bool) {
        self.0.retain(|name| !counts_no_more(name));
    }
}

#[cfg(test)]
mod tests {
    use notify::event::RemoveKind;

    use super::*;

    #[test]
    fn files_that_are_removed_or_renamed_away_are_seen_to_go_and_no_others() {
        let mut removals = Removals::default();
        let event =
            |kind, names: &[&str]| names.iter().fold(Event::new(kind), |event, name| event.add_path(name.into()));
        removals.note(&event(EventKind::Remove(RemoveKind::File), &["/d/a.yaml"]));
        removals.note(&event(EventKind::Modify(ModifyKind::Name(RenameMode::Both)), &["/d/b.yaml", "/d/c.yaml"]));
        removals.note(&event(EventKind::Modify(ModifyKind::Name(RenameMode::To)), &["/d/e.yaml"]));
        removals.note(&event(EventKind::Any, &["/d/f.yaml"]));
        assert_eq!(
            ["a", "b", "c", "e", "f"].map(|name| removals.saw(&format!("{name}.yaml"))),
            [true, true, false, false, false]
        );
        removals.forget(|name| name == "a.yaml");
        assert!(!removals.saw("a.yaml") && removals.saw("b.yaml"));
    }
}
