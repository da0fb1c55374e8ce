//! What one node tells about itself, and what a comparison of all adds to it.

use std::time::Duration;

use ringfence_client::Client;
use serde::Serialize;

use crate::commands::metrics::Metrics;

/// A node to be asked.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) name: String,
    /// Unknown where only an endpoint is known.
    pub(crate) id: Option<u64>,
    /// Its `host:port` for clients; empty where nobody knows it.
    pub(crate) client: String,
}

/// One node. What it did not tell is absent.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct NodeStatus {
    pub(crate) name: String,
    pub(crate) id: Option<u64>,
    pub(crate) client: String,
    /// leader, follower, learner, or unreachable.
    pub(crate) role: &'static str,
    pub(crate) term: Option<u64>,
    /// The last entry that it knows to be committed.
    pub(crate) committed: Option<u64>,
    /// The last entry that it has applied.
    pub(crate) applied: Option<u64>,
    /// Committed entries that it has not applied, as far as any node knows.
    pub(crate) lag_entries: Option<u64>,
    /// For how long it has lagged: since it last answered its leader. 0 where it does not lag.
    pub(crate) lag_seconds: Option<f64>,
    /// Bytes of its state file.
    pub(crate) size: Option<u64>,
    /// Whether it refuses writes.
    pub(crate) read_only: Option<bool>,
    /// For how many seconds it has refused them.
    pub(crate) since: Option<f64>,
    /// What of it is not to be believed: its log, or its state.
    pub(crate) quarantine: Option<&'static str>,
    /// Seconds that are left of its leader lease.
    pub(crate) leader_lease: Option<f64>,
    pub(crate) version: Option<String>,
    /// What the node itself complains about.
    pub(crate) problems: Vec<String>,
    /// Why it could not be asked.
    pub(crate) error: Option<String>,
    /// The leader that it names.
    #[serde(skip)]
    leader: Option<u64>,
    #[serde(skip)]
    metrics: Metrics,
}

impl NodeStatus {
    /// Asks a node.
    pub(crate) async fn ask(client: &Client, member: &Member, timeout: Duration) -> NodeStatus {
        let mut node = NodeStatus {
            name: member.name.clone(),
            id: member.id,
            client: member.client.clone(),
            role: "unreachable",
            ..NodeStatus::default()
        };
        if member.client.is_empty() {
            node.error = Some("it has not told where clients reach it: has it ever been started?".to_owned());
            return node;
        }
        let (status, metrics) =
            tokio::join!(client.status(&member.client), Metrics::fetch(&member.client, timeout));
        let status = match status {
            Ok(status) => status,
            Err(error) => {
                node.error = Some(error.to_string());
                return node;
            }
        };
        let id = status.header.as_ref().map(|header| header.member_id);
        node.id = id.or(node.id);
        node.role = match (status.leader == id.unwrap_or(0) && status.leader != 0, status.is_learner) {
            (true, _) => "leader",
            (false, true) => "learner",
            (false, false) => "follower",
        };
        node.leader = (status.leader != 0).then_some(status.leader);
        node.term = Some(status.raft_term);
        node.committed = Some(status.raft_index);
        node.applied = Some(status.raft_applied_index);
        node.size = u64::try_from(status.db_size).ok();
        node.version = Some(status.version);
        node.problems = status.errors;
        node.metrics = metrics.unwrap_or_default();
        node.read_only = node.metrics.value("ringfence_read_only").map(|value| value != 0.0);
        if node.read_only == Some(true) {
            node.since = node.metrics.value("ringfence_read_only_since_seconds");
        }
        node.quarantine = ["log", "state"]
            .into_iter()
            .find(|kind| node.metrics.value(&format!("ringfence_{kind}_quarantine")) == Some(1.0));
        if node.role == "leader" {
            node.leader_lease = node.metrics.value("ringfence_leader_lease_left_seconds");
        }
        node
    }

    /// What it tells beyond that; empty where it tells nothing.
    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    #[cfg(test)]
    pub(crate) fn leading(name: &str, client: &str, metrics: Metrics) -> NodeStatus {
        let (name, client) = (name.to_owned(), client.to_owned());
        NodeStatus { name, client, role: "leader", metrics, ..NodeStatus::default() }
    }
}

/// Fills in what shows only when the nodes are compared: how far each lags behind what any knows to be committed.
pub(crate) fn compare(nodes: &mut [NodeStatus]) {
    let committed = nodes.iter().filter_map(|node| node.committed).max();
    let leader = nodes.iter().position(|node| node.role == "leader");
    for at in 0..nodes.len() {
        let lag = match (committed, nodes[at].applied) {
            (Some(committed), Some(applied)) => Some(committed.saturating_sub(applied)),
            _ => leader.zip(nodes[at].id).and_then(|(leader, id)| {
                nodes[leader]
                    .metrics
                    .of_member("ringfence_peer_lag_entries", id)
                    .map(|entries| entries as u64)
            }),
        };
        let answered_ago = leader.zip(nodes[at].id).and_then(|(leader, id)| {
            nodes[leader].metrics.of_member("ringfence_peer_answered_ago_seconds", id)
        });
        nodes[at].lag_entries = lag;
        nodes[at].lag_seconds = match (lag, nodes[at].error.is_some()) {
            (Some(0), false) => Some(0.0),
            _ => answered_ago,
        };
    }
}

/// The leader's name: that of the node which says that it leads, the one with the highest term if several do; else of the
/// one that others name.
pub(crate) fn leader_name(nodes: &[NodeStatus]) -> Option<String> {
    let leading = nodes.iter().filter(|node| node.role == "leader").max_by_key(|node| node.term);
    let named = || {
        let witness = nodes.iter().filter(|node| node.leader.is_some()).max_by_key(|node| node.term)?;
        nodes.iter().find(|node| node.id == witness.leader)
    };
    leading.or_else(named).map(|node| node.name.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, id: u64, role: &'static str, term: u64, applied: Option<u64>) -> NodeStatus {
        NodeStatus {
            name: name.to_owned(),
            id: Some(id),
            role,
            term: Some(term),
            committed: applied,
            applied,
            ..NodeStatus::default()
        }
    }

    #[test]
    fn lag_is_counted_from_the_furthest_commit() {
        let mut nodes = [
            node("a", 1, "leader", 2, Some(100)),
            node("b", 2, "follower", 2, Some(90)),
            node("c", 3, "unreachable", 2, None),
        ];
        nodes[0].metrics = Metrics::parse(
            "ringfence_peer_lag_entries{member=\"3\",name=\"c\"} 40\n\
             ringfence_peer_answered_ago_seconds{member=\"3\",name=\"c\"} 7.5\n",
        );
        nodes[2].error = Some("no answer".to_owned());
        compare(&mut nodes);
        let lags: Vec<_> = nodes.iter().map(|node| (node.lag_entries, node.lag_seconds)).collect();
        assert_eq!(lags, [(Some(0), Some(0.0)), (Some(10), None), (Some(40), Some(7.5))]);
    }

    #[test]
    fn of_two_that_say_they_lead_the_newer_does() {
        let mut nodes = [node("a", 1, "leader", 2, None), node("b", 2, "leader", 3, None)];
        assert_eq!(leader_name(&nodes).as_deref(), Some("b"));
        nodes[1].role = "unreachable";
        nodes[0].role = "follower";
        assert_eq!(leader_name(&nodes), None);
        nodes[0].leader = Some(2);
        assert_eq!(leader_name(&nodes).as_deref(), Some("b"));
    }
}
