//! Tables, bars and numbers for people.

mod status;
mod table;

pub(crate) use status::tables;
pub(crate) use table::Screen;

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

/// `3s`, `5m`, `2h`, `4d`.
pub(crate) fn age(seconds: u64) -> String {
    match seconds {
        0..2 => "now".to_owned(),
        2..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn ages_read_well() {
        assert_eq!([0, 59, 119, 120, 7_199, 7_200, 172_800].map(age), ["now", "59s", "119s", "2m", "119m", "2h", "2d"]);
    }
}
