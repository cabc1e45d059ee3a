//! Which tests passed, from the JUnit file of a cargo nextest run.

use std::{collections::HashSet, fs};

use anyhow::{Context, Result};
use roxmltree::{Document, Node};

/// `<binary id> <test>` of every test that ran and passed.
pub(crate) fn passed(path: &str) -> Result<HashSet<String>> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {path}; it is written by `./dev test`"))?;
    let document = Document::parse(&text).with_context(|| format!("{path} is no JUnit file"))?;
    Ok(document.descendants().filter(|node| node.has_tag_name("testcase")).filter(is_passed).filter_map(name).collect())
}

fn is_passed(case: &Node<'_, '_>) -> bool {
    !case.children().any(|child| ["failure", "error", "skipped"].iter().any(|tag| child.has_tag_name(*tag)))
}

fn name(case: Node<'_, '_>) -> Option<String> {
    let suite = case.parent()?.attribute("name")?;
    Some(format!("{suite} {}", case.attribute("name")?))
}
