//! Nodes: a row for each with its role over time, and one with the terms.

use crate::directory::Recorded;
use crate::record::{Sample, What};

use super::svg::text_width;
use super::text;
use super::timeline::{Canvas, LEFT};

const ROW_HEIGHT: f64 = 20.0;
const BAR_HEIGHT: f64 = 14.0;
const FONT_SIZE: f64 = 9.5;
/// A node that says nothing for longer than this was silent meanwhile.
const SILENCE_MIN: u64 = 600_000_000;
/// For how long a node's last word before silence is taken to hold.
const WORD_HOLDS: u64 = 150_000_000;

/// What a node was for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Leader,
    Follower,
    /// It runs and knows no leader.
    Leaderless,
    ReadOnly,
    /// No process runs.
    Down,
}

impl Role {
    const fn class(self) -> &'static str {
        match self {
            Role::Leader => "role leader",
            Role::Follower => "role follower",
            Role::Leaderless => "role leaderless",
            Role::ReadOnly => "role read-only",
            Role::Down => "role down",
        }
    }

    const fn words(self) -> &'static str {
        match self {
            Role::Leader => "leads",
            Role::Follower => "follows",
            Role::Leaderless => "knows no leader",
            Role::ReadOnly => "is read-only",
            Role::Down => "is down",
        }
    }
}

/// A while in which nothing changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Segment {
    role: Role,
    term: u64,
    start: u64,
    end: u64,
}

/// A moment worth a mark.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mark {
    time: u64,
    class: &'static str,
    glyph: &'static str,
    tooltip: String,
}

/// Draws a row for each node and one for the terms; answers with their height.
pub(super) fn draw(canvas: &mut Canvas, recorded: &Recorded, top: f64) -> f64 {
    let named = recorded.samples.iter().map(|sample| sample.node).max().unwrap_or(0);
    let nodes = recorded.run.nodes.max(named);
    let end = canvas.scale.end();
    for node in 1..=nodes {
        let samples: Vec<&Sample> = recorded.samples.iter().filter(|sample| sample.node == node).collect();
        let y = top + (node - 1) as f64 * ROW_HEIGHT;
        canvas.name(y + 11.0, &format!("n{node}"));
        draw_segments(canvas, node, &segments(&samples, end), y);
        draw_marks(canvas, node, &marks(&samples), y);
    }
    let y = top + nodes as f64 * ROW_HEIGHT;
    canvas.name(y + 11.0, "term");
    draw_terms(canvas, &terms(&recorded.samples, end), y);
    (nodes + 1) as f64 * ROW_HEIGHT
}

fn draw_segments(canvas: &mut Canvas, node: usize, segments: &[Segment], y: f64) {
    for segment in segments {
        let (x, to) = (canvas.scale.at(segment.start), canvas.scale.at(segment.end));
        let tooltip = format!(
            "n{node} {} in term {}\n{} to {}",
            segment.role.words(),
            segment.term,
            text::moment(segment.start),
            text::moment(segment.end)
        );
        canvas.plot.rectangle(segment.role.class(), [x, y, (to - x).max(0.5), BAR_HEIGHT], &tooltip);
        let label = match segment.role {
            Role::Leader => format!("leads, t{}", segment.term),
            Role::ReadOnly => "read-only".to_owned(),
            Role::Down => "down".to_owned(),
            Role::Follower | Role::Leaderless => continue,
        };
        if text_width(&label, FONT_SIZE) + 10.0 < to - x {
            let class = match segment.role {
                Role::Leader => "role-name on-leader",
                Role::Down => "role-name on-down",
                _ => "role-name",
            };
            // A mark of how it went down stands at the beginning.
            let indent = if segment.role == Role::Down { 9.0 } else { 5.0 };
            canvas.labels.moving_label(class, LEFT, x + indent, y + 10.5, &label);
        }
    }
}

fn draw_marks(canvas: &mut Canvas, node: usize, marks: &[Mark], y: f64) {
    for mark in marks {
        let x = canvas.scale.at(mark.time);
        let tooltip = format!("n{node} {}, at {}", mark.tooltip, text::moment(mark.time));
        let commands =
            format!("M{} {}v{}", super::svg::figure(x), super::svg::figure(y - 1.5), BAR_HEIGHT + 3.0);
        canvas.plot.path(mark.class, &commands, &tooltip);
        if !mark.glyph.is_empty() {
            canvas.labels.moving_label(&format!("glyph {}", mark.class), LEFT, x, y + 11.0, mark.glyph);
        }
    }
}

fn draw_terms(canvas: &mut Canvas, terms: &[Segment], y: f64) {
    for (position, segment) in terms.iter().enumerate() {
        let (x, to) = (canvas.scale.at(segment.start), canvas.scale.at(segment.end));
        let class = if position % 2 == 0 { "term" } else { "term odd" };
        canvas.plot.rectangle(class, [x, y, to - x, BAR_HEIGHT], &format!("term {}", segment.term));
        let label = segment.term.to_string();
        if text_width(&label, FONT_SIZE) + 4.0 < to - x {
            canvas.labels.moving_label("role-name", LEFT, x + 4.0, y + 10.5, &label);
        }
    }
}

/// One node's roles over time. There is none for a time in which its process runs and says nothing.
fn segments(samples: &[&Sample], end: u64) -> Vec<Segment> {
    let mut segments: Vec<Segment> = Vec::new();
    let mut down_since = None;
    let mut last_term = 0;
    for sample in samples {
        match &sample.what {
            What::Status { leads, term, leader, read_only, .. } => {
                let role = match (leads, read_only, leader) {
                    (true, _, _) => Role::Leader,
                    (false, true, _) => Role::ReadOnly,
                    (false, false, Some(_)) => Role::Follower,
                    (false, false, None) => Role::Leaderless,
                };
                last_term = *term;
                extend(&mut segments, role, *term, sample.time);
            }
            What::Stopped { .. } | What::Exited { .. } => {
                // Its last word held until here, unless it had been silent before.
                if let Some(last) = segments.last_mut().filter(|last| sample.time - last.end < SILENCE_MIN) {
                    last.end = sample.time;
                }
                down_since.get_or_insert(sample.time);
            }
            What::Started => {
                if let Some(start) = down_since.take() {
                    segments.push(Segment { role: Role::Down, term: last_term, start, end: sample.time });
                }
            }
        }
    }
    if let Some(start) = down_since {
        segments.push(Segment { role: Role::Down, term: last_term, start, end });
    }
    segments
}

/// Adds one word of a node's.
fn extend(segments: &mut Vec<Segment>, role: Role, term: u64, time: u64) {
    if let Some(last) = segments.last_mut() {
        let silent = time - last.end.min(time) >= SILENCE_MIN;
        if last.role != Role::Down {
            last.end = if silent { last.end + WORD_HOLDS } else { time };
        }
        if !silent && (last.role, last.term) == (role, term) {
            return;
        }
    }
    segments.push(Segment { role, term, start: time, end: time });
}

/// The highest term that any node had told of.
fn terms(samples: &[Sample], end: u64) -> Vec<Segment> {
    let mut terms: Vec<Segment> = Vec::new();
    for sample in samples {
        let What::Status { term, .. } = sample.what else { continue };
        let known = terms.last().map_or(0, |last| last.term);
        if term > known {
            if let Some(last) = terms.last_mut() {
                last.end = sample.time;
            }
            terms.push(Segment { role: Role::Follower, term, start: sample.time, end });
        }
    }
    terms
}

fn marks(samples: &[&Sample]) -> Vec<Mark> {
    samples
        .iter()
        .filter_map(|sample| {
            let (class, glyph, tooltip) = match &sample.what {
                What::Status { .. } => return None,
                What::Started => ("mark started", "", "was started".to_owned()),
                What::Stopped { how } => ("mark stopped", "", format!("was ended: {how}")),
                What::Exited { code, expected, reason } => {
                    let code = code.map_or_else(|| "a signal".to_owned(), |code| format!("code {code}"));
                    let class = if *expected { "mark exited" } else { "mark exited unexpected" };
                    (class, "✕", format!("ended by itself with {code}: {reason}"))
                }
            };
            Some(Mark { time: sample.time, class, glyph, tooltip })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{Role, Sample, What, marks, segments, terms};

    const MS: u64 = 1_000_000;

    fn status(time: u64, leads: bool, term: u64, leader: Option<usize>) -> Sample {
        Sample {
            time: time * MS,
            node: 1,
            what: What::Status { leads, term, leader, applied: 0, read_only: false },
        }
    }

    #[test]
    fn roles_are_joined_and_gaps_stay_gaps() {
        let stopped = What::Stopped { how: "kill -9".to_owned() };
        let samples = [
            Sample { time: 0, node: 1, what: What::Started },
            status(100, false, 1, Some(2)),
            status(200, false, 1, Some(2)),
            status(300, true, 2, Some(1)),
            status(2_000, true, 2, Some(1)),
            Sample { time: 2_100 * MS, node: 1, what: stopped },
            Sample { time: 3_000 * MS, node: 1, what: What::Started },
            status(3_100, false, 3, None),
        ];
        let samples: Vec<&Sample> = samples.iter().collect();
        let shown: Vec<(Role, u64, u64, u64)> = segments(&samples, 5_000 * MS)
            .iter()
            .map(|segment| (segment.role, segment.term, segment.start / MS, segment.end / MS))
            .collect();
        assert_eq!(
            shown,
            [
                (Role::Follower, 1, 100, 300),
                (Role::Leader, 2, 300, 450),
                (Role::Leader, 2, 2_000, 2_100),
                (Role::Down, 2, 2_100, 3_000),
                (Role::Leaderless, 3, 3_100, 3_100),
            ]
        );
    }

    #[test]
    fn a_node_that_never_came_back_is_down_to_the_end() {
        let exited = What::Exited { code: Some(70), expected: false, reason: "disk".to_owned() };
        let samples = [status(100, false, 1, Some(2)), Sample { time: 200 * MS, node: 1, what: exited }];
        let samples: Vec<&Sample> = samples.iter().collect();
        let last = segments(&samples, 900 * MS)[1];
        assert_eq!((last.role, last.start, last.end), (Role::Down, 200 * MS, 900 * MS));
        assert_eq!(marks(&samples)[0].class, "mark exited unexpected");
    }

    #[test]
    fn terms_only_grow_in_their_row() {
        let samples = [status(1, false, 2, None), status(2, false, 1, None), status(3, false, 5, None)];
        let shown: Vec<(u64, u64)> =
            terms(&samples, 9 * MS).iter().map(|segment| (segment.term, segment.end)).collect();
        assert_eq!(shown, [(2, 3 * MS), (5, 9 * MS)]);
    }
}
