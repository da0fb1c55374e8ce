//! Which call is behind a path: etcd's table, and below `/v3/ringfence/` what etcd has no place for.

use std::collections::BTreeMap;

use prost_reflect::{DescriptorPool, MessageDescriptor, MethodDescriptor};
use ringfence_proto::FILE_DESCRIPTORS;

/// etcd's paths: the service, then each method with what stands behind `/v3/`.
const ETCD: [(&str, &[(&str, &str)]); 8] = [
    (
        "etcdserverpb.KV",
        &[
            ("Range", "kv/range"),
            ("Put", "kv/put"),
            ("DeleteRange", "kv/deleterange"),
            ("Txn", "kv/txn"),
            ("Compact", "kv/compaction"),
        ],
    ),
    ("etcdserverpb.Watch", &[("Watch", "watch")]),
    (
        "etcdserverpb.Lease",
        &[
            ("LeaseGrant", "lease/grant"),
            ("LeaseRevoke", "lease/revoke"),
            ("LeaseRevoke", "kv/lease/revoke"),
            ("LeaseKeepAlive", "lease/keepalive"),
            ("LeaseTimeToLive", "lease/timetolive"),
            ("LeaseTimeToLive", "kv/lease/timetolive"),
            ("LeaseLeases", "lease/leases"),
            ("LeaseLeases", "kv/lease/leases"),
        ],
    ),
    (
        "etcdserverpb.Cluster",
        &[
            ("MemberAdd", "cluster/member/add"),
            ("MemberRemove", "cluster/member/remove"),
            ("MemberUpdate", "cluster/member/update"),
            ("MemberList", "cluster/member/list"),
            ("MemberPromote", "cluster/member/promote"),
        ],
    ),
    (
        "etcdserverpb.Maintenance",
        &[
            ("Alarm", "maintenance/alarm"),
            ("Status", "maintenance/status"),
            ("Defragment", "maintenance/defragment"),
            ("Hash", "maintenance/hash"),
            ("HashKV", "maintenance/hashkv"),
            ("Snapshot", "maintenance/snapshot"),
            ("MoveLeader", "maintenance/transfer-leadership"),
            ("Downgrade", "maintenance/downgrade"),
        ],
    ),
    (
        "etcdserverpb.Auth",
        &[
            ("AuthEnable", "auth/enable"),
            ("AuthDisable", "auth/disable"),
            ("AuthStatus", "auth/status"),
            ("Authenticate", "auth/authenticate"),
            ("UserAdd", "auth/user/add"),
            ("UserGet", "auth/user/get"),
            ("UserList", "auth/user/list"),
            ("UserDelete", "auth/user/delete"),
            ("UserChangePassword", "auth/user/changepw"),
            ("UserGrantRole", "auth/user/grant"),
            ("UserRevokeRole", "auth/user/revoke"),
            ("RoleAdd", "auth/role/add"),
            ("RoleGet", "auth/role/get"),
            ("RoleList", "auth/role/list"),
            ("RoleDelete", "auth/role/delete"),
            ("RoleGrantPermission", "auth/role/grant"),
            ("RoleRevokePermission", "auth/role/revoke"),
        ],
    ),
    ("v3lockpb.Lock", &[("Lock", "lock/lock"), ("Unlock", "lock/unlock")]),
    (
        "v3electionpb.Election",
        &[
            ("Campaign", "election/campaign"),
            ("Proclaim", "election/proclaim"),
            ("Leader", "election/leader"),
            ("Observe", "election/observe"),
            ("Resign", "election/resign"),
        ],
    ),
];

/// The package of ours that clients speak.
const OURS: &str = "ringfence.v1";
/// A stream whose client says what it wants and then only listens: with the end of the request's body the call goes on.
const LISTENS: &str = "etcdserverpb.Watch";

/// What is behind a path.
#[derive(Debug, Clone)]
pub(super) struct Endpoint {
    /// The path of the call in gRPC.
    pub(super) grpc_path: String,
    /// The request's message.
    pub(super) input: MessageDescriptor,
    /// The answer's message.
    pub(super) output: MessageDescriptor,
    /// Whether the request is any number of messages.
    pub(super) asks_in_stream: bool,
    /// Whether the answer is any number of messages.
    pub(super) answers_in_stream: bool,
    /// Whether the call goes on when the request has been read.
    pub(super) outlives_request: bool,
    /// The method, for those who describe it.
    pub(super) method: MethodDescriptor,
}

/// All paths.
#[derive(Debug)]
pub(super) struct Paths {
    endpoints: BTreeMap<String, Endpoint>,
    pub(super) pool: DescriptorPool,
}

impl Paths {
    /// The paths of all calls that this build describes.
    pub(super) fn of_this_build() -> Paths {
        let pool =
            DescriptorPool::decode(FILE_DESCRIPTORS).expect("the build's own descriptors are well-formed");
        let mut endpoints = BTreeMap::new();
        for service in pool.services() {
            let known = ETCD.iter().find(|(name, _)| *name == service.full_name());
            for method in service.methods() {
                for (_, path) in
                    known.iter().flat_map(|(_, methods)| *methods).filter(|(name, _)| *name == method.name())
                {
                    endpoints.insert(format!("/v3/{path}"), Endpoint::new(method.clone()));
                }
                if service.package_name() == OURS {
                    let path = format!("/v3/ringfence/{}/{}", service.name(), method.name());
                    endpoints.insert(path.to_lowercase(), Endpoint::new(method));
                }
            }
        }
        Paths { endpoints, pool }
    }

    pub(super) fn get(&self, path: &str) -> Option<&Endpoint> {
        self.endpoints.get(path)
    }

    /// All of them, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Endpoint)> {
        self.endpoints.iter().map(|(path, endpoint)| (path.as_str(), endpoint))
    }
}

impl Endpoint {
    fn new(method: MethodDescriptor) -> Endpoint {
        let service = method.parent_service();
        Endpoint {
            grpc_path: format!("/{}/{}", service.full_name(), method.name()),
            input: method.input(),
            output: method.output(),
            asks_in_stream: method.is_client_streaming(),
            answers_in_stream: method.is_server_streaming(),
            outlives_request: service.full_name() == LISTENS,
            method,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_of_a_described_service_is_behind_its_path() {
        let paths = Paths::of_this_build();
        for (service, methods) in ETCD {
            let is_described = paths.pool.get_service_by_name(service).is_some();
            for (method, path) in methods {
                let found = paths.get(&format!("/v3/{path}")).map(|endpoint| endpoint.grpc_path.clone());
                assert_eq!(found, is_described.then(|| format!("/{service}/{method}")), "{path}");
            }
        }
        // The only call of etcd's without a path is RangeStream, and no described service is left out.
        for service in paths.pool.services() {
            for method in service.methods() {
                let grpc_path = format!("/{}/{}", service.full_name(), method.name());
                let is_served = paths.iter().any(|(_, endpoint)| endpoint.grpc_path == grpc_path);
                assert_eq!(is_served, method.name() != "RangeStream", "{grpc_path}");
            }
        }
        let keep_alive = paths.get("/v3/lease/keepalive").expect("it has a path");
        assert!(keep_alive.asks_in_stream && keep_alive.answers_in_stream && !keep_alive.outlives_request);
        assert!(paths.get("/v3/ringfence/fencing/inspect").is_some());
        assert!(paths.get("/v3/kv").is_none() && paths.get("/v3/kv/range/").is_none());
    }
}
