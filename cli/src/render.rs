//! Tables, bars and numbers for people.

/// Lays cells out in columns, two blanks between; the last column is not padded.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let widths: Vec<usize> = (0..head.len())
        .map(|column| {
            let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
            cells.chain([head[column].chars().count()]).max().unwrap_or(0)
        })
        .collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut line = String::new();
        for (cell, width) in cells.zip(&widths) {
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', width - cell.chars().count().min(*width) + 2));
        }
        line.truncate(line.trim_end().len());
        line.push('\n');
        line
    };
    let mut text = line(&mut head.iter().copied());
    for row in rows {
        text.push_str(&line(&mut row.iter().map(String::as_str)));
    }
    text
}

/// `1.5 MiB`.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// A bar of `width` cells: `#` loaded, `+` reserved for loads, `-` being freed, `.` free.
pub(crate) fn bar(width: u64, capacity: u64, parts: [(char, u64); 3]) -> String {
    let mut bar = String::new();
    let mut sum = 0_u64;
    for (sign, part) in parts {
        sum = sum.saturating_add(part);
        // Something that is there shows, however small.
        let to = if capacity == 0 { 0 } else { (u128::from(sum) * u128::from(width)).div_ceil(u128::from(capacity)) };
        while part > 0 && (bar.len() as u128) < to.min(u128::from(width)) {
            bar.push(sign);
        }
    }
    while (bar.len() as u64) < width {
        bar.push('.');
    }
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = vec![vec!["a".to_owned(), "x".to_owned()], vec!["long".to_owned(), String::new()]];
        assert_eq!(table(&["N", "STATE"], &rows), "N     STATE\na     x\nlong\n");
    }

    #[test]
    fn a_bar_shows_every_part_that_is_there() {
        assert_eq!(bar(10, 100, [('#', 50), ('+', 20), ('-', 0)]), "#######...".replace("#######", "#####++"));
        assert_eq!(bar(4, 1000, [('#', 1), ('+', 0), ('-', 0)]), "#...");
        assert_eq!(bar(4, 0, [('#', 1), ('+', 0), ('-', 0)]), "....");
        assert_eq!(bar(4, 10, [('#', 30), ('+', 5), ('-', 0)]), "####");
    }

    #[test]
    fn bytes_read_well() {
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(512 << 20), "512.0 MiB");
    }
}
