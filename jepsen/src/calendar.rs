//! The date and time of a run's beginning, for people and for the names of directories. Nothing else here asks for it: faults
//! make wall clocks jump.

use std::time::{SystemTime, UNIX_EPOCH};

/// A moment in UTC, to the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    year: u64,
    month: u64,
    day: u64,
    second_of_day: u64,
}

impl Moment {
    /// Now.
    #[must_use]
    pub fn now() -> Moment {
        // A clock before 1970 is a clock that was never set: any moment is as good.
        Moment::at(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()))
    }

    /// So many seconds after the beginning of 1970, by the proleptic Gregorian calendar.
    fn at(seconds: u64) -> Moment {
        // Days are counted from 1 March of the year 0, so that leap days are the last of their years; an era has 400 years.
        let days = seconds / 86_400 + 719_468;
        let (era, day_of_era) = (days / 146_097, days % 146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let months_from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * months_from_march + 2) / 5 + 1;
        let month = if months_from_march < 10 { months_from_march + 3 } else { months_from_march - 9 };
        let year = era * 400 + year_of_era + u64::from(month <= 2);
        Moment { year, month, day, second_of_day: seconds % 86_400 }
    }

    /// As RFC 3339 has it: `2026-11-27T06:15:00Z`.
    #[must_use]
    pub fn rfc3339(&self) -> String {
        let Moment { year, month, day, second_of_day } = self;
        let (hour, minute, second) = (second_of_day / 3_600, second_of_day / 60 % 60, second_of_day % 60);
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }

    /// The same without anything that a shell or a file system might mind: `20261127T061500Z`.
    #[must_use]
    pub fn file_name(&self) -> String {
        self.rfc3339().replace(['-', ':'], "")
    }
}

#[cfg(test)]
mod tests {
    use super::Moment;

    #[test]
    fn dates_are_those_of_the_calendar() {
        let shown = [0, 951_782_399, 951_782_400, 1_795_760_100, 4_107_542_399]
            .map(|time| Moment::at(time).rfc3339());
        assert_eq!(
            shown,
            [
                "1970-01-01T00:00:00Z",
                "2000-02-28T23:59:59Z",
                "2000-02-29T00:00:00Z",
                "2026-11-27T06:15:00Z",
                "2100-02-28T23:59:59Z",
            ]
        );
        assert_eq!(Moment::at(1_795_760_100).file_name(), "20261127T061500Z");
    }
}
