//! How long a call may wait.

use std::time::Duration;

use ringfence_consensus::rt::{self, Instant};
use ringfence_types::limits::REQUEST_TIMEOUT;
use tonic::metadata::MetadataMap;

/// The longest that a client's own deadline is believed; beyond it the arithmetic of clocks could overflow.
const DEADLINE_MAX: Duration = Duration::from_secs(3_600);

/// The longest that an answer is taken to need on its way home.
const HOMEWARD_MAX: Duration = Duration::from_millis(200);

/// The moment at which a call that arrived now must be answered: the client's own deadline if it names one.
pub(crate) fn of(metadata: &MetadataMap) -> Instant {
    let timeout = metadata.get("grpc-timeout").and_then(|value| parse(value.as_bytes()));
    rt::now() + timeout.unwrap_or(REQUEST_TIMEOUT).min(DEADLINE_MAX)
}

/// Until when the answer of a call may be held back, if it shall be no longer than `within` from now: while there is time
/// enough to bring it home.
pub(crate) fn to_answer_by(deadline: Instant, within: Option<Duration>) -> Instant {
    let now = rt::now();
    let left = deadline - now;
    let in_time = now + left.saturating_sub((left / 4).min(HOMEWARD_MAX));
    within.map_or(in_time, |within| in_time.min(now + within))
}

/// The same for a call that may wait for as long as its client does: none where the client names no deadline, or one so far
/// away that the client will have to keep it by itself.
pub(crate) fn named(metadata: &MetadataMap) -> Option<Instant> {
    let timeout = metadata.get("grpc-timeout").and_then(|value| parse(value.as_bytes()))?;
    (timeout <= DEADLINE_MAX).then(|| rt::now() + timeout)
}

/// A `grpc-timeout`: one to eight digits and a unit. Anything else counts as absent, as the protocol's servers do.
fn parse(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let amount = digits.iter().fold(0u64, |sum, digit| sum * 10 + u64::from(digit - b'0'));
    match unit {
        b'H' => Some(Duration::from_secs(amount * 3_600)),
        b'M' => Some(Duration::from_secs(amount * 60)),
        b'S' => Some(Duration::from_secs(amount)),
        b'm' => Some(Duration::from_millis(amount)),
        b'u' => Some(Duration::from_micros(amount)),
        b'n' => Some(Duration::from_nanos(amount)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_digits_and_a_unit() {
        for (text, expected) in [
            ("2S", Some(Duration::from_secs(2))),
            ("1500m", Some(Duration::from_millis(1_500))),
            ("99999999H", Some(Duration::from_secs(99_999_999 * 3_600))),
            ("1M", Some(Duration::from_secs(60))),
            ("7u", Some(Duration::from_micros(7))),
            ("7n", Some(Duration::from_nanos(7))),
            ("", None),
            ("S", None),
            ("-1S", None),
            ("123456789S", None),
            ("5", None),
            ("5d", None),
        ] {
            assert_eq!(parse(text.as_bytes()), expected, "{text}");
        }
    }
}
