//! Tables for people: columns that fit the terminal, colours where there is one.

/// How much room there is, and whether colours are shown.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Screen {
    /// Columns; none = as many as are needed.
    pub(crate) width: Option<usize>,
    /// Whether colours are shown.
    pub(crate) colours: bool,
}

/// What a cell is to be noticed as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Tone {
    #[default]
    Plain,
    /// As it should be.
    Good,
    /// On its way, or worth a look.
    Notable,
    /// Wrong.
    Bad,
    /// Of no matter.
    Faint,
}

/// One cell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cell {
    pub(crate) text: String,
    pub(crate) tone: Tone,
}

/// A column: its title, how narrow it may become (none = never narrower than it needs), and whether it holds numbers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Column {
    pub(crate) title: &'static str,
    pub(crate) least: Option<usize>,
    pub(crate) numbers: bool,
}

/// Between two columns.
const GAP: usize = 2;

// === impl Screen ===

impl Screen {
    /// Text in a tone.
    pub(crate) fn paint(self, text: &str, tone: Tone) -> String {
        match tone.code().filter(|_| self.colours) {
            Some(code) => format!("\x1b[{code}m{text}\x1b[0m"),
            None => text.to_owned(),
        }
    }

    /// Lays cells out in columns; where there is no room for all, what may be cut is cut, the last column first.
    pub(crate) fn table(self, columns: &[Column], rows: &[Vec<Cell>]) -> String {
        let mut widths: Vec<usize> = columns.iter().map(|column| column.title.chars().count()).collect();
        for row in rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.text.chars().count());
            }
        }
        let room = self.width.unwrap_or(usize::MAX);
        let mut over = (widths.iter().sum::<usize>() + GAP * (columns.len().saturating_sub(1))).saturating_sub(room);
        for (width, column) in widths.iter_mut().zip(columns).rev() {
            let least = column.least.map_or(*width, |least| least.max(column.title.chars().count()).min(*width));
            let cut = over.min(*width - least);
            *width -= cut;
            over -= cut;
        }
        let titles: Vec<Cell> = columns.iter().map(|column| Cell::new(column.title, Tone::Faint)).collect();
        let mut text = String::new();
        for row in std::iter::once(&titles).chain(rows) {
            let mut line = String::new();
            for (at, ((cell, width), column)) in row.iter().zip(&widths).zip(columns).enumerate() {
                let shown = cut(&cell.text, *width);
                let pad = " ".repeat(width - shown.chars().count());
                let painted = self.paint(&shown, cell.tone);
                let last = at + 1 == row.len();
                let (before, after) = if column.numbers { (pad, String::new()) } else { (String::new(), pad) };
                line.push_str(&before);
                line.push_str(&painted);
                if !last {
                    line.push_str(&after);
                    line.push_str(&" ".repeat(GAP));
                }
            }
            line.truncate(line.trim_end().len());
            text.push_str(&line);
            text.push('\n');
        }
        text
    }

    /// Text in lines that fit, further ones indented by two.
    pub(crate) fn wrap(self, text: &str) -> String {
        let room = self.width.unwrap_or(usize::MAX).max(20);
        let mut lines = vec![String::new()];
        for word in text.split_whitespace() {
            let line = lines.last_mut().expect("there is a line");
            let used = line.chars().count();
            if used > 2 && used + 1 + word.chars().count() > room {
                lines.push(format!("  {word}"));
            } else {
                if used > 0 {
                    line.push(' ');
                }
                line.push_str(word);
            }
        }
        lines.join("\n")
    }
}

// === impl Tone ===

impl Tone {
    fn code(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Good => Some("32"),
            Self::Notable => Some("33"),
            Self::Bad => Some("31"),
            Self::Faint => Some("2"),
        }
    }
}

// === impl Cell ===

impl Cell {
    pub(crate) fn new(text: impl Into<String>, tone: Tone) -> Self {
        Self { text: text.into(), tone }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::new(text, Tone::Plain)
    }
}

// === impl Column ===

impl Column {
    /// Text that is never cut.
    pub(crate) const fn text(title: &'static str) -> Self {
        Self { title, least: None, numbers: false }
    }

    /// Text that may be cut to so many columns.
    pub(crate) const fn narrow(title: &'static str, least: usize) -> Self {
        Self { title, least: Some(least), numbers: false }
    }

    /// Numbers.
    pub(crate) const fn number(title: &'static str) -> Self {
        Self { title, least: None, numbers: true }
    }
}

fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 3] = [Column::narrow("NAME", 6), Column::number("N"), Column::narrow("WHERE", 5)];

    fn rows() -> Vec<Vec<Cell>> {
        vec![
            vec!["a".into(), "1".into(), "here".into()],
            vec!["a-long-name".into(), Cell::new("234", Tone::Bad), "everywhere at once".into()],
        ]
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let text = Screen::default().table(&COLUMNS, &rows());
        assert_eq!(text, "NAME           N  WHERE\na              1  here\na-long-name  234  everywhere at once\n");
    }

    #[test]
    fn what_does_not_fit_is_cut_the_last_column_first() {
        let text = Screen { width: Some(26), colours: false }.table(&COLUMNS, &rows());
        assert_eq!(text, "NAME           N  WHERE\na              1  here\na-long-name  234  everywh…\n");
        let text = Screen { width: Some(18), colours: false }.table(&COLUMNS, &rows());
        assert_eq!(text, "NAME      N  WHERE\na         1  here\na-lon…  234  ever…\n");
    }

    #[test]
    fn colours_take_no_room() {
        let text = Screen { width: Some(80), colours: true }.table(&COLUMNS, &rows());
        assert!(text.contains("a-long-name  \x1b[31m234\x1b[0m  everywhere"), "{text:?}");
    }

    #[test]
    fn long_text_is_wrapped_and_indented() {
        let screen = Screen { width: Some(20), colours: false };
        assert_eq!(screen.wrap("one two three four five six"), "one two three four\n  five six");
    }
}
