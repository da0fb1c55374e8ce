//! Durations and sizes as people write them: `500ms`, `2s`, `64MiB`. The same on the command line, in the environment
//! and in the configuration file.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;

/// A duration such as `500ms`, `1.5s`, `10m` or `1h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct HumanDuration(pub(crate) Duration);

/// A number of bytes such as `4096`, `64KiB`, `1.5GiB` or `10MB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "ByteSizeText")]
pub(crate) struct ByteSize(pub(crate) u64);

/// In a configuration file a size may be a plain number too.
#[derive(Deserialize)]
#[serde(untagged)]
enum ByteSizeText {
    Number(u64),
    Text(String),
}

const DURATION_UNITS: [(&str, f64); 6] =
    [("ns", 1e-9), ("us", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3_600.0)];

const SIZE_UNITS: [(&str, u64); 8] = [
    ("", 1),
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
];

impl FromStr for HumanDuration {
    type Err = String;

    fn from_str(text: &str) -> Result<HumanDuration, String> {
        let wrong =
            || format!("{text:?} is not a duration; write a number with a unit, such as 500ms, 2s or 10m");
        let (number, unit) = split(text).ok_or_else(wrong)?;
        let (_, seconds) = DURATION_UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
        Duration::try_from_secs_f64(number * seconds).map(HumanDuration).map_err(|_| wrong())
    }
}

impl TryFrom<String> for HumanDuration {
    type Error = String;

    fn try_from(text: String) -> Result<HumanDuration, String> {
        text.parse()
    }
}

impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<ByteSize, String> {
        let wrong =
            || format!("{text:?} is not a size; write a number of bytes, or one with a unit, such as 64MiB");
        let (number, unit) = split(text).ok_or_else(wrong)?;
        let (_, bytes) = SIZE_UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
        let product = number * (*bytes as f64);
        // Up to 2^53 every whole number has a floating-point form of its own.
        if product > 9_007_199_254_740_992.0 || product.fract() != 0.0 {
            return Err(wrong());
        }
        Ok(ByteSize(product as u64))
    }
}

impl TryFrom<ByteSizeText> for ByteSize {
    type Error = String;

    fn try_from(text: ByteSizeText) -> Result<ByteSize, String> {
        match text {
            ByteSizeText::Number(bytes) => Ok(ByteSize(bytes)),
            ByteSizeText::Text(text) => text.parse(),
        }
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, bytes) = match self.0 {
            0..1_024 => return write!(f, "{} B", self.0),
            1_024..1_048_576 => ("KiB", 1u64 << 10),
            1_048_576..1_073_741_824 => ("MiB", 1 << 20),
            _ => ("GiB", 1 << 30),
        };
        write!(f, "{:.1} {unit}", self.0 as f64 / bytes as f64)
    }
}

/// A number that is not negative, and what follows it.
fn split(text: &str) -> Option<(f64, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number = text[..end].parse().ok()?;
    Some((number, text[end..].trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_known_unit() {
        for (text, millis) in [
            ("500ms", Some(500)),
            ("1.5s", Some(1_500)),
            ("2 s", Some(2_000)),
            ("10m", Some(600_000)),
            ("1h", Some(3_600_000)),
            ("0s", Some(0)),
            ("500", None),
            ("-1s", None),
            ("1d", None),
            ("s", None),
            ("1.2.3s", None),
            ("99999999999999999999h", None),
        ] {
            let parsed = text.parse::<HumanDuration>().ok().map(|duration| duration.0.as_millis());
            assert_eq!(parsed, millis, "{text:?}");
        }
    }

    #[test]
    fn sizes_are_whole_numbers_of_bytes() {
        for (text, bytes) in [
            ("4096", Some(4_096)),
            ("64KiB", Some(65_536)),
            ("1.5 MiB", Some(1_572_864)),
            ("10MB", Some(10_000_000)),
            ("0.3B", None),
            ("64kib", None),
            ("-1", None),
            ("99999999999GiB", None),
        ] {
            assert_eq!(text.parse::<ByteSize>().ok().map(|size| size.0), bytes, "{text:?}");
        }
        assert_eq!(ByteSize(1_572_864).to_string(), "1.5 MiB");
    }
}
