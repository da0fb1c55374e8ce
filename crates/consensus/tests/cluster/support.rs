//! Clusters to try things on, and what is done with them again and again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use ringfence_consensus::{BarrierError, Config, Founder, Node, ProposeError, Retention, Timing, rt};
use ringfence_disk::{Disk, SimDisk};
use ringfence_types::{Command, Freshness, KeyRange, NodeId, Put, PutLease, PutValue, RangeQuery};

use crate::fabric::{Fabric, Port};

pub(crate) struct Cluster {
    pub(crate) fabric: Arc<Fabric>,
    pub(crate) disks: Vec<Arc<SimDisk>>,
    pub(crate) nodes: Vec<Node>,
}

pub(crate) fn address(index: usize) -> String {
    format!("n{}:1", index + 1)
}

pub(crate) fn config(index: usize, count: usize) -> Config {
    let founders =
        (0..count).map(|i| Founder { name: format!("n{}", i + 1), peer_address: address(i) }).collect();
    Config {
        name: format!("n{}", index + 1),
        advertise_peer: address(index),
        client_urls: vec![format!("http://n{}:2", index + 1)],
        founders,
        join: None,
        peer_secret: None,
        timing: Timing::LOCAL,
        checkpoint_interval: Duration::from_secs(3600),
        retention: Retention::default(),
        wal_segment_bytes: 4 << 20,
        store_cache_bytes: 4 << 20,
        rebuild_free_bytes_min: 64 << 20,
        snapshot_bytes_per_second: Config::SNAPSHOT_BYTES_PER_SECOND,
        disk_stall_limit: Config::DISK_STALL_LIMIT,
        integrity: Default::default(),
        space: Default::default(),
        version: "test".to_owned(),
    }
}

pub(crate) fn deadline(seconds: u64) -> rt::Instant {
    rt::now() + Duration::from_secs(seconds)
}

impl Cluster {
    pub(crate) async fn start(count: usize) -> Cluster {
        Cluster::start_with(count, |_| ()).await
    }

    pub(crate) async fn start_with(count: usize, adapt: impl Fn(&mut Config)) -> Cluster {
        let fabric = Arc::<Fabric>::default();
        let disks: Vec<Arc<SimDisk>> =
            (0..count).map(|index| Arc::new(SimDisk::new(index as u64 + 1))).collect();
        // Mailboxes first: a founder that is dialled before it listens costs a retry.
        let ports: Vec<Arc<Port>> = (0..count).map(|index| fabric.port(&address(index))).collect();
        let mut nodes = Vec::new();
        for (index, port) in ports.into_iter().enumerate() {
            let disk: Arc<dyn Disk> = disks[index].clone();
            let mut config = config(index, count);
            adapt(&mut config);
            nodes.push(Node::start(config, disk, port).await.expect("a fresh node starts"));
        }
        Cluster { fabric, disks, nodes }
    }

    /// Starts a stopped node again, on the disk that it has by now.
    pub(crate) async fn start_again(&mut self, index: usize) {
        let (disk, port) = (self.disks[index].clone(), self.fabric.port(&address(index)));
        let started = Node::start(config(index, self.nodes.len()), disk, port).await;
        self.nodes[index] = started.expect("a node starts again");
    }

    /// Waits until every member has told its addresses: from then on nodes write nothing by themselves.
    pub(crate) async fn settle(&self) {
        for _ in 0..1000 {
            let members = self.nodes.iter().map(|node| node.view().members());
            if members.into_iter().all(|members| members.len() == self.nodes.len()) {
                return;
            }
            rt::sleep(Duration::from_millis(10)).await;
        }
        panic!("not all members have published their addresses in 10 s");
    }

    /// The index of the node that all of `among` call their leader.
    pub(crate) async fn leader(&self, among: &[usize]) -> usize {
        for _ in 0..1000 {
            let named: BTreeSet<Option<NodeId>> =
                among.iter().map(|index| self.nodes[*index].leader()).collect();
            if let [Some(leader)] = named.iter().copied().collect::<Vec<_>>()[..] {
                return leader.0 as usize - 1;
            }
            rt::sleep(Duration::from_millis(10)).await;
        }
        panic!("no leader among {among:?} in 10 s");
    }
}

pub(crate) fn put(key: &str, value: &str) -> Command {
    Command::Put(Put {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: PutValue::Set(Bytes::copy_from_slice(value.as_bytes())),
        lease: PutLease::Set(ringfence_types::LeaseId(0)),
        prev_kv: false,
    })
}

pub(crate) fn value_in(view: &ringfence_store::View, key: &str) -> Option<String> {
    let query = RangeQuery::new(KeyRange::single(Bytes::copy_from_slice(key.as_bytes())));
    let reply = view.range(&query).expect("the state can be read");
    reply.kvs.first().map(|kv| String::from_utf8_lossy(&kv.value).into_owned())
}

pub(crate) async fn get(node: &Node, key: &str) -> Result<Option<String>, BarrierError> {
    Ok(value_in(&node.read_barrier(Freshness::Linearizable, deadline(5)).await?, key))
}

/// Writers that go on until they are told to stop, or a write fails.
pub(crate) struct Writers {
    pub(crate) stop: Arc<AtomicBool>,
    pub(crate) tasks: Vec<rt::JoinHandle<Result<(), ProposeError>>>,
}

impl Writers {
    pub(crate) fn start<'a>(through: impl Iterator<Item = &'a Node>) -> Writers {
        let stop = Arc::<AtomicBool>::default();
        let write = |(writer, node): (usize, &Node)| {
            let (node, stop) = (node.clone(), stop.clone());
            rt::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let _outcome = node.propose(&put(&format!("key-{writer}"), "value"), deadline(5)).await?;
                }
                Ok(())
            })
        };
        let tasks = through.enumerate().map(write).collect();
        Writers { stop, tasks }
    }

    pub(crate) async fn stop(self) -> Vec<Result<(), ProposeError>> {
        self.stop.store(true, Ordering::Relaxed);
        let mut ended = Vec::new();
        for task in self.tasks {
            ended.push(task.await.expect("a writer does not panic"));
        }
        ended
    }
}
