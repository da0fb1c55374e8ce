//! Latencies of one function: a point for each operation, on a logarithmic axis, by its end. One that never ended
//! stands at its beginning, on top.

use super::operations::{Operation, Outcome};
use super::scale::LatencyScale;
use super::svg::figure;
use super::text;
use super::thin::{Point, thin};
use super::timeline::Canvas;

const HEIGHT: f64 = 110.0;
/// Enough for a crowd to look like one; the page stays small.
const POINTS_MAX: usize = 9_000;

/// Draws a panel; answers with its height.
pub(super) fn draw(canvas: &mut Canvas, name: &str, operations: &[Operation], top: f64) -> f64 {
    let scale = LatencyScale::covering(operations.iter().filter_map(Operation::latency), HEIGHT);
    canvas.plot.rectangle("panel", [0.0, top, canvas.scale.width(), HEIGHT], "");
    canvas.name(top + 12.0, name);
    canvas.labels.label("quiet", [0.0, top + 26.0], "latency");
    canvas.labels.label("quiet", [0.0, top + 40.0], &text::count(operations.len() as u64));
    for (latency, figure) in scale.ticks() {
        canvas.level(top + scale.at(latency), &figure);
    }
    for outcome in Outcome::ALL {
        let points: Vec<Point> = operations
            .iter()
            .filter(|operation| operation.outcome == outcome)
            .map(|operation| {
                let y = operation.latency().map_or(0.0, |latency| scale.at(latency));
                [canvas.scale.at(operation.time()), top + y]
            })
            .collect();
        if !points.is_empty() {
            let class = format!("points {}", outcome.name());
            canvas.plot.path(&class, &commands(outcome, &thin(&points, POINTS_MAX)), "");
        }
    }
    HEIGHT
}

/// The points as one path. Outcomes differ in shape too: dots, squares, and strokes that stand out where few are; the shapes
/// of `ok` and `fail` are those of their lines' ends, and so are not stretched when the page is zoomed.
fn commands(outcome: Outcome, points: &[Point]) -> String {
    let shape = match outcome {
        Outcome::Ok | Outcome::Fail => "h0",
        Outcome::Info => "v7",
    };
    points.iter().map(|[x, y]| format!("M{} {}{shape}", figure(*x), figure(*y))).collect()
}
