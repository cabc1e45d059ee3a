//! Kubernetes quantities of bytes: `1Gi`, `512M`, `1.5G`, `1e9`.

/// The number of bytes; nothing where the text is no quantity. Fractions are rounded up.
pub(super) fn bytes(text: &str) -> Option<u64> {
    const SUFFIXES: [(&str, f64); 14] = [
        ("Ki", 1024.0),
        ("Mi", 1_048_576.0),
        ("Gi", 1_073_741_824.0),
        ("Ti", 1_099_511_627_776.0),
        ("Pi", 1_125_899_906_842_624.0),
        ("Ei", 1_152_921_504_606_846_976.0),
        ("m", 1e-3),
        ("k", 1e3),
        ("M", 1e6),
        ("G", 1e9),
        ("T", 1e12),
        ("P", 1e15),
        ("E", 1e18),
        ("", 1.0),
    ];
    let text = text.trim();
    // `1e9` is a number with an exponent, `1E` one with a suffix; a number alone is read first.
    if let Ok(number) = text.parse::<f64>() {
        return whole(number);
    }
    let (suffix, factor) = SUFFIXES.iter().find(|(suffix, _)| !suffix.is_empty() && text.ends_with(suffix))?;
    whole(text.strip_suffix(suffix)?.parse::<f64>().ok()? * factor)
}

/// The shortest binary form.
pub(super) fn show(bytes: u64) -> String {
    let units = [("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10)];
    match units.iter().find(|(_, unit)| bytes > 0 && bytes.is_multiple_of(*unit)) {
        Some((suffix, unit)) => format!("{}{suffix}", bytes / unit),
        None => bytes.to_string(),
    }
}

fn whole(number: f64) -> Option<u64> {
    (0.0..1.8e19).contains(&number).then(|| number.ceil() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_have_binary_and_decimal_suffixes_and_exponents() {
        for (text, number) in [
            ("1Gi", Some(1 << 30)),
            ("512Mi", Some(512 << 20)),
            ("1.5G", Some(1_500_000_000)),
            ("1e9", Some(1_000_000_000)),
            ("1E", Some(1_000_000_000_000_000_000)),
            ("100m", Some(1)),
            ("0", Some(0)),
            ("", None),
            ("-1", None),
            ("1Zi", None),
            ("NaN", None),
            ("inf", None),
        ] {
            assert_eq!(bytes(text), number, "{text}");
        }
    }

    #[test]
    fn a_quantity_is_shown_in_the_largest_unit_that_divides_it() {
        assert_eq!(show(1536 << 20), "1536Mi");
        assert_eq!(show(2 << 30), "2Gi");
        assert_eq!(show(1000), "1000");
        assert_eq!(show(0), "0");
    }
}
