//! Nodes in this process, on simulated disks and real sockets, and what their clients see.

#![allow(dead_code, reason = "each test file uses a part")]

pub mod watching;

use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use ringfence_consensus::{Config, Founder, Node, Retention, TcpNetwork, Timing};
use ringfence_disk::SimDisk;
use ringfence_proto::etcdserverpb::kv_client::KvClient;
use ringfence_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use ringfence_proto::etcdserverpb::{self as etcd};
use ringfence_proto::ringfence_v1::ErrorDetail;
use ringfence_proto::ringfence_v1::error_detail::AttemptApplied;
use ringfence_proto::{ERROR_DETAIL_KEY, mvccpb};
use ringfence_server::{ServerConfig, bind, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::{Code, Status};

/// A node with a client's connection to it.
pub struct Server {
    pub address: String,
    pub channel: Channel,
    pub shutdown: CancellationToken,
    pub serving: JoinHandle<()>,
    pub node: Node,
}

impl Server {
    /// A cluster of one node, ready.
    pub async fn start() -> Server {
        let [server] = <[_; 1]>::try_from(Server::start_cluster(1).await).ok().expect("one was started");
        server
    }

    /// A cluster of so many nodes, all of them ready.
    pub async fn start_cluster(size: usize) -> Vec<Server> {
        let mut networks = Vec::new();
        let mut founders = Vec::new();
        for at in 1..=size {
            let network = TcpNetwork::bind("127.0.0.1:0".parse().unwrap()).await.expect("a free port");
            let peer_address = network.local_address().unwrap().to_string();
            founders.push(Founder { name: format!("n{at}"), peer_address });
            networks.push(network);
        }
        let mut servers = Vec::new();
        for (at, network) in networks.into_iter().enumerate() {
            servers.push(Server::start_one(&founders, at, network).await);
        }
        for server in &servers {
            server.until_ready().await;
        }
        servers
    }

    async fn start_one(founders: &[Founder], at: usize, network: TcpNetwork) -> Server {
        let listener = bind("127.0.0.1:0".parse().unwrap()).await.expect("a free port");
        let address = listener.local_addr().unwrap().to_string();
        let config = Config {
            name: founders[at].name.clone(),
            advertise_peer: founders[at].peer_address.clone(),
            client_urls: vec![format!("http://{address}")],
            founders: founders.to_vec(),
            join: None,
            peer_secret: None,
            timing: Timing::LOCAL,
            checkpoint_interval: Duration::from_secs(5),
            retention: Retention::default(),
            wal_segment_bytes: 16 << 20,
            store_cache_bytes: 8 << 20,
            rebuild_free_bytes_min: 64 << 20,
            snapshot_bytes_per_second: Config::SNAPSHOT_BYTES_PER_SECOND,
            disk_stall_limit: Config::DISK_STALL_LIMIT,
            integrity: Default::default(),
            version: "1.2.3".to_owned(),
        };
        let disk = Arc::new(SimDisk::new(at as u64));
        let node = Node::start(config, disk, Arc::new(network)).await.expect("the node starts");
        let shutdown = CancellationToken::new();
        let (served, token) = (node.clone(), shutdown.clone());
        let serving = tokio::spawn(async move {
            let config = ServerConfig {
                listeners: vec![listener],
                watch_progress_interval: Duration::from_millis(300),
            };
            serve(config, served, token).await.expect("there is a listener");
        });
        let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
        Server { address, channel, shutdown, serving, node }
    }

    /// Waits for the first leader, by asking as a client would.
    pub async fn until_ready(&self) {
        for _ in 0..200 {
            if self.get("/readyz").await.0 == 200 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("not ready within ten seconds: {:?}", self.get("/readyz").await);
    }

    pub fn kv(&self) -> KvClient<Channel> {
        KvClient::new(self.channel.clone()).max_decoding_message_size(64 << 20)
    }

    pub fn maintenance(&self) -> MaintenanceClient<Channel> {
        MaintenanceClient::new(self.channel.clone())
    }

    pub async fn put(&self, key: &str, value: &str) -> etcd::PutResponse {
        let put = etcd::PutRequest { prev_kv: true, ..put(key, value) };
        self.kv().put(put).await.expect("the put is taken").into_inner()
    }

    /// Plain HTTP/1.1: the code and the body.
    pub async fn get(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).await.expect("the port is open");
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").expect("an HTTP answer");
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    pub async fn stop(self) {
        drop(self.channel);
        self.shutdown.cancel();
        tokio::time::timeout(Duration::from_secs(10), self.serving).await.expect("it drains").unwrap();
        self.node.shutdown().await;
    }
}

pub fn put(key: &str, value: &str) -> etcd::PutRequest {
    etcd::PutRequest { key: key.to_owned().into(), value: value.to_owned().into(), ..Default::default() }
}

pub fn range(key: &'static str, range_end: &'static str) -> etcd::RangeRequest {
    etcd::RangeRequest { key: key.into(), range_end: range_end.into(), ..Default::default() }
}

pub fn keys(kvs: &[mvccpb::KeyValue]) -> Vec<String> {
    kvs.iter().map(|kv| String::from_utf8(kv.key.to_vec()).unwrap()).collect()
}

pub fn detail(status: &Status) -> ErrorDetail {
    let value =
        status.metadata().get_bin(ERROR_DETAIL_KEY).unwrap_or_else(|| panic!("no detail in {status:?}"));
    ErrorDetail::decode(value.to_bytes().unwrap()).unwrap()
}

/// The error is etcd's, and promises that nothing was done.
pub fn assert_refused<T: std::fmt::Debug>(result: Result<T, Status>, code: Code, message: &str) {
    let status = result.unwrap_err();
    assert_eq!((status.code(), status.message()), (code, message));
    assert_eq!(detail(&status).attempt_applied(), AttemptApplied::No, "{status:?}");
}
