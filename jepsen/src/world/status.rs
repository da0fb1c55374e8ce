//! What a node says of itself, by its page of metrics.

use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::time::Duration;

use super::place::Place;

/// Longest wait for a connection, and then for each piece of an answer. A node that is stopped or starved takes longer, which
/// is an answer too.
const TIMEOUT: Duration = Duration::from_millis(500);

/// How a node stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeStatus {
    /// Its own number among the cluster's members.
    pub id: u64,
    /// Whether it says that it leads, with a leader lease.
    pub leads: bool,
    /// Its term.
    pub term: u64,
    /// The leader that it knows, by the leader's number among the cluster's members.
    pub leader_id: Option<u64>,
    /// The leader that it knows, by number from 1; none: it knows none, or one that has not been asked for its status yet.
    pub leader: Option<usize>,
    /// The last entry that it knows to be committed.
    pub committed: u64,
    /// The last entry that it applied.
    pub applied: u64,
    /// The store's revision.
    pub revision: u64,
    /// Whether it refuses writes.
    pub read_only: bool,
}

impl NodeStatus {
    /// Reads a page of metrics; `None`: it is none. Who the leader is among the nodes is for others to find out.
    pub(super) fn parse(page: &str) -> Option<NodeStatus> {
        let number = |name: &str| sample(page, name)?.parse::<f64>().ok();
        let count = |name: &str| number(name).map(|value| value as u64);
        let leads =
            number("etcd_server_is_leader")? > 0.0 && number("ringfence_leader_lease_left_seconds")? > 0.0;
        Some(NodeStatus {
            id: member(page, "etcd_server_id{server_id=\"")?,
            leads,
            term: count("ringfence_raft_term")?,
            leader_id: member(page, "ringfence_leader_id{leader_id=\""),
            leader: None,
            committed: count("etcd_server_proposals_committed_total")?,
            applied: count("etcd_server_proposals_applied_total")?,
            revision: count("etcd_debugging_mvcc_current_revision")?,
            read_only: number("ringfence_read_only")? > 0.0,
        })
    }
}

/// The value of a sample without labels.
fn sample<'a>(page: &'a str, name: &str) -> Option<&'a str> {
    page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).map(str::trim)
}

/// The member that stands, in hexadecimal digits, in a label of the sample that begins so.
fn member(page: &str, beginning: &str) -> Option<u64> {
    let digits = page.lines().find_map(|line| line.strip_prefix(beginning))?.split('"').next()?;
    u64::from_str_radix(digits, 16).ok()
}

/// Gets a page: its status code and its body.
///
/// # Errors
/// Where there is no answer in time, or it is no HTTP.
pub(super) fn get(place: &Place, address: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    let wrong = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let mut stream = place.connect(address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(|| wrong("the headers have no end"))?;
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    Ok((code.ok_or_else(|| wrong("there is no status"))?, body.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# HELP etcd_server_id The member's number.\netcd_server_id{server_id=\"1f\"} 1\n\
        etcd_server_is_leader 0\nringfence_raft_term 7\nringfence_leader_id{leader_id=\"2a\"} 1\n\
        ringfence_leader_lease_left_seconds 0\netcd_server_proposals_committed_total 12\n\
        etcd_server_proposals_applied_total 11\netcd_debugging_mvcc_current_revision 9\nringfence_read_only 1\n";

    #[test]
    fn a_page_of_metrics_is_a_status() {
        let status = NodeStatus::parse(PAGE).expect("the page is whole");
        let expected = NodeStatus {
            id: 0x1f,
            leads: false,
            term: 7,
            leader_id: Some(0x2a),
            leader: None,
            committed: 12,
            applied: 11,
            revision: 9,
            read_only: true,
        };
        assert_eq!(status, expected);
    }

    #[test]
    fn a_leader_leads_while_its_lease_lasts() {
        let leader = PAGE.replace("is_leader 0", "is_leader 1");
        assert!(!NodeStatus::parse(&leader).expect("the page is whole").leads);
        let holds = leader.replace("left_seconds 0", "left_seconds 0.25");
        assert!(NodeStatus::parse(&holds).expect("the page is whole").leads);
    }

    #[test]
    fn another_page_is_none() {
        assert_eq!(NodeStatus::parse("not ready: starting\n"), None);
    }
}
