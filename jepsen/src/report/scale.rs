//! From times, latencies and rates to places in a picture.

use super::text;

const SECOND: u64 = 1_000_000_000;

/// The time axis that all plots share.
#[derive(Debug, Clone, Copy)]
pub(super) struct TimeScale {
    /// The last moment shown, in nanoseconds since the run began; at least one second.
    end: u64,
    /// How wide the plot is.
    width: f64,
}

impl TimeScale {
    /// An axis from the beginning of the run to `end`.
    pub(super) fn new(end: u64, width: f64) -> TimeScale {
        TimeScale { end: end.max(SECOND), width }
    }

    /// The last moment shown.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// How wide the plot is.
    pub(super) fn width(&self) -> f64 {
        self.width
    }

    /// The place of a moment within the plot.
    pub(super) fn at(&self, time: u64) -> f64 {
        time.min(self.end) as f64 / self.end as f64 * self.width
    }

    /// Round moments, some 80 pixels apart, with their names.
    pub(super) fn ticks(&self) -> Vec<(u64, String)> {
        let target = self.end as f64 * 80.0 / self.width;
        let step = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600]
            .into_iter()
            .map(|seconds| seconds * SECOND)
            .find(|step| *step as f64 >= target)
            .unwrap_or(7200 * SECOND);
        let name = |time: u64| match self.end {
            end if end > 180 * SECOND => text::clock(time),
            _ => format!("{} s", time / SECOND),
        };
        (0..=self.end / step).map(|tick| (tick * step, name(tick * step))).collect()
    }
}

/// A logarithmic axis of latencies, in whole decades, the longest on top.
#[derive(Debug, Clone, Copy)]
pub(super) struct LatencyScale {
    /// The lowest decade, as a power of ten of nanoseconds.
    low: i32,
    /// The decade above the highest.
    high: i32,
    height: f64,
}

impl LatencyScale {
    /// An axis that all of these fit on.
    pub(super) fn covering(latencies: impl Iterator<Item = u64>, height: f64) -> LatencyScale {
        let (low, high) = latencies
            .fold((u64::MAX, 1), |(low, high), latency| (low.min(latency.max(1)), high.max(latency.max(1))));
        let low = if low == u64::MAX { 5 } else { low.ilog10() as i32 };
        let high = (high as f64).log10().ceil() as i32;
        LatencyScale { low, high: high.max(low + 1), height }
    }

    /// The place of a latency, counted from the top.
    pub(super) fn at(&self, latency: u64) -> f64 {
        let power = (latency.max(1) as f64).log10();
        let part = (power - f64::from(self.low)) / f64::from(self.high - self.low);
        self.height * (1.0 - part.clamp(0.0, 1.0))
    }

    /// Each decade with its name.
    pub(super) fn ticks(&self) -> Vec<(u64, String)> {
        (self.low..=self.high)
            .map(|power| {
                let latency = 10_u64.pow(power.unsigned_abs());
                let name = match power {
                    ..3 => format!("{latency} ns"),
                    3..6 => format!("{} µs", latency / 1_000),
                    6..9 => format!("{} ms", latency / 1_000_000),
                    _ => format!("{} s", latency / SECOND),
                };
                (latency, name)
            })
            .collect()
    }
}

/// The least round number (1, 2 or 5 times a power of ten) that is not below `value`, for the top of a rate's axis.
pub(super) fn round_up(value: f64) -> f64 {
    let power = 10_f64.powf(value.max(1.0).log10().floor());
    [1.0, 2.0, 5.0]
        .map(|factor| factor * power)
        .into_iter()
        .find(|round| *round >= value)
        .unwrap_or(10.0 * power)
}

#[cfg(test)]
mod tests {
    use super::{LatencyScale, SECOND, TimeScale, round_up};

    #[test]
    fn a_minute_has_a_tick_every_five_seconds() {
        let scale = TimeScale::new(60 * SECOND, 1000.0);
        let ticks = scale.ticks();
        assert_eq!(ticks.len(), 13);
        assert_eq!(ticks[1], (5 * SECOND, "5 s".to_owned()));
        assert_eq!(scale.at(30 * SECOND), 500.0);
        assert_eq!(scale.at(90 * SECOND), 1000.0, "what lies beyond the axis is at its end");
    }

    #[test]
    fn an_empty_run_has_axes_too() {
        assert_eq!(TimeScale::new(0, 100.0).at(0), 0.0);
        let scale = LatencyScale::covering([].into_iter(), 100.0);
        assert!(scale.at(0).is_finite());
        assert_eq!(scale.ticks().len(), 2);
    }

    #[test]
    fn latencies_lie_between_whole_decades() {
        let scale = LatencyScale::covering([250_000, 3_000_000_000].into_iter(), 100.0);
        assert_eq!(scale.at(100_000), 100.0);
        assert_eq!(scale.at(10_000_000_000), 0.0);
        let names: Vec<String> = scale.ticks().into_iter().map(|(_, name)| name).collect();
        assert_eq!(names, ["100 µs", "1 ms", "10 ms", "100 ms", "1 s", "10 s"]);
    }

    #[test]
    fn a_rate_axis_ends_at_a_round_number() {
        assert_eq!([0.0, 1.0, 3.0, 17.0, 480.0, 501.0].map(round_up), [1.0, 1.0, 5.0, 20.0, 500.0, 1000.0]);
    }
}
