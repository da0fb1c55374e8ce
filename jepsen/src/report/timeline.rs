//! The timeline: faults, nodes, latencies and rates, one under the other on one time axis, with every fault shaded across all.

use ringfence_checker::Function;

use crate::directory::Recorded;

use super::operations::{self, Operation};
use super::scale::TimeScale;
use super::svg::{Svg, figure};
use super::{faults, latency, nodes, rates};

/// The picture's width; the page scales it.
const WIDTH: f64 = 1160.0;
/// Room for the names of rows and the figures of axes.
pub(super) const LEFT: f64 = 112.0;
const RIGHT: f64 = 12.0;
const AXIS_HEIGHT: f64 = 24.0;
const GAP: f64 = 14.0;

/// What a strip of the timeline is drawn on.
#[derive(Debug)]
pub(super) struct Canvas {
    /// The time axis.
    pub(super) scale: TimeScale,
    /// Behind everything: the bands of faults.
    pub(super) behind: Svg,
    /// What lies on the time axis and is stretched when the page is zoomed; x begins at 0.
    pub(super) plot: Svg,
    /// Names and figures, which are never stretched; x begins at the picture's edge.
    pub(super) labels: Svg,
}

impl Canvas {
    /// A strip's name, to the left of it.
    pub(super) fn name(&mut self, y: f64, name: &str) {
        self.labels.label("name", [0.0, y], name);
    }

    /// A line across the plot with its figure to the left.
    pub(super) fn level(&mut self, y: f64, name: &str) {
        self.plot.line("grid", [0.0, y], [self.scale.width(), y]);
        self.labels.label("figure end", [LEFT - 8.0, y + 3.5], name);
    }
}

/// Draws the timeline.
pub(super) fn draw(recorded: &Recorded, operations: &[Operation]) -> String {
    let mut canvas = Canvas {
        scale: TimeScale::new(end(recorded), WIDTH - LEFT - RIGHT),
        behind: Svg::default(),
        plot: Svg::default(),
        labels: Svg::default(),
    };
    let functions = operations::by_function(operations);
    let lanes = faults::lanes(&recorded.faults, &canvas.scale);
    let mut y = AXIS_HEIGHT;
    y += faults::draw_lanes(&mut canvas, &recorded.faults, &lanes, y);
    y += nodes::draw(&mut canvas, recorded, y + GAP) + GAP;
    y += draw_panels(&mut canvas, &functions, y + GAP, latency::draw) + GAP;
    y += draw_panels(&mut canvas, &functions, y + GAP, rates::draw) + GAP;
    faults::draw_bands(&mut canvas, &recorded.faults, [AXIS_HEIGHT, y]);
    draw_axis(&mut canvas, y);
    assemble(canvas, y + AXIS_HEIGHT)
}

/// The last moment of which anything is known.
fn end(recorded: &Recorded) -> u64 {
    let history = recorded.history.iter().map(|event| event.time);
    let samples = recorded.samples.iter().map(|sample| sample.time);
    let faults = recorded.faults.iter().map(|fault| fault.end);
    history.chain(samples).chain(faults).max().unwrap_or(0)
}

/// One panel a function; answers with the height of them all.
fn draw_panels(
    canvas: &mut Canvas,
    functions: &[(Function, Vec<Operation>)],
    top: f64,
    panel: fn(&mut Canvas, &str, &[Operation], f64) -> f64,
) -> f64 {
    let mut y = top;
    for (function, operations) in functions {
        y += panel(canvas, function.name(), operations, y) + GAP;
    }
    y - top
}

fn draw_axis(canvas: &mut Canvas, bottom: f64) {
    let width = canvas.scale.width();
    for (time, name) in canvas.scale.ticks() {
        let x = canvas.scale.at(time);
        canvas.behind.line("grid tick", [x, AXIS_HEIGHT], [x, bottom]);
        // The last name would hang over the edge.
        let class = if x > width - 20.0 { "figure tick end" } else { "figure tick middle" };
        canvas.labels.moving_label(class, LEFT, x, AXIS_HEIGHT - 8.0, &name);
        canvas.labels.moving_label(class, LEFT, x, bottom + 15.0, &name);
    }
}

fn assemble(canvas: Canvas, height: f64) -> String {
    let (width, inner) = (figure(WIDTH), figure(canvas.scale.width()));
    let (height, seconds) = (figure(height), canvas.scale.end() as f64 / 1e9);
    let mut svg = Svg::default();
    svg.open(
        "svg",
        &format!(
            r#"class="timeline" viewBox="0 0 {width} {height}" data-left="{}" data-seconds="{seconds}" role="img" aria-label="Timeline of the run""#,
            figure(LEFT)
        ),
    );
    svg.open(
        "svg",
        &format!(
            r#"class="plot" x="{}" y="0" width="{inner}" height="{height}" viewBox="0 0 {inner} {height}" preserveAspectRatio="none""#,
            figure(LEFT)
        ),
    );
    svg.append(canvas.behind);
    svg.append(canvas.plot);
    svg.close("svg");
    svg.append(canvas.labels);
    svg.close("svg");
    svg.into_string()
}
