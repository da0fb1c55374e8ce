//! A counterexample as a picture: a row for each process, a bar for each operation, time from left to right.
//!
//! What matters is which operation ended before which began, and that labels can be read; true distances would squeeze a
//! write of a millisecond and a read half a minute later into nothing. So moments keep their order, and are as far apart as
//! the labels need. Faults that were in force meanwhile are shaded behind them.

use std::collections::BTreeMap;

use ringfence_checker::{Bar, Counterexample, Kind};

use crate::record::Fault;

use super::faults;
use super::svg::{Svg, figure, text_width};
use super::text;

const LEFT: f64 = 84.0;
const ROW_HEIGHT: f64 = 38.0;
const BAR_HEIGHT: f64 = 26.0;
const FONT_SIZE: f64 = 12.0;
const PADDING: f64 = 10.0;
/// How far an operation that never ended reaches beyond the last moment.
const OPEN_END: f64 = 34.0;
/// Room for a moment's figure below the picture.
const FIGURE_WIDTH: f64 = 66.0;
/// Room for a fault's name above the picture.
const FAULT_HEIGHT: f64 = 15.0;
/// A fault of a moment must be seen as well.
const FAULT_WIDTH_MIN: f64 = 5.0;
/// More bars than this nobody can take in.
const BARS_MAX: usize = 120;

/// Draws a counterexample of a run with these faults; a sentence says so where it had to be cut.
pub(super) fn draw(counterexample: &Counterexample, faults: &[Fault]) -> String {
    let bars = nearest(&counterexample.bars);
    let left_out = counterexample.bars.len() - bars.len();
    let note = match left_out {
        0 => String::new(),
        _ => format!(
            "<p class=\"note\">{left_out} operations further away from the culprit are left out of the picture; \
             results.json has them.</p>"
        ),
    };
    if bars.is_empty() {
        return "<p class=\"note\">Nothing to draw: the violation is not one of single operations.</p>"
            .to_owned();
    }
    format!("<div class=\"wide\">{}</div>{note}", picture(&bars, faults))
}

/// The bars to be drawn: all, or those nearest in time to a culprit.
fn nearest(bars: &[Bar]) -> Vec<&Bar> {
    let mut chosen: Vec<&Bar> = bars.iter().collect();
    if chosen.len() > BARS_MAX {
        let culprit = bars.iter().find(|bar| bar.culprit).or(bars.last()).map_or(0, |bar| bar.start);
        chosen.sort_by_key(|bar| (!bar.culprit, bar.start.abs_diff(culprit)));
        chosen.truncate(BARS_MAX);
    }
    chosen.sort_by_key(|bar| (bar.start, bar.end, bar.process));
    chosen
}

fn picture(bars: &[&Bar], faults: &[Fault]) -> String {
    let places = place_moments(bars);
    let bands = bands(&places, faults);
    let top = bands.len() as f64 * FAULT_HEIGHT;
    let last = places.values().copied().fold(0.0, f64::max);
    let right = bars.iter().map(|bar| right_of(bar, &places, last)).fold(last, f64::max);
    let rows = rows(bars);
    let width = LEFT + right + 2.0 * PADDING + FIGURE_WIDTH / 2.0;
    let bottom = top + rows.len() as f64 * ROW_HEIGHT + 6.0;
    let mut svg = Svg::default();
    svg.open(
        "svg",
        &format!(
            r#"class="bars" width="{}" height="{}" role="img" aria-label="The operations that show the violation""#,
            figure(width),
            figure(bottom + 22.0)
        ),
    );
    draw_bands(&mut svg, &bands, bottom);
    draw_moments(&mut svg, &places, [top, bottom]);
    for (process, row) in &rows {
        let y = top + *row as f64 * ROW_HEIGHT;
        svg.line("row", [0.0, y + ROW_HEIGHT], [width, y + ROW_HEIGHT]);
        svg.label("name", [0.0, y + ROW_HEIGHT / 2.0 + 4.0], &format!("process {process}"));
    }
    for bar in bars {
        let y = top + rows.get(&bar.process).map_or(0.0, |row| *row as f64 * ROW_HEIGHT);
        let from = places.get(&bar.start).copied().unwrap_or(0.0);
        draw_bar(&mut svg, bar, [from, right_of(bar, &places, last)], y + (ROW_HEIGHT - BAR_HEIGHT) / 2.0);
    }
    svg.close("svg");
    svg.into_string()
}

fn draw_bar(svg: &mut Svg, bar: &Bar, [from, to]: [f64; 2], y: f64) {
    let kind = match bar.kind {
        Kind::Ok => "ok",
        Kind::Fail => "fail",
        Kind::Info | Kind::Invoke => "info",
    };
    let class = format!("bar {kind}{}", if bar.culprit { " culprit" } else { "" });
    let x = LEFT + from;
    match bar.end {
        Some(_) => svg.rectangle(&class, [x, y, to - from, BAR_HEIGHT], &tooltip(bar)),
        None => svg.path(&class, &open_outline(x, LEFT + to, y), &tooltip(bar)),
    }
    svg.label("label", [x + PADDING, y + BAR_HEIGHT / 2.0 + 4.0], &bar.label);
    if let Some(node) = bar.node {
        let after = x + PADDING + text_width(&bar.label, FONT_SIZE) + 7.0;
        svg.label("node", [after, y + BAR_HEIGHT / 2.0 + 4.0], &format!("n{node}"));
    }
}

/// A bar without an end: its right side is an arrow's.
fn open_outline(x: f64, to: f64, y: f64) -> String {
    let (bottom, middle, shaft) = (y + BAR_HEIGHT, y + BAR_HEIGHT / 2.0, to - 12.0);
    format!(
        "M{} {}H{}L{} {}L{} {}H{}Z",
        figure(x),
        figure(y),
        figure(shaft),
        figure(to),
        figure(middle),
        figure(shaft),
        figure(bottom),
        figure(x)
    )
}

/// A fault that was in force between the first and the last moment: its colour, its name, and from where to where it goes.
type Band = (usize, String, [f64; 2]);

fn bands(places: &BTreeMap<u64, f64>, faults: &[Fault]) -> Vec<Band> {
    let (Some((first, _)), Some((last, _))) = (places.first_key_value(), places.last_key_value()) else {
        return Vec::new();
    };
    faults
        .iter()
        .zip(faults::colours(faults))
        .filter(|(fault, _)| fault.start <= *last && fault.end >= *first)
        .map(|(fault, colour)| {
            let from = place_between(places, fault.start);
            let to = place_between(places, fault.end).max(from + FAULT_WIDTH_MIN);
            (colour, format!("{} {}", fault.name, faults::node_names(&fault.nodes)), [from, to])
        })
        .collect()
}

fn draw_bands(svg: &mut Svg, bands: &[Band], bottom: f64) {
    for (lane, (colour, name, [from, to])) in bands.iter().enumerate() {
        let y = lane as f64 * FAULT_HEIGHT;
        svg.rectangle(&format!("band c{colour}"), [LEFT + from, y, to - from, bottom - y], name);
        svg.label("fault-name", [LEFT + from + 4.0, y + 11.0], name);
    }
}

/// The place of any time: in due proportion between those of the moments around it.
fn place_between(places: &BTreeMap<u64, f64>, time: u64) -> f64 {
    match (places.range(..=time).next_back(), places.range(time..).next()) {
        (Some((before, from)), Some((after, to))) if before < after => {
            from + (to - from) * (time - before) as f64 / (after - before) as f64
        }
        (_, Some((_, place))) | (Some((_, place)), None) => *place,
        (None, None) => 0.0,
    }
}

fn draw_moments(svg: &mut Svg, places: &BTreeMap<u64, f64>, [top, bottom]: [f64; 2]) {
    let mut free_from = f64::MIN;
    for (time, place) in places {
        let x = LEFT + place;
        svg.line("moment", [x, top], [x, bottom]);
        if x >= free_from {
            svg.label("figure middle", [x, bottom + 15.0], &text::moment(*time));
            free_from = x + FIGURE_WIDTH;
        }
    }
}

/// A row for each process, by its first operation.
fn rows(bars: &[&Bar]) -> BTreeMap<u64, usize> {
    let mut rows = BTreeMap::new();
    for bar in bars {
        let next = rows.len();
        rows.entry(bar.process).or_insert(next);
    }
    rows
}

/// A place for each moment at which an operation begins or ends: in order, growing slowly with the time between them, and
/// such that each label fits into its bar.
fn place_moments(bars: &[&Bar]) -> BTreeMap<u64, f64> {
    let mut moments: Vec<u64> = bars.iter().flat_map(|bar| [Some(bar.start), bar.end]).flatten().collect();
    moments.sort_unstable();
    moments.dedup();
    let mut places: BTreeMap<u64, f64> = BTreeMap::new();
    let mut before: Option<(u64, f64)> = None;
    for moment in moments {
        let after_last = before.map_or(0.0, |(time, place)| place + distance(moment - time));
        let place = bars
            .iter()
            .filter(|bar| bar.end == Some(moment) && bar.start < moment)
            .filter_map(|bar| Some(places.get(&bar.start)? + width(bar)))
            .fold(after_last, f64::max);
        places.insert(moment, place);
        before = Some((moment, place));
    }
    places
}

/// How far two moments are apart: 14 pixels for an instant, some 60 for ten seconds.
fn distance(nanoseconds: u64) -> f64 {
    14.0 + 3.5 * (1.0 + nanoseconds as f64 / 1e6).log2()
}

/// The room that a bar's label needs.
fn width(bar: &Bar) -> f64 {
    let node = bar.node.map_or(0.0, |node| text_width(&format!("n{node}"), FONT_SIZE) + 7.0);
    text_width(&bar.label, FONT_SIZE) + node + 2.0 * PADDING
}

fn right_of(bar: &Bar, places: &BTreeMap<u64, f64>, last: f64) -> f64 {
    let from = places.get(&bar.start).copied().unwrap_or(0.0);
    match bar.end.and_then(|end| places.get(&end)) {
        Some(end) => end.max(from + 4.0),
        None => (last + OPEN_END).max(from + width(bar) + 12.0),
    }
}

fn tooltip(bar: &Bar) -> String {
    let node = bar.node.map_or_else(String::new, |node| format!(", asked n{node}"));
    let times = match bar.end {
        Some(end) => format!(
            "{} to {} ({})",
            text::moment(bar.start),
            text::moment(end),
            text::duration(end.saturating_sub(bar.start))
        ),
        None => format!("from {}, no end known", text::moment(bar.start)),
    };
    format!("process {}: {}{node}\n{times}", bar.process, bar.label)
}

#[cfg(test)]
mod tests {
    use super::{BTreeMap, Bar, Counterexample, Fault, Kind, draw, place_between, place_moments, width};

    fn bar(process: u64, start: u64, end: Option<u64>, label: &str) -> Bar {
        let kind = if end.is_some() { Kind::Ok } else { Kind::Info };
        Bar { process, start, end, label: label.to_owned(), kind, node: Some(2), culprit: process == 9 }
    }

    #[test]
    fn order_is_kept_and_every_label_fits() {
        let bars = [
            bar(1, 10, Some(20), "write 7"),
            bar(2, 15, Some(15_000_000_000), "a label of some length"),
            bar(9, 30, Some(31), "read → 3"),
        ];
        let bars: Vec<&Bar> = bars.iter().collect();
        let places = place_moments(&bars);
        let in_order: Vec<f64> = places.values().copied().collect();
        assert!(in_order.windows(2).all(|pair| pair[0] < pair[1]), "{in_order:?}");
        for bar in bars {
            let end = bar.end.expect("each has one");
            assert!(places[&end] - places[&bar.start] >= width(bar), "{} does not fit", bar.label);
        }
    }

    #[test]
    fn an_operation_without_an_end_is_an_arrow() {
        let page = draw(
            &Counterexample {
                explanation: String::new(),
                bars: vec![bar(1, 10, None, "write 7"), bar(9, 30, Some(30), "read <3>")],
            },
            &[],
        );
        assert!(page.contains("<path class=\"bar info\""));
        assert!(page.contains("bar ok culprit"));
        assert!(page.contains("read &lt;3&gt;") && !page.contains("<3>"));
    }

    #[test]
    fn of_very_many_bars_the_nearest_are_drawn_and_the_culprit_is_among_them() {
        let mut bars: Vec<Bar> = (0..500).map(|time| bar(1, time * 10, Some(time * 10 + 5), "w")).collect();
        bars.push(bar(9, 2_500, Some(2_501), "read"));
        let page = draw(&Counterexample { explanation: String::new(), bars }, &[]);
        assert!(page.contains("culprit"));
        assert!(page.contains("381 operations further away"));
    }

    #[test]
    fn faults_meanwhile_are_shaded_and_others_are_not() {
        let fault = |name: &str, start, end| Fault {
            name: name.to_owned(),
            nodes: vec![1],
            detail: String::new(),
            start,
            healing: end,
            end,
            evidence: String::new(),
            effective: true,
            violation: None,
        };
        let bars = vec![bar(1, 10, Some(20), "write 7"), bar(9, 300, Some(310), "read → 3")];
        let faults = [fault("power-all", 25, 200), fault("delay", 400, 500)];
        let page = draw(&Counterexample { explanation: String::new(), bars }, &faults);
        assert!(page.contains(">power-all n1</text>") && !page.contains("delay"));
    }

    #[test]
    fn a_time_between_moments_lies_between_their_places() {
        let places = BTreeMap::from([(10, 0.0), (20, 50.0), (40, 60.0)]);
        assert_eq!(
            [0, 10, 15, 30, 99].map(|time| place_between(&places, time)),
            [0.0, 0.0, 25.0, 55.0, 60.0]
        );
    }
}
