//! The field that a line of YAML is about. The parser knows lines and columns; people look for names.

/// The dotted path of the field on a line (1-based) of a block-style document; empty if the line has none.
pub(super) fn field_at(text: &str, line: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let mut names: Vec<&str> = Vec::new();
    let mut below = usize::MAX;
    for line in lines.iter().take(line).rev() {
        let Some((indent, name)) = key_of(line) else { continue };
        if indent < below {
            names.push(name);
            below = indent;
        }
        if below == 0 {
            break;
        }
    }
    names.reverse();
    names.join(".")
}

/// Indent and name of a line `  name: ...` or `- name: ...`.
fn key_of(line: &str) -> Option<(usize, &str)> {
    let inner = line.trim_start_matches([' ', '-']);
    let indent = line.len() - inner.len();
    let (name, rest) = inner.split_once(':')?;
    let name = name.trim().trim_matches(['"', '\'']);
    let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c));
    (is_name && (rest.is_empty() || rest.starts_with(char::is_whitespace))).then_some((indent, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_a_field_is_found_from_its_line() {
        let text = "kind: X\nspec:\n  a: 1\n  # b: x\n  list:\n  - name: q\n    deep:\n      key: http://x\nlast:\n";
        assert_eq!(field_at(text, 8), "spec.list.name.deep.key".replace("name.", ""));
        assert_eq!(field_at(text, 3), "spec.a");
        assert_eq!(field_at(text, 6), "spec.list.name");
        assert_eq!(field_at(text, 9), "last");
        assert_eq!(field_at("", 1), "");
        assert_eq!(field_at("[", 7), "");
    }
}
