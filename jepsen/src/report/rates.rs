//! Rates of one function: how many operations ended each way in each moment.

use super::operations::{Operation, Outcome};
use super::scale::round_up;
use super::svg::figure;
use super::timeline::Canvas;

const HEIGHT: f64 = 62.0;
/// How many steps a plot has at most.
const STEPS_MAX: u64 = 160;

/// Draws a panel; answers with its height.
pub(super) fn draw(canvas: &mut Canvas, name: &str, operations: &[Operation], top: f64) -> f64 {
    let step = step(canvas.scale.end());
    let counts = Outcome::ALL.map(|outcome| counts(operations, outcome, step, canvas.scale.end()));
    let seconds = step as f64 / 1e9;
    let peak = counts.iter().flatten().max().copied().unwrap_or(0);
    let scale_top = round_up(peak as f64 / seconds);
    let bottom = top + HEIGHT;
    canvas.plot.rectangle("panel", [0.0, top, canvas.scale.width(), HEIGHT], "");
    canvas.name(top + 12.0, name);
    canvas.labels.label("quiet", [0.0, top + 26.0], "rate");
    canvas.level(top, &format!("{scale_top:.0}/s"));
    canvas.level(bottom, "0");
    for (outcome, counts) in Outcome::ALL.into_iter().zip(counts) {
        if counts.iter().all(|count| *count == 0) {
            continue;
        }
        let mut outline = String::new();
        for (position, count) in counts.iter().enumerate() {
            let y = bottom - *count as f64 / seconds / scale_top * HEIGHT;
            let to = canvas.scale.at((position as u64 + 1) * step);
            outline += &format!("V{}H{}", figure(y), figure(to));
        }
        let outline = format!("M0 {}{outline}V{}", figure(bottom), figure(bottom));
        canvas.plot.path(&format!("area {}", outcome.name()), &format!("{outline}Z"), "");
        canvas.plot.path(&format!("rate {}", outcome.name()), &outline, "");
    }
    HEIGHT
}

/// How long a step is: a round part of a second or more, so that the plot has at most [`STEPS_MAX`].
fn step(end: u64) -> u64 {
    let least = end.div_ceil(STEPS_MAX);
    [100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 60_000]
        .into_iter()
        .map(|milliseconds| milliseconds * 1_000_000)
        .find(|step| *step >= least)
        .unwrap_or(least)
}

fn counts(operations: &[Operation], outcome: Outcome, step: u64, end: u64) -> Vec<u64> {
    let mut counts = vec![0; end.div_ceil(step) as usize];
    let last = counts.len() - 1;
    for operation in operations.iter().filter(|operation| operation.outcome == outcome) {
        counts[((operation.time() / step) as usize).min(last)] += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use ringfence_checker::Function;

    use super::{Operation, Outcome, counts, step};

    #[test]
    fn a_plot_has_a_bounded_number_of_round_steps() {
        assert_eq!(
            [1, 60, 3_600, 36_000].map(|seconds| step(seconds * 1_000_000_000) / 1_000_000),
            [100, 500, 60_000, 225_000]
        );
    }

    #[test]
    fn every_operation_is_counted_once() {
        let operation =
            |end| Operation { function: Function::Read, outcome: Outcome::Ok, start: 0, end: Some(end) };
        let operations = [0, 99, 100, 250, 300].map(operation);
        assert_eq!(counts(&operations, Outcome::Ok, 100, 300), [2, 1, 2]);
        assert_eq!(counts(&operations, Outcome::Info, 100, 300), [0, 0, 0]);
    }
}
