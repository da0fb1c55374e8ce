//! Faults: lanes with names on top of the timeline, bands across it.

use crate::record::Fault;

use super::scale::TimeScale;
use super::svg::text_width;
use super::text;
use super::timeline::{Canvas, LEFT};

const LANE_HEIGHT: f64 = 20.0;
const BAR_HEIGHT: f64 = 15.0;
const FONT_SIZE: f64 = 10.5;
/// A fault of a moment must be seen as well.
const WIDTH_MIN: f64 = 3.0;
/// How many colours the style sheet has.
const COLOURS: usize = 6;

/// Where a fault's bar and name go.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Place {
    lane: usize,
    x: f64,
    width: f64,
    label_x: f64,
}

/// Lays out the faults, in the order of their beginnings, in as few lanes as leave each name readable.
pub(super) fn lanes(faults: &[Fault], scale: &TimeScale) -> Vec<Place> {
    let mut taken_until: Vec<f64> = Vec::new();
    faults
        .iter()
        .map(|fault| {
            let x = scale.at(fault.start);
            let width = (scale.at(fault.end) - x).max(WIDTH_MIN);
            let label_width = text_width(&title(fault), FONT_SIZE);
            let label_x = (x + 4.0).min(scale.width() - label_width).max(0.0);
            let from = x.min(label_x);
            let lane = taken_until.iter().position(|until| *until <= from).unwrap_or(taken_until.len());
            let until = (x + width).max(label_x + label_width) + 6.0;
            match taken_until.get_mut(lane) {
                Some(taken) => *taken = until,
                None => taken_until.push(until),
            }
            Place { lane, x, width, label_x }
        })
        .collect()
}

/// Draws the lanes; answers with their height.
pub(super) fn draw_lanes(canvas: &mut Canvas, faults: &[Fault], places: &[Place], top: f64) -> f64 {
    let lanes = places.iter().map(|place| place.lane + 1).max().unwrap_or(1);
    canvas.name(top + 14.0, "faults");
    if faults.is_empty() {
        canvas.labels.label("quiet", [LEFT + 4.0, top + 14.0], "none");
    }
    let colours = colours(faults);
    for ((fault, place), colour) in faults.iter().zip(places).zip(colours) {
        let y = top + place.lane as f64 * LANE_HEIGHT + 3.0;
        let class = format!("fault c{colour}{}", if fault.effective { "" } else { " idle" });
        let in_force = (canvas.scale.at(fault.healing) - place.x).clamp(WIDTH_MIN, place.width);
        canvas.plot.rectangle(
            &format!("{class} healing"),
            [place.x, y, place.width, BAR_HEIGHT],
            &tooltip(fault),
        );
        canvas.plot.rectangle(&class, [place.x, y, in_force, BAR_HEIGHT], &tooltip(fault));
        canvas.labels.moving_label("fault-name", LEFT, place.label_x, y + 11.0, &title(fault));
    }
    lanes as f64 * LANE_HEIGHT
}

/// Shades each fault's time across the whole picture.
pub(super) fn draw_bands(canvas: &mut Canvas, faults: &[Fault], [top, bottom]: [f64; 2]) {
    for (fault, colour) in faults.iter().zip(colours(faults)) {
        let x = canvas.scale.at(fault.start);
        let width = (canvas.scale.at(fault.end) - x).max(1.0);
        canvas.behind.rectangle(&format!("band c{colour}"), [x, top, width, bottom - top], "");
    }
}

/// A colour for each fault, the same for the same name.
pub(super) fn colours(faults: &[Fault]) -> Vec<usize> {
    let mut names: Vec<&str> = Vec::new();
    faults
        .iter()
        .map(|fault| {
            let known = names.iter().position(|name| *name == fault.name);
            known.unwrap_or_else(|| {
                names.push(&fault.name);
                names.len() - 1
            }) % COLOURS
        })
        .collect()
}

/// The nodes by name: `n1 n3`.
pub(super) fn node_names(nodes: &[usize]) -> String {
    nodes.iter().map(|node| format!("n{node}")).collect::<Vec<_>>().join(" ")
}

/// For how long a fault was in force, and for how long it was being healed.
pub(super) fn lengths(fault: &Fault) -> (String, String) {
    let in_force = fault.healing.saturating_sub(fault.start);
    (text::duration(in_force), text::duration(fault.end.saturating_sub(fault.healing)))
}

fn title(fault: &Fault) -> String {
    match fault.nodes.as_slice() {
        [node] => format!("{} n{node}", fault.name),
        _ => fault.name.clone(),
    }
}

fn tooltip(fault: &Fault) -> String {
    let nodes = node_names(&fault.nodes);
    let (lasted, healing) = lengths(fault);
    format!(
        "{} {nodes}\n{}\nfrom {} for {lasted}, healed within {healing}\n{}{}",
        fault.name,
        fault.detail,
        text::moment(fault.start),
        fault.evidence,
        if fault.effective { "" } else { "\nIT HAD NO EFFECT" }
    )
}

#[cfg(test)]
mod tests {
    use super::{Fault, TimeScale, colours, lanes};

    fn fault(name: &str, start: u64, end: u64) -> Fault {
        Fault {
            name: name.to_owned(),
            nodes: vec![1],
            detail: String::new(),
            start: start * 1_000_000_000,
            healing: end * 1_000_000_000,
            end: end * 1_000_000_000,
            evidence: String::new(),
            effective: true,
            violation: None,
        }
    }

    #[test]
    fn faults_that_overlap_lie_in_lanes_of_their_own() {
        let scale = TimeScale::new(100_000_000_000, 1000.0);
        let faults = [fault("pause", 0, 20), fault("delay", 10, 30), fault("pause", 40, 50)];
        let lanes: Vec<usize> = lanes(&faults, &scale).iter().map(|place| place.lane).collect();
        assert_eq!(lanes, [0, 1, 0]);
        assert_eq!(colours(&faults), [0, 1, 0]);
    }

    #[test]
    fn a_name_longer_than_its_bar_keeps_the_next_out_of_its_lane() {
        let scale = TimeScale::new(100_000_000_000, 1000.0);
        let faults = [fault("a-name-that-is-long-indeed", 0, 1), fault("b", 2, 3), fault("c", 99, 100)];
        let places = lanes(&faults, &scale);
        assert_eq!(places.iter().map(|place| place.lane).collect::<Vec<_>>(), [0, 1, 0]);
        assert!(places[2].label_x < 990.0, "a name at the edge moves back into the picture");
    }
}
