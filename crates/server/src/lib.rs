//! The clients' side of a node: the gRPC services of the etcd v3 API with health and reflection, and plain HTTP for
//! probes and metrics, the JSON gateway, all on one port.
//!
//! A request goes through the rooms in this order: `door` (which service is it for, and `admission`: is there room for it; what
//! comes as JSON the `gateway` translates first), `kv`, `watch`, `lease`, `lock`, `election`, `fencing`, `history`, `cluster`,
//! `maintenance` or `auth` (parse once, with `ringfence-proto`), `gate` (may only reject; what is `stale` for good), then the node:
//! [`ringfence_consensus::Node::propose`] for writes and [`ringfence_consensus::Node::read_barrier`] for reads. Whatever goes
//! wrong anywhere becomes a gRPC status in one place, `status`; nothing else makes one. No retry, no state of a client and no
//! clock lives here. Beside the rooms work `renewals` (keep-alives that share entries), `lease_keeper` (leases that are due,
//! while this member leads), `compactor` (history that is not kept any longer, likewise), `hottest` (what is asked for most), `holders` (who stands first in the
//! queues that `candidacy` waits in for its calls) and the hub of `watch` (what has happened, for all who watch).

mod admission;
mod alarm;
mod auth;
mod calls;
mod candidacy;
mod cluster;
mod compactor;
mod deadline;
mod door;
mod election;
mod etcd_errors;
mod fencing;
mod gate;
mod gateway;
mod gather;
mod health;
mod history;
mod holders;
mod hottest;
mod integrity;
mod kv;
mod lease;
mod lease_counts;
mod lease_keeper;
mod limits;
mod lock;
mod maintenance;
mod metrics;
mod plain;
mod queue;
mod range_stream;
mod refusals;
mod renewals;
mod serve;
mod served;
mod snapshot;
mod stale;
mod status;
mod watch;

pub use compactor::History;
pub use limits::Limits;
pub use serve::{ServeError, ServerConfig, bind, serve};

/// The version of the etcd API that is served: what clients that look at the server's version are told.
pub const ETCD_VERSION: &str = "3.7.0";
