//! What the members tell at one moment.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use ringfence_client::Client;
use ringfence_proto::ringfence_v1::HotPrefix;

use serde::Serialize;

use crate::commands::metrics::Metrics;
use crate::commands::status::{self, NodeStatus};
use crate::exit::Failure;
use crate::record::shown;

const CALLS: &str = "grpc_server_handled_total";
const WRITES: [&str; 3] = ["Put", "DeleteRange", "Txn"];
const READS: [&str; 2] = ["Range", "RangeStream"];
/// Prefixes that each member is asked for: more than are shown, since they are ordered by their totals and not by what they
/// are asked for now.
const PREFIXES_ASKED: u32 = 64;

/// All members at about one moment.
#[derive(Debug, Clone)]
pub(super) struct Look {
    at: Instant,
    pub(super) nodes: Vec<NodeStatus>,
    /// What each node's clients ask for most, by the address of the node.
    hottest: HashMap<String, Vec<HotPrefix>>,
}

/// A prefix that is much asked for.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Hot {
    pub(super) prefix: String,
    pub(super) writes_per_second: f64,
    pub(super) reads_per_second: f64,
}

impl Hot {
    fn calls(&self) -> f64 {
        self.writes_per_second + self.reads_per_second
    }
}

/// How much of something there was in a second between two looks.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Rates {
    pub(super) writes: Option<f64>,
    pub(super) reads: Option<f64>,
    /// Processors that were busy.
    pub(super) cpus: Option<f64>,
}

impl Look {
    /// Asks every member, all at once.
    pub(super) async fn take(client: &Client, timeout: Duration) -> Result<Look, Failure> {
        let members = status::members(client).await?;
        let asked = members.iter().map(|member| async move {
            let hottest = async {
                let asked = client.hottest(&member.client, PREFIXES_ASKED);
                // A member that does not tell is shown without.
                tokio::time::timeout(timeout, asked).await.ok().and_then(Result::ok).unwrap_or_default()
            };
            tokio::join!(NodeStatus::ask(client, member, timeout), hottest)
        });
        let (mut nodes, hottest): (Vec<_>, Vec<_>) = join_all(asked).await.into_iter().unzip();
        status::compare(&mut nodes);
        let hottest = members.iter().map(|member| member.client.clone()).zip(hottest).collect();
        Ok(Look { at: Instant::now(), nodes, hottest })
    }

    /// What was asked for most since an earlier look, on all members together; the hottest first.
    pub(super) fn hottest(&self, before: Option<&Look>) -> Vec<Hot> {
        let Some(before) = before else { return Vec::new() };
        let seconds = self.at.duration_since(before.at).as_secs_f64();
        let mut sums: BTreeMap<&[u8], (u64, u64)> = BTreeMap::new();
        for (client, now) in &self.hottest {
            let Some(then) = before.hottest.get(client) else { continue };
            let then: HashMap<&[u8], &HotPrefix> = then.iter().map(|hot| (&hot.prefix[..], hot)).collect();
            for hot in now {
                let earlier = then.get(&hot.prefix[..]).map_or((0, 0), |hot| (hot.reads, hot.writes));
                let sum = sums.entry(&hot.prefix).or_default();
                sum.0 += hot.reads.saturating_sub(earlier.0);
                sum.1 += hot.writes.saturating_sub(earlier.1);
            }
        }
        let rate = |count: u64| if seconds > 0.0 { count as f64 / seconds } else { 0.0 };
        let mut hottest: Vec<Hot> = sums
            .into_iter()
            .filter(|(_, (reads, writes))| reads + writes > 0)
            .map(|(prefix, (reads, writes))| Hot {
                prefix: shown(prefix),
                writes_per_second: rate(writes),
                reads_per_second: rate(reads),
            })
            .collect();
        hottest.sort_by(|one, other| other.calls().total_cmp(&one.calls()));
        hottest
    }

    /// The rates of a node since an earlier look; none where it was not seen then, or has been started since.
    pub(super) fn rates(&self, node: &NodeStatus, before: Option<&Look>) -> Rates {
        let Some(before) = before else { return Rates::default() };
        let Some(earlier) = before.nodes.iter().find(|earlier| earlier.client == node.client) else {
            return Rates::default();
        };
        let seconds = self.at.duration_since(before.at).as_secs_f64();
        let rate = |figure: fn(&Metrics) -> Option<f64>| {
            let (now, then) = (figure(node.metrics())?, figure(earlier.metrics())?);
            (now >= then && seconds > 0.0).then(|| (now - then) / seconds)
        };
        Rates {
            writes: rate(|metrics| calls(metrics, &WRITES)),
            reads: rate(|metrics| calls(metrics, &READS)),
            cpus: rate(|metrics| metrics.value("process_cpu_seconds_total")),
        }
    }
}

/// How often some of the methods were called; none from a server that tells nothing at all.
fn calls(metrics: &Metrics, methods: &[&str]) -> Option<f64> {
    metrics.value("etcd_server_has_leader")?;
    let of = |method: &&str| metrics.sum(CALLS, &format!("grpc_method=\"{method}\""));
    Some(methods.iter().map(of).sum())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A look at one node, so many seconds after some moment, with this page of metrics.
    pub(crate) fn look(start: Instant, seconds: u64, page: &str) -> Look {
        let at = start + Duration::from_secs(seconds);
        let nodes = vec![NodeStatus::leading("n1", "127.0.0.1:2379", Metrics::parse(page))];
        Look { at, nodes, hottest: HashMap::new() }
    }

    /// The same, and its clients ask for these prefixes.
    pub(crate) fn hot(look: Look, prefixes: &[(&'static str, u64, u64)]) -> Look {
        let hot = |(prefix, reads, writes): &(&'static str, u64, u64)| HotPrefix {
            prefix: (*prefix).into(),
            reads: *reads,
            writes: *writes,
        };
        let hottest = prefixes.iter().map(hot).collect();
        Look { hottest: HashMap::from([("127.0.0.1:2379".to_owned(), hottest)]), ..look }
    }

    #[test]
    fn what_is_hot_is_so_since_the_last_look() {
        let start = Instant::now();
        let before = hot(look(start, 0, ""), &[("long-ago/", 9_000, 9_000), ("now/", 100, 0)]);
        let now =
            hot(look(start, 2, ""), &[("long-ago/", 9_000, 9_000), ("now/", 300, 20), ("\u{7}", 0, 64)]);
        let told: Vec<_> = now
            .hottest(Some(&before))
            .into_iter()
            .map(|hot| (hot.prefix, hot.reads_per_second, hot.writes_per_second))
            .collect();
        assert_eq!(told, [("now/".to_owned(), 100.0, 10.0), ("\\x07".to_owned(), 0.0, 32.0)]);
        assert!(now.hottest(None).is_empty());
    }

    fn page(puts: u32, refused: u32, ranges: u32) -> String {
        let sample = |code: &str, method: &str, count: u32| {
            format!(
                "{CALLS}{{grpc_code=\"{code}\",grpc_method=\"{method}\",grpc_service=\"etcdserverpb.KV\"}} {count}\n"
            )
        };
        format!(
            "etcd_server_has_leader 1\n{}{}{}process_cpu_seconds_total 1.5\n",
            sample("OK", "Put", puts),
            sample("Unavailable", "Put", refused),
            sample("OK", "Range", ranges)
        )
    }

    #[test]
    fn rates_are_what_was_added_since_the_last_look() {
        let start = Instant::now();
        let before = look(start, 0, &page(10, 0, 5));
        let now = look(start, 2, &page(20, 4, 5));
        let rates = now.rates(&now.nodes[0], Some(&before));
        assert_eq!(rates, Rates { writes: Some(7.0), reads: Some(0.0), cpus: Some(0.0) });
        assert_eq!(now.rates(&now.nodes[0], None), Rates::default());
        // A node that was started again counts from the beginning, and is no machine that undoes calls.
        let again = look(start, 4, &page(3, 0, 9));
        let rates = again.rates(&again.nodes[0], Some(&now));
        assert_eq!((rates.writes, rates.reads), (None, Some(2.0)));
    }
}
