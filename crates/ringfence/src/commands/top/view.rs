//! What is shown of a look.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Style, Stylize as _};
use ratatui::text::Line;
use ratatui::widgets::{Paragraph, Row, Table, Wrap};
use serde::Serialize;

use super::figures::{Hot, Look};
use crate::commands::status::{self, NodeStatus};
use crate::exit::Failure;
use crate::output::print_table;
use crate::units::ByteSize;

const HEADINGS: [&str; 11] =
    ["NAME", "ROLE", "TERM", "APPLIED", "LAG", "WRITES/S", "READS/S", "CPU", "MEMORY", "STATE", "LOG"];
/// Prefixes that are shown.
const PREFIXES_SHOWN: usize = 8;
const WATCHERS: &str = "etcd_debugging_mvcc_watcher_total";

/// A cluster as it is shown.
#[derive(Debug, Serialize)]
pub(super) struct View {
    /// The leader's name; none where no reachable node knows one.
    leader: Option<String>,
    term: Option<u64>,
    /// The highest revision that a node has.
    revision: Option<u64>,
    /// Leases in force, as the leader has them, else any node.
    leases: Option<u64>,
    /// Watchers on all nodes.
    watchers: Option<u64>,
    writes_per_second: Option<f64>,
    reads_per_second: Option<f64>,
    nodes: Vec<Node>,
    /// What clients ask for most, the hottest first.
    hottest_prefixes: Vec<Hot>,
}

#[derive(Debug, Serialize)]
struct Node {
    #[serde(flatten)]
    status: NodeStatus,
    writes_per_second: Option<f64>,
    reads_per_second: Option<f64>,
    cpus: Option<f64>,
    memory_bytes: Option<u64>,
    log_bytes: Option<u64>,
}

impl View {
    /// What is seen now, and how fast it moved since an earlier look.
    pub(super) fn new(look: Look, before: Option<&Look>) -> View {
        let rates: Vec<_> = look.nodes.iter().map(|node| look.rates(node, before)).collect();
        let total = |rate: fn(&super::figures::Rates) -> Option<f64>| {
            rates.iter().filter_map(rate).reduce(|sum, rate| sum + rate)
        };
        let figure = |node: &NodeStatus, name: &str| node.metrics().value(name).map(|value| value as u64);
        let newest = look
            .nodes
            .iter()
            .filter(|node| node.error.is_none())
            .max_by_key(|node| (node.role == "leader", node.applied));
        let mut hottest_prefixes = look.hottest(before);
        hottest_prefixes.truncate(PREFIXES_SHOWN);
        View {
            hottest_prefixes,
            leader: status::leader_name(&look.nodes),
            term: look.nodes.iter().filter_map(|node| node.term).max(),
            revision: look
                .nodes
                .iter()
                .filter_map(|node| figure(node, "etcd_debugging_mvcc_current_revision"))
                .max(),
            leases: newest.and_then(|node| figure(node, "ringfence_leases")),
            watchers: look.nodes.iter().filter_map(|node| figure(node, WATCHERS)).reduce(|sum, n| sum + n),
            writes_per_second: total(|rates| rates.writes),
            reads_per_second: total(|rates| rates.reads),
            nodes: look
                .nodes
                .into_iter()
                .zip(rates)
                .map(|(status, rates)| Node {
                    writes_per_second: rates.writes,
                    reads_per_second: rates.reads,
                    cpus: rates.cpus,
                    memory_bytes: figure(&status, "process_resident_memory_bytes"),
                    log_bytes: figure(&status, "ringfence_log_bytes"),
                    status,
                })
                .collect(),
        }
    }

    /// Whether no node answers.
    pub(super) fn is_dark(&self) -> bool {
        self.nodes.iter().all(|node| node.status.error.is_some())
    }

    /// The cluster in a line.
    pub(super) fn summary(&self) -> String {
        let leads = match &self.leader {
            Some(leader) => format!("{leader} leads"),
            None => "nobody leads".to_owned(),
        };
        let watchers = self.watchers.map_or_else(String::new, |watchers| format!("  {watchers} watchers"));
        format!(
            "{leads}  term {}  revision {}  {} writes/s  {} reads/s  {} leases{watchers}",
            number(self.term),
            number(self.revision),
            rate(self.writes_per_second),
            rate(self.reads_per_second),
            number(self.leases),
        )
    }

    /// What clients ask for most, a prefix a line.
    pub(super) fn hottest_lines(&self) -> Vec<String> {
        let figures = |hot: &Hot| (rate(Some(hot.writes_per_second)), rate(Some(hot.reads_per_second)));
        let line = |hot: &Hot| {
            let (writes, reads) = figures(hot);
            format!("{writes:>8} writes/s  {reads:>8} reads/s  {}", hot.prefix)
        };
        self.hottest_prefixes.iter().map(line).collect()
    }

    /// What the nodes complain about, and why some could not be asked.
    pub(super) fn problems(&self) -> Vec<String> {
        let of = |node: &Node| {
            let status = &node.status;
            let words = status.problems.iter().chain(&status.error);
            words.map(|problem| format!("{}: {problem}", status.name)).collect::<Vec<_>>()
        };
        self.nodes.iter().flat_map(of).collect()
    }

    /// The bare facts, a node a line: name, role, applied entry, writes and reads a second.
    pub(super) fn plain_lines(&self) -> Vec<String> {
        let line = |node: &Node| {
            let [name, role, _, applied, _, writes, reads, ..] = cells(node);
            format!("{name} {role} {applied} {writes} {reads}")
        };
        self.nodes.iter().map(line).collect()
    }

    pub(super) fn print_table(&self) -> Result<(), Failure> {
        print_table(HEADINGS, &self.nodes.iter().map(cells).collect::<Vec<_>>())
    }

    /// Draws all of it.
    pub(super) fn draw(&self, frame: &mut Frame<'_>) {
        let height = u16::try_from(self.nodes.len()).unwrap_or(u16::MAX).saturating_add(2);
        let hot: Vec<Line> = self.hottest_lines().into_iter().map(Line::from).collect();
        let hot_height = if hot.is_empty() { 0 } else { hot.len() as u16 + 2 };
        let areas = Layout::vertical([
            Constraint::Length(2),
            Constraint::Length(height),
            Constraint::Length(hot_height),
            Constraint::Min(0),
            Constraint::Length(1),
        ]);
        let [summary, nodes, hottest, problems, help] = areas.areas(frame.area());
        let headline = Line::from(self.summary()).bold();
        let headline = if self.leader.is_some() { headline } else { headline.fg(Color::Red) };
        frame.render_widget(Paragraph::new(headline), summary);
        frame.render_widget(self.table(), nodes);
        if !hot.is_empty() {
            let heading = std::iter::once(Line::from("ASKED FOR MOST").bold());
            frame.render_widget(Paragraph::new(heading.chain(hot).collect::<Vec<_>>()), hottest);
        }
        let complaints: Vec<Line> = self.problems().into_iter().map(Line::from).collect();
        let complaints = Paragraph::new(complaints).wrap(Wrap { trim: true });
        frame.render_widget(complaints.style(Style::new().fg(Color::Yellow)), problems);
        frame.render_widget(Paragraph::new("q ends").dim(), help);
    }

    fn table(&self) -> Table<'_> {
        let rows = self.nodes.iter().map(|node| {
            let row = Row::new(cells(node));
            match node.status.role {
                "leader" => row.fg(Color::Green),
                "unreachable" => row.fg(Color::Red),
                _ if node.status.quarantine.is_some() || node.status.read_only == Some(true) => {
                    row.fg(Color::Yellow)
                }
                _ => row,
            }
        });
        let all: Vec<_> =
            std::iter::once(HEADINGS.map(str::to_owned)).chain(self.nodes.iter().map(cells)).collect();
        let widths = (0..HEADINGS.len()).map(|column| {
            let widest = all.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
            Constraint::Length(u16::try_from(widest).unwrap_or(u16::MAX))
        });
        Table::new(rows, widths).header(Row::new(HEADINGS).bold()).column_spacing(2)
    }
}

fn cells(node: &Node) -> [String; 11] {
    let status = &node.status;
    let size = |bytes: Option<u64>| bytes.map_or_else(|| "-".to_owned(), |bytes| ByteSize(bytes).to_string());
    [
        status.name.clone(),
        status.quarantine.map_or_else(|| status.role.to_owned(), |kind| format!("{kind} quarantine")),
        number(status.term),
        number(status.applied),
        number(status.lag_entries),
        rate(node.writes_per_second),
        rate(node.reads_per_second),
        node.cpus.map_or_else(|| "-".to_owned(), |cpus| format!("{:.0} %", cpus * 100.0)),
        size(node.memory_bytes),
        size(status.size),
        size(node.log_bytes),
    ]
}

fn number(value: Option<u64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

fn rate(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.0}"))
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::super::figures::tests::{hot, look};
    use super::*;

    #[test]
    fn a_screen_shows_the_cluster_and_what_is_wrong() {
        let start = Instant::now();
        let page = |puts: u32| {
            format!(
                "etcd_server_has_leader 1\nringfence_leases 7\netcd_debugging_mvcc_current_revision 42\n\
                 grpc_server_handled_total{{grpc_code=\"OK\",grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\"}} {puts}\n"
            )
        };
        let before = hot(look(start, 0, &page(0)), &[("/registry/pods/", 0, 0)]);
        let mut now = hot(look(start, 2, &page(200)), &[("/registry/pods/", 10, 200)]);
        now.nodes[0].problems = vec!["the disk is slow".to_owned()];
        let view = View::new(now, Some(&before));
        assert_eq!(view.summary(), "n1 leads  term -  revision 42  100 writes/s  0 reads/s  7 leases");
        let mut terminal = Terminal::new(TestBackend::new(100, 12)).expect("it is in memory");
        terminal.draw(|frame| view.draw(frame)).expect("it is in memory");
        let shown = terminal.backend().to_string();
        for words in [
            "n1 leads",
            "NAME",
            "WRITES/S",
            "leader",
            "100 writes/s         5 reads/s  /registry/pods/",
            "n1: the disk is slow",
            "q ends",
        ] {
            assert!(shown.contains(words), "{words:?} in {shown}");
        }
        // However small the terminal is.
        let mut tiny = Terminal::new(TestBackend::new(3, 1)).expect("it is in memory");
        tiny.draw(|frame| view.draw(frame)).expect("it is in memory");
    }
}
