//! What Prometheus is told. Facts that etcd has a name for carry that name, so that its dashboards and alerts work.

use std::fmt::{Display, Write as _};

use ringfence_consensus::{Histogram, QuarantineKind, Role, Status, Transfer};

use crate::ETCD_VERSION;
use crate::alarm;
use crate::calls::Calls;
use crate::lease_counts::LeaseTotals;
use crate::refusals::Refusals;
use crate::watch::WatchTotals;

/// The metrics of a node in Prometheus' text format.
pub(crate) fn text(
    status: &Status,
    calls: &Calls,
    leases: LeaseTotals,
    watches: WatchTotals,
    refusals: &Refusals,
) -> String {
    let mut page = Page(String::with_capacity(8 << 10));
    identity(&mut page, status);
    raft(&mut page, status);
    storage(&mut page, status);
    read_only(&mut page, status);
    quarantine(&mut page, status);
    integrity(&mut page, status);
    about_leases(&mut page, status, leases);
    about_watches(&mut page, watches);
    peers(&mut page, status);
    stages(&mut page, status);
    process(&mut page);
    refusals.write(&mut page.0);
    calls.write(&mut page.0);
    page.0
}

fn identity(page: &mut Page, status: &Status) {
    page.one(
        "ringfence_build_info",
        "gauge",
        "The build.",
        &format!("{{version=\"{}\"}}", status.version),
        1,
    );
    page.one(
        "etcd_server_version",
        "gauge",
        "The version of etcd's API that is served.",
        &format!("{{server_version=\"{ETCD_VERSION}\"}}"),
        1,
    );
    page.one(
        "etcd_server_id",
        "gauge",
        "The member's number, in hexadecimal digits.",
        &format!("{{server_id=\"{:x}\"}}", status.node.0),
        1,
    );
}

fn raft(page: &mut Page, status: &Status) {
    let flag = |value: bool| u8::from(value);
    page.gauge("etcd_server_has_leader", "Whether a leader is known.", flag(status.leader.is_some()));
    page.gauge("etcd_server_is_leader", "Whether this member leads.", flag(status.role == Role::Leader));
    page.gauge(
        "etcd_server_is_learner",
        "Whether this member has no vote.",
        flag(status.role == Role::Learner),
    );
    page.counter("etcd_server_leader_changes_seen_total", "Changes of leader seen.", status.leader_changes);
    page.gauge(
        "etcd_server_proposals_committed_total",
        "The last entry known to be committed.",
        status.committed.unwrap_or_default(),
    );
    page.gauge(
        "etcd_server_proposals_applied_total",
        "The last entry applied.",
        status.applied.map_or(0, |applied| applied.index.0),
    );
    page.gauge("etcd_server_proposals_pending", "Writes of this member that wait.", status.proposals.pending);
    page.counter(
        "etcd_server_proposals_failed_total",
        "Writes of this member that ended without an outcome.",
        status.proposals.failed,
    );
    page.counter(
        "ringfence_proposals_answered_total",
        "Writes of this member that were answered with an outcome.",
        status.proposals.answered,
    );
    page.gauge("ringfence_raft_term", "The current term.", status.term);
    page.head(
        "ringfence_leader_id",
        "gauge",
        "The leader that this member knows, in hexadecimal digits; none: it knows none.",
    );
    if let Some(leader) = status.leader {
        page.sample("ringfence_leader_id", &format!("{{leader_id=\"{:x}\"}}", leader.0), 1);
    }
    page.gauge(
        "ringfence_leader_lease_left_seconds",
        "What is left of the leader lease; 0 where there is none.",
        status.leader_lease_left.unwrap_or_default().as_secs_f64(),
    );
}

fn storage(page: &mut Page, status: &Status) {
    page.gauge("etcd_mvcc_db_total_size_in_bytes", "Size of the state's file.", status.state_file_bytes);
    page.gauge(
        "etcd_mvcc_db_total_size_in_use_in_bytes",
        "The part of the state's file that holds data.",
        status.state_in_use_bytes,
    );
    page.counter(
        "ringfence_state_rebuilds_total",
        "Rebuilds of the state's file, which give its free pages back.",
        status.state_rebuilds,
    );
    page.counter(
        "ringfence_state_given_back_bytes_total",
        "Bytes of disk that rebuilds of the state's file have given back.",
        status.state_bytes_given_back,
    );
    page.gauge("etcd_debugging_mvcc_current_revision", "The store's revision.", status.revision);
    page.gauge("ringfence_head_bytes", "Rows in memory that wait for a checkpoint.", status.head_bytes);
    page.gauge("ringfence_log_bytes", "Size of the log on disk.", status.log_bytes);
    page.gauge(
        "ringfence_checkpointed_index",
        "The last entry that the state's file holds.",
        status.checkpointed.map_or(0, |id| id.index.0),
    );
    page.gauge(
        "ringfence_purged_index",
        "The last entry dropped from the log.",
        status.purged.unwrap_or_default(),
    );
    page.histogram(
        "etcd_disk_wal_fsync_duration_seconds",
        "Time that syncs of the log took.",
        "",
        &status.log_sync,
    );
    page.histogram(
        "etcd_disk_backend_commit_duration_seconds",
        "Time that checkpoints of the state took.",
        "",
        &status.checkpoint,
    );
}

fn read_only(page: &mut Page, status: &Status) {
    let since = status.read_only.as_ref().map(|read_only| read_only.since.as_secs_f64());
    page.gauge("ringfence_read_only", "Whether this member refuses writes.", u8::from(since.is_some()));
    page.gauge(
        "ringfence_read_only_since_seconds",
        "How long ago this member began to refuse writes; 0 while it does not.",
        since.unwrap_or(0.0),
    );
}

fn quarantine(page: &mut Page, status: &Status) {
    let is_quarantined = |kind| status.quarantine.as_ref().is_some_and(|quarantine| quarantine.kind == kind);
    page.gauge(
        "ringfence_log_quarantine",
        "Whether this member's log is not the one that it has acknowledged: it neither votes, acknowledges nor leads.",
        u8::from(is_quarantined(QuarantineKind::Log)),
    );
}

fn integrity(page: &mut Page, status: &Status) {
    let is_quarantined = |kind| status.quarantine.as_ref().is_some_and(|quarantine| quarantine.kind == kind);
    page.gauge(
        "ringfence_state_quarantine",
        "Whether this member's state is not to be believed: it neither leads nor serves until that is rebuilt.",
        u8::from(is_quarantined(QuarantineKind::State)),
    );
    page.head(
        "etcd_debugging_server_alarms",
        "gauge",
        "Alarms that are raised, by the member that they are about.",
    );
    for alarm in &status.alarms {
        let labels = format!("{{server_id=\"{:x}\",alarm_type=\"{}\"}}", alarm.member.0, alarm::name(*alarm));
        page.sample("etcd_debugging_server_alarms", &labels, 1);
    }
    page.counter(
        "ringfence_hashes_compared_total",
        "Hashes of other members' states that this member has compared as their leader.",
        status.integrity.hashes_compared,
    );
    page.counter(
        "ringfence_states_replaced_total",
        "Other members' bad states that this member, as their leader, has replaced by its own.",
        status.integrity.states_rebuilt,
    );
    page.counter(
        "ringfence_scrubs_total",
        "Scrubs of the whole state that have ended.",
        status.integrity.scrubs,
    );
    if let Some(ago) = status.integrity.scrubbed_ago {
        page.gauge(
            "ringfence_scrubbed_ago_seconds",
            "How long ago the last scrub of the whole state ended.",
            ago.as_secs_f64(),
        );
    }
}

/// Name, meaning and value of a figure about a snapshot that a member is being sent.
type TransferGauge = (&'static str, &'static str, fn(&Transfer) -> u64);

const TRANSFERS: [TransferGauge; 2] = [
    (
        "ringfence_peer_snapshot_sent_bytes",
        "Bytes that a member has of the snapshot that it is being sent.",
        |transfer| transfer.sent,
    ),
    ("ringfence_peer_snapshot_bytes", "Bytes of the snapshot that a member is being sent.", |transfer| {
        transfer.total
    }),
];

/// What a leader knows of the other members; a follower knows nothing of them.
fn peers(page: &mut Page, status: &Status) {
    let others = || status.members.iter().filter(|member| member.id != status.node);
    let labels = |id, name: &str| format!("{{member=\"{id}\",name=\"{}\"}}", escape(name));
    let last = status.last_log.unwrap_or_default().0;
    page.head(
        "ringfence_peer_lag_entries",
        "gauge",
        "Entries of the leader's log that a member is not known to have.",
    );
    for member in others() {
        if let Some(matched) = member.matched {
            let lag = last.saturating_sub(matched.0);
            page.sample("ringfence_peer_lag_entries", &labels(member.id, &member.name), lag);
        }
    }
    for (name, about, value) in TRANSFERS {
        page.head(name, "gauge", about);
        for member in others() {
            if let Some(transfer) = member.snapshot {
                page.sample(name, &labels(member.id, &member.name), value(&transfer));
            }
        }
    }
    page.head(
        "ringfence_peer_answered_ago_seconds",
        "gauge",
        "Age of the newest message that a member answered.",
    );
    for member in others() {
        if let Some(ago) = member.answered_ago {
            page.sample(
                "ringfence_peer_answered_ago_seconds",
                &labels(member.id, &member.name),
                ago.as_secs_f64(),
            );
        }
    }
    page.head("ringfence_peer_behind_retention", "gauge", "Whether a member needs a snapshot to catch up.");
    for member in others() {
        let labels = labels(member.id, &member.name);
        page.sample("ringfence_peer_behind_retention", &labels, u8::from(member.behind_retention));
    }
    page.head(
        "ringfence_peer_refused",
        "gauge",
        "Whether a member and this one refuse to speak with each other.",
    );
    for member in others() {
        let labels = labels(member.id, &member.name);
        page.sample("ringfence_peer_refused", &labels, u8::from(member.refusal.is_some()));
    }
}

fn stages(page: &mut Page, status: &Status) {
    let name = "ringfence_stage_seconds";
    page.head(name, "histogram", "Time that a write spends, by stage.");
    for (stage, histogram) in [("propose", &status.propose), ("log_sync", &status.log_sync)] {
        page.samples(name, &format!("stage=\"{stage}\""), histogram);
    }
}

fn about_leases(page: &mut Page, status: &Status, totals: LeaseTotals) {
    page.gauge(
        "ringfence_lease_clock_seconds",
        "The lease clock as far as this member knows it.",
        status.lease_clock.0 as f64 / 1_000.0,
    );
    page.gauge("ringfence_leases", "Leases in force.", status.leases);
    page.counter(
        "etcd_debugging_lease_granted_total",
        "Leases granted by calls to this member.",
        totals.granted,
    );
    page.counter(
        "etcd_debugging_lease_renewed_total",
        "Keep-alives that this member answered for leases in force.",
        totals.renewed,
    );
    page.counter(
        "etcd_debugging_lease_revoked_total",
        "Leases revoked by calls to this member.",
        totals.revoked,
    );
    page.counter(
        "etcd_server_lease_expired_total",
        "Leases that this member, as the leader, had end in time.",
        totals.expired,
    );
}

fn about_watches(page: &mut Page, totals: WatchTotals) {
    page.gauge("etcd_debugging_mvcc_watch_stream_total", "Streams of watches.", totals.streams);
    page.gauge("etcd_debugging_mvcc_watcher_total", "Watches.", totals.watches);
    page.gauge(
        "etcd_debugging_mvcc_slow_watcher_total",
        "Watches that are not up to date and read the history.",
        totals.behind,
    );
    page.counter("etcd_debugging_mvcc_events_total", "Events sent to clients.", totals.events);
    page.counter(
        "ringfence_watches_fallen_behind_total",
        "How often a watch that was up to date went back to the history, since its client did not take what waited for it.",
        totals.fell_behind,
    );
    page.counter(
        "ringfence_watches_compacted_total",
        "Watches ended because the history that they needed was compacted.",
        totals.compacted,
    );
}

/// The process as the kernel sees it. Where the kernel does not tell, the metrics are left out.
fn process(page: &mut Page) {
    let read = |file: &str| std::fs::read_to_string(format!("/proc/self/{file}")).ok();
    if let Some(pages) = read("statm").and_then(|text| text.split(' ').nth(1)?.parse::<u64>().ok()) {
        page.gauge("process_resident_memory_bytes", "Resident memory.", pages * PAGE_BYTES);
    }
    if let Some(ticks) = read("stat").and_then(|text| cpu_ticks(&text)) {
        page.head("process_cpu_seconds_total", "counter", "Processor time used.");
        page.sample("process_cpu_seconds_total", "", ticks as f64 / TICKS_PER_SECOND);
    }
    if let Ok(descriptors) = std::fs::read_dir("/proc/self/fd") {
        page.gauge("process_open_fds", "Open file descriptors.", descriptors.count());
    }
}

/// The kernel's unit of `/proc/*/statm` on the architectures that this server is built for.
const PAGE_BYTES: u64 = 4_096;
/// The kernel's unit of times in `/proc/*/stat`: fixed for user space, whatever the kernel's own clock does.
const TICKS_PER_SECOND: f64 = 100.0;

/// User and system time of a line of `/proc/*/stat`. The name before them may hold anything, a `)` too.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let mut fields = stat[stat.rfind(')')? + 1..].split_ascii_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

/// A label's value, in which a backslash, a quote and a line break have to be escaped.
fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// The page that is being written.
struct Page(String);

impl Page {
    fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.one(name, "gauge", help, "", value);
    }

    fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        self.one(name, "counter", help, "", value);
    }

    /// A metric with one sample; `labels` come with their braces.
    fn one(&mut self, name: &str, kind: &str, help: &str, labels: &str, value: impl Display) {
        self.head(name, kind, help);
        self.sample(name, labels, value);
    }

    fn head(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &str, value: impl Display) {
        let _ = writeln!(self.0, "{name}{labels} {value}");
    }

    fn histogram(&mut self, name: &str, help: &str, labels: &str, histogram: &Histogram) {
        self.head(name, "histogram", help);
        self.samples(name, labels, histogram);
    }

    /// The samples of a histogram; `labels` come without braces.
    fn samples(&mut self, name: &str, labels: &str, histogram: &Histogram) {
        let comma = if labels.is_empty() { "" } else { "," };
        for (bound, count) in &histogram.buckets {
            self.sample(&format!("{name}_bucket"), &format!("{{{labels}{comma}le=\"{bound}\"}}"), count);
        }
        self.sample(&format!("{name}_bucket"), &format!("{{{labels}{comma}le=\"+Inf\"}}"), histogram.count);
        let braces = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
        self.sample(&format!("{name}_sum"), &braces, histogram.sum_seconds);
        self.sample(&format!("{name}_count"), &braces, histogram.count);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use ringfence_consensus::{IntegrityStatus, MemberStatus, ProposalCounts, Quarantine, ReadOnly};
    use ringfence_types::{Alarm, AlarmKind, Index, LeaseTime, LogId, NodeId, Revision, Term};

    use super::*;

    fn status() -> Status {
        let log_id = |index| LogId { term: Term(3), node: NodeId(1), index: Index(index) };
        let member = |id: u64, matched| MemberStatus {
            id: NodeId(id),
            name: format!("n\"{id}"),
            peer_address: "127.0.0.1:1".to_owned(),
            is_voter: true,
            matched,
            answered_ago: Some(Duration::from_millis(20)),
            behind_retention: false,
            snapshot: (id == 2).then_some(Transfer { sent: 10, total: 90 }),
            refusal: (id == 3).then(|| "refused: another disk".to_owned()),
        };
        Status {
            cluster_id: 7,
            node: NodeId(1),
            name: "n1".to_owned(),
            version: "0.1.0".to_owned(),
            role: Role::Leader,
            leader: Some(NodeId(1)),
            term: Term(3),
            last_log: Some(Index(40)),
            committed: Some(Index(39)),
            applied: Some(log_id(38)),
            revision: Revision(30),
            checkpointed: Some(log_id(20)),
            purged: None,
            read_only: Some(ReadOnly { since: Duration::from_millis(1_500), reason: "alone".to_owned() }),
            alarms: vec![Alarm { member: NodeId(10), kind: AlarmKind::Corrupt }],
            quarantine: Some(Quarantine { kind: QuarantineKind::Log, reason: "an old copy".to_owned() }),
            leader_lease_left: Some(Duration::from_millis(250)),
            lease_clock: LeaseTime(7_250),
            leases: 9,
            members: vec![member(1, None), member(2, Some(Index(35))), member(3, None)],
            leader_changes: 2,
            proposals: ProposalCounts { pending: 4, answered: 5, failed: 6 },
            state_file_bytes: 1_000,
            state_in_use_bytes: 900,
            state_rebuilds: 2,
            state_bytes_given_back: 800,
            head_bytes: 80,
            log_bytes: 70,
            integrity: IntegrityStatus { hashes_compared: 9, scrubs: 2, ..IntegrityStatus::default() },
            log_sync: Histogram { buckets: vec![(0.001, 3), (0.002, 4)], count: 5, sum_seconds: 0.5 },
            checkpoint: Histogram::default(),
            propose: Histogram::default(),
        }
    }

    #[test]
    fn the_page_tells_the_status_under_etcds_names() {
        let page = text(
            &status(),
            &Calls::default(),
            LeaseTotals { granted: 4, renewed: 3, revoked: 2, expired: 1 },
            WatchTotals { streams: 2, watches: 9, behind: 1, events: 77, fell_behind: 3, compacted: 4 },
            &Refusals::default(),
        );
        let lines: BTreeSet<&str> = page.lines().collect();
        for line in [
            "etcd_server_has_leader 1",
            "etcd_server_is_leader 1",
            "ringfence_leader_id{leader_id=\"1\"} 1",
            "etcd_server_leader_changes_seen_total 2",
            "etcd_server_proposals_committed_total 39",
            "etcd_server_proposals_applied_total 38",
            "etcd_server_proposals_pending 4",
            "etcd_debugging_mvcc_watch_stream_total 2",
            "etcd_debugging_mvcc_watcher_total 9",
            "etcd_debugging_mvcc_slow_watcher_total 1",
            "etcd_debugging_mvcc_events_total 77",
            "ringfence_watches_fallen_behind_total 3",
            "ringfence_watches_compacted_total 4",
            "etcd_server_proposals_failed_total 6",
            "etcd_mvcc_db_total_size_in_bytes 1000",
            "etcd_mvcc_db_total_size_in_use_in_bytes 900",
            "ringfence_state_given_back_bytes_total 800",
            "etcd_disk_wal_fsync_duration_seconds_bucket{le=\"0.001\"} 3",
            "etcd_disk_wal_fsync_duration_seconds_bucket{le=\"+Inf\"} 5",
            "etcd_disk_wal_fsync_duration_seconds_sum 0.5",
            "etcd_disk_backend_commit_duration_seconds_count 0",
            "ringfence_stage_seconds_bucket{stage=\"log_sync\",le=\"0.002\"} 4",
            "ringfence_read_only 1",
            "ringfence_read_only_since_seconds 1.5",
            "ringfence_log_quarantine 1",
            "ringfence_peer_refused{member=\"2\",name=\"n\\\"2\"} 0",
            "ringfence_peer_refused{member=\"3\",name=\"n\\\"3\"} 1",
            "ringfence_state_quarantine 0",
            "etcd_debugging_server_alarms{server_id=\"a\",alarm_type=\"CORRUPT\"} 1",
            "ringfence_hashes_compared_total 9",
            "ringfence_lease_clock_seconds 7.25",
            "ringfence_leases 9",
            "etcd_debugging_lease_granted_total 4",
            "etcd_debugging_lease_renewed_total 3",
            "etcd_debugging_lease_revoked_total 2",
            "etcd_server_lease_expired_total 1",
            "ringfence_scrubs_total 2",
            "ringfence_peer_lag_entries{member=\"2\",name=\"n\\\"2\"} 5",
            "ringfence_peer_snapshot_sent_bytes{member=\"2\",name=\"n\\\"2\"} 10",
            "ringfence_peer_snapshot_bytes{member=\"2\",name=\"n\\\"2\"} 90",
        ] {
            assert!(lines.contains(line), "{line} in {page}");
        }
        assert!(!page.contains("ringfence_peer_lag_entries{member=\"3\""), "what is not known is not told");
    }

    #[test]
    fn every_sample_stands_under_one_head_of_its_name() {
        let page = text(
            &status(),
            &Calls::default(),
            LeaseTotals { granted: 4, renewed: 3, revoked: 2, expired: 1 },
            WatchTotals { streams: 2, watches: 9, behind: 1, events: 77, fell_behind: 3, compacted: 4 },
            &Refusals::default(),
        );
        let mut heads = BTreeSet::new();
        let mut current = "";
        for line in page.lines() {
            if let Some(head) = line.strip_prefix("# TYPE ") {
                current = head.split(' ').next().unwrap();
                assert!(heads.insert(current), "{current} has one head");
            } else if !line.starts_with('#') {
                let (name, value) =
                    (line.split(['{', ' ']).next().unwrap(), line.rsplit(' ').next().unwrap());
                let base = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
                assert!(name == current || base == Some(current), "{line} under {current}");
                assert!(value.parse::<f64>().is_ok(), "{line}");
            }
        }
    }

    #[test]
    fn processor_time_is_read_past_any_name() {
        let stat = "7 (a) b) c) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0";
        assert_eq!(cpu_ticks(stat), Some(300));
        assert_eq!(cpu_ticks("nonsense"), None);
    }
}
