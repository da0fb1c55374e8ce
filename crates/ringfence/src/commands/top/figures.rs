//! What the members tell at one moment.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use ringfence_client::Client;

use crate::commands::metrics::Metrics;
use crate::commands::status::{self, NodeStatus};
use crate::exit::Failure;

const CALLS: &str = "grpc_server_handled_total";
const WRITES: [&str; 3] = ["Put", "DeleteRange", "Txn"];
const READS: [&str; 2] = ["Range", "RangeStream"];

/// All members at about one moment.
#[derive(Debug, Clone)]
pub(super) struct Look {
    at: Instant,
    pub(super) nodes: Vec<NodeStatus>,
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
        let asked = members.iter().map(|member| NodeStatus::ask(client, member, timeout));
        let mut nodes = join_all(asked).await;
        status::compare(&mut nodes);
        Ok(Look { at: Instant::now(), nodes })
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
        Look { at, nodes: vec![NodeStatus::leading("n1", "127.0.0.1:2379", Metrics::parse(page))] }
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
