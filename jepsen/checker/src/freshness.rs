//! How fresh a read asked to be.

/// By how much clocks may differ in rate, as one part in so many.
const CLOCK_RATE_PART: u64 = 50;

/// What a read's answer may be like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// It shows every write that was acknowledged before it began: the default, and `quorum`.
    Linearizable,
    /// It shows every write that was acknowledged this many nanoseconds before it began.
    MaxAge(u64),
    /// It shows this revision or a later one.
    Revision(u64),
    /// It shows something that was there once.
    Any,
}

impl Freshness {
    /// Reads the form that events carry.
    ///
    /// # Errors
    /// A sentence, if there is no such freshness.
    pub fn parse(text: Option<&str>) -> Result<Freshness, String> {
        let unknown = || format!("there is no freshness {:?}", text.unwrap_or_default());
        match text {
            None | Some("linearizable" | "quorum") => Ok(Freshness::Linearizable),
            Some("any") => Ok(Freshness::Any),
            Some(other) => match other.split_once('=').ok_or_else(unknown)? {
                ("revision", revision) => revision.parse().map(Freshness::Revision).map_err(|_| unknown()),
                ("max-age", age) => nanoseconds(age).map(Freshness::MaxAge).ok_or_else(unknown),
                _ => Err(unknown()),
            },
        }
    }

    /// The earliest time at which a read of at most this age, that began at `start`, may have asked the leader: its node
    /// measures the age, and by the node's clock it may have been a little longer.
    pub(crate) fn oldest_question(start: u64, age: u64) -> u64 {
        start.saturating_sub(age).saturating_sub(age / CLOCK_RATE_PART)
    }

    /// Whether the answer must show every write that was acknowledged before the operation began.
    pub fn is_linearizable(self) -> bool {
        self == Freshness::Linearizable
    }
}

fn nanoseconds(text: &str) -> Option<u64> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(unit_at);
    let scale = match unit {
        "ns" => 1,
        "us" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read() {
        assert_eq!(Freshness::parse(None), Ok(Freshness::Linearizable));
        assert_eq!(Freshness::parse(Some("quorum")), Ok(Freshness::Linearizable));
        assert_eq!(Freshness::parse(Some("any")), Ok(Freshness::Any));
        assert_eq!(Freshness::parse(Some("revision=7")), Ok(Freshness::Revision(7)));
        assert_eq!(Freshness::parse(Some("max-age=500ms")), Ok(Freshness::MaxAge(500_000_000)));
        assert_eq!(Freshness::parse(Some("max-age=2s")), Ok(Freshness::MaxAge(2_000_000_000)));
        for wrong in ["", "fresh", "max-age=5", "max-age=ms", "revision=x", "max-age=99999999999999999m"] {
            assert!(Freshness::parse(Some(wrong)).is_err(), "{wrong:?} is no freshness");
        }
    }
}
