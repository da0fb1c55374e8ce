//! The settings that bound what a node takes: room, history, and what clients may have under way.

use std::time::Duration;

use ringfence_consensus::SpaceLimits;
use ringfence_server::{History, Limits};

use super::settings::Settings;
use crate::exit::{Exit, Failure};
use crate::units::ByteSize;

/// Below this a quota could not hold what a cluster itself writes.
const QUOTA_BYTES_MIN: u64 = 1 << 20;
/// The shortest time for which history can be kept: moments are remembered a hundred times as often.
const KEEP_AGE_MIN: Duration = Duration::from_secs(1);
/// A request of the largest size must fit.
const REQUEST_BYTES_MIN: usize = 2 * ringfence_types::limits::GRPC_MESSAGE_BYTES_MAX;
/// The smallest bound on an answer: a key with the largest value must fit.
const ANSWER_BYTES_MIN: u64 = 2 * ringfence_types::limits::REQUEST_BYTES_MAX as u64;

/// How much room the node may take.
pub(super) fn space(settings: &Settings) -> Result<SpaceLimits, Failure> {
    let bytes = |size: Option<ByteSize>, default| size.map_or(default, |size| size.0);
    let limits = SpaceLimits {
        quota_bytes: bytes(settings.quota_bytes, 8 << 30),
        disk_low_bytes: bytes(settings.disk_low_size, 256 << 20),
        disk_reserve_bytes: bytes(settings.disk_reserve_size, 64 << 20),
    };
    if (1..QUOTA_BYTES_MIN).contains(&limits.quota_bytes) {
        return Err(wrong(format!(
            "quota-bytes {} is too small: at least 1MiB, or 0 for none",
            limits.quota_bytes
        )));
    }
    if limits.disk_reserve_bytes > limits.disk_low_bytes && limits.disk_low_bytes > 0 {
        return Err(wrong(format!(
            "disk-reserve-size {} is more than disk-low-size {}: the node would stop before it warns",
            limits.disk_reserve_bytes, limits.disk_low_bytes
        )));
    }
    Ok(limits)
}

/// How much history is kept.
pub(super) fn history(settings: &Settings) -> Result<History, Failure> {
    let default = History::default();
    let history = History {
        keep_age: settings.compact_keep_age.map_or(default.keep_age, |age| age.0),
        keep_revisions: settings.compact_keep_revisions.unwrap_or(default.keep_revisions),
    };
    if !history.keep_age.is_zero() && history.keep_age < KEEP_AGE_MIN {
        return Err(wrong(format!(
            "compact-keep-age {:?} is too short: at least 1s, or 0s for no bound",
            history.keep_age
        )));
    }
    Ok(history)
}

/// What clients may have under way.
pub(super) fn limits(settings: &Settings) -> Result<Limits, Failure> {
    let default = Limits::default();
    let count = |name: &str, given: Option<usize>, default| match given {
        Some(0) => Err(wrong(format!("{name} must be at least 1"))),
        given => Ok(given.unwrap_or(default)),
    };
    let bytes = |name: &str, given: Option<ByteSize>, default| match given {
        None => Ok(default),
        Some(ByteSize(bytes)) => match usize::try_from(bytes) {
            Ok(bytes) if bytes >= REQUEST_BYTES_MIN => Ok(bytes),
            _ => Err(wrong(format!("{name} {bytes} must hold a request: at least {REQUEST_BYTES_MIN}"))),
        },
    };
    let answer_bytes = settings.answer_bytes_max.map_or(default.answer_bytes, |size| size.0);
    if answer_bytes < ANSWER_BYTES_MIN {
        return Err(wrong(format!(
            "answer-bytes-max {answer_bytes} is too small: at least {ANSWER_BYTES_MIN}"
        )));
    }
    Ok(Limits {
        answer_bytes,
        connection_calls: count(
            "connection-calls-max",
            settings.connection_calls_max,
            default.connection_calls,
        )?,
        calls: count("calls-max", settings.calls_max, default.calls)?,
        connection_streams: count(
            "connection-streams-max",
            settings.connection_streams_max,
            default.connection_streams,
        )?,
        streams: count("streams-max", settings.streams_max, default.streams)?,
        connection_bytes: bytes(
            "connection-request-bytes-max",
            settings.connection_request_bytes_max,
            default.connection_bytes,
        )?,
        bytes: bytes("request-bytes-max", settings.request_bytes_max, default.bytes)?,
    })
}

fn wrong(message: String) -> Failure {
    Failure::new(Exit::Config, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> Settings {
        Settings::parse(text).expect("the test's settings can be read")
    }

    #[test]
    fn nothing_given_means_the_defaults_and_zero_means_no_bound() {
        let none = settings("");
        assert_eq!(space(&none).expect("lawful").quota_bytes, 8 << 30);
        assert_eq!(history(&none).expect("lawful"), History::default());
        assert_eq!(limits(&none).expect("lawful"), Limits::default());
        let zero = settings(
            "quota-bytes = 0\ndisk-low-size = 0\ndisk-reserve-size = 0\ncompact-keep-age = '0s'\ncompact-keep-revisions = 0",
        );
        assert_eq!(space(&zero).expect("lawful"), SpaceLimits::default());
        assert_eq!(history(&zero).expect("lawful"), History::EVERYTHING);
    }

    #[test]
    fn bounds_that_make_no_sense_are_refused() {
        for (text, reason) in [
            ("quota-bytes = '64KiB'", "quota-bytes 65536 is too small"),
            ("disk-reserve-size = '1GiB'", "before it warns"),
            ("compact-keep-age = '10ms'", "compact-keep-age 10ms is too short"),
            ("answer-bytes-max = '1KiB'", "answer-bytes-max 1024 is too small"),
            ("calls-max = 0", "calls-max must be at least 1"),
            ("connection-streams-max = 0", "connection-streams-max must be at least 1"),
            ("request-bytes-max = '1MiB'", "request-bytes-max 1048576 must hold a request"),
        ] {
            let settings = settings(text);
            let refused = space(&settings).err().or(history(&settings).err()).or(limits(&settings).err());
            let refused = refused.unwrap_or_else(|| panic!("{text} is refused"));
            assert_eq!(refused.exit(), Exit::Config);
            assert!(refused.to_string().contains(reason), "{text}: {refused}");
        }
    }
}
