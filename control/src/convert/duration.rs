//! Durations as people and Go write them: `90s`, `1m30s`, `1.5h`, `250ms`.

use std::time::Duration;

/// Parses a duration; `None` if it is none. A number without a unit is none.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return None;
    }
    let mut total = 0.0_f64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = match &rest[..letters] {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        rest = &rest[letters..];
        total += number * unit;
    }
    Duration::try_from_secs_f64(total).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_durations_are_read_and_all_else_is_refused() {
        let read = |text| parse_duration(text);
        assert_eq!(read("90s"), Some(Duration::from_secs(90)));
        assert_eq!(read("1m30s"), Some(Duration::from_secs(90)));
        assert_eq!(read("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(read("1.5h"), Some(Duration::from_secs(5400)));
        for text in ["", "90", "s", "1x", "-1s", "1..2s", "1e400h", "9".repeat(400).as_str()] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
