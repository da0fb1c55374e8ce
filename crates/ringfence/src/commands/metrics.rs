//! What a node tells in its metrics, for which etcd's Status has no field. A server that has none of ours is no error.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Most bytes of a page of metrics that are read.
const PAGE_BYTES_MAX: u64 = 1 << 20;

/// A page of metrics.
#[derive(Debug, Clone, Default)]
pub(crate) struct Metrics(String);

impl Metrics {
    /// Reads a node's page; none where it has none.
    pub(crate) async fn fetch(address: &str, within: Duration) -> Option<Metrics> {
        timeout(within, get(address)).await.ok()?
    }

    #[cfg(test)]
    pub(crate) fn parse(page: &str) -> Metrics {
        Metrics(page.to_owned())
    }

    /// The value of a metric without labels.
    pub(crate) fn value(&self, name: &str) -> Option<f64> {
        self.0.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
    }

    /// The sum of a metric's samples that have a label.
    pub(crate) fn sum(&self, name: &str, label: &str) -> f64 {
        let value = |line: &str| {
            let (labels, value) = line.strip_prefix(name)?.strip_prefix('{')?.rsplit_once("} ")?;
            if labels.contains(label) { value.trim().parse::<f64>().ok() } else { None }
        };
        self.0.lines().filter_map(value).sum()
    }

    /// The value of a metric about another member.
    pub(crate) fn of_member(&self, name: &str, id: u64) -> Option<f64> {
        let labels = format!("{{member=\"{id:x}\",");
        self.0.lines().find_map(|line| {
            let (_, value) = line.strip_prefix(name)?.strip_prefix(&labels)?.rsplit_once("} ")?;
            value.trim().parse().ok()
        })
    }
}

/// A request of HTTP/1.0, whose answer ends with the connection: too little to need a library.
async fn get(address: &str) -> Option<Metrics> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    stream.write_all(format!("GET /metrics HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes()).await.ok()?;
    let mut answer = Vec::new();
    stream.take(PAGE_BYTES_MAX).read_to_end(&mut answer).await.ok()?;
    let answer = String::from_utf8(answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.split_ascii_whitespace().nth(1).filter(|status| *status == "200")?;
    Some(Metrics(body.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_by_name_and_member() {
        let metrics = Metrics::parse(
            "# HELP a Help.\na_total 5\na 1.5\npeer{member=\"10\",name=\"x} y\"} 7\npeer{member=\"1\",name=\"z\"} 8\n",
        );
        assert_eq!(metrics.value("a"), Some(1.5));
        assert_eq!(metrics.value("b"), None);
        assert_eq!(metrics.of_member("peer", 0x10), Some(7.0));
        assert_eq!(metrics.of_member("peer", 1), Some(8.0));
        assert_eq!(metrics.of_member("peer", 2), None);
    }
}
