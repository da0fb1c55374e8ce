//! Figures in sentences.

/// `1 key`, `20 keys`.
pub(crate) fn count(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", grouped(number))
}

/// `1.3 ms`, `120 ms`, `2.4 s`.
pub(crate) fn duration(nanoseconds: u64) -> String {
    let (value, unit) = match nanoseconds {
        0..1_000 => return format!("{nanoseconds} ns"),
        1_000..1_000_000 => (nanoseconds as f64 / 1e3, "µs"),
        1_000_000..1_000_000_000 => (nanoseconds as f64 / 1e6, "ms"),
        _ => (nanoseconds as f64 / 1e9, "s"),
    };
    if value < 10.0 { format!("{value:.1} {unit}") } else { format!("{value:.0} {unit}") }
}

fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_read_well() {
        assert_eq!(count(1, "key"), "1 key");
        assert_eq!(count(1_234_567, "operation"), "1,234,567 operations");
        assert_eq!(count(100_000, "operation"), "100,000 operations");
        assert_eq!(duration(1_300_000), "1.3 ms");
        assert_eq!(duration(120_000_000), "120 ms");
        assert_eq!(duration(2_400_000_000), "2.4 s");
        assert_eq!(duration(12), "12 ns");
    }
}
