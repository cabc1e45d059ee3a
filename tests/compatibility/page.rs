//! The table as a page for people.

use std::fmt::Write;

use crate::table::{Row, Verdict};

/// The whole page.
pub(crate) fn render(rows: &[Row]) -> String {
    let shown = rows.iter().filter(|row| row.tests().next().is_some()).count();
    let mut page = format!(
        "<!-- made from tests/compatibility.toml by `./dev docs`; do not edit -->\n\
         # Compatibility with ModelMesh Serving\n\n\
         Every behaviour that a user of ModelMesh can see is a row here. {shown} of {} are shown by a test of this \
         repository; the others are open.\n\n\
         | verdict | meaning |\n|---|---|\n\
         | same | as in ModelMesh |\n| fixed | deliberately better |\n| added | ModelMesh lacks it |\n| dropped | not carried over |\n",
        rows.len()
    );
    for area in rows.chunk_by(|left, right| left.area() == right.area()) {
        let (Some(first), shown) = (area.first(), area.iter().filter(|row| row.tests().next().is_some()).count())
        else {
            continue;
        };
        // Writing to a String cannot fail.
        let _ = write!(
            page,
            "\n## {} ({shown} of {})\n\n| row | what Modelring does | verdict | shown by |\n|---|---|---|---|\n",
            first.area(),
            area.len()
        );
        for row in area {
            let tests: Vec<String> = row.tests().map(|test| format!("`{test}`")).collect();
            let _ = writeln!(
                page,
                "| `{}` | {} | {} | {} |",
                row.id,
                row.does.replace('|', "\\|"),
                verdict(row.verdict),
                if tests.is_empty() { "open".to_owned() } else { tests.join("<br>") }
            );
        }
    }
    page
}

fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Same => "same",
        Verdict::Fixed => "fixed",
        Verdict::Added => "added",
        Verdict::Dropped => "dropped",
    }
}
