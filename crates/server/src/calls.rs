//! Counters of calls, by method and code: what `grpc_server_started_total` and `grpc_server_handled_total` tell.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tonic::Code;

/// The methods that are counted by name.
const METHODS: [(&str, &str); 56] = [
    ("etcdserverpb.KV", "Put"),
    ("etcdserverpb.KV", "Range"),
    ("etcdserverpb.KV", "Txn"),
    ("etcdserverpb.KV", "DeleteRange"),
    ("etcdserverpb.KV", "RangeStream"),
    ("etcdserverpb.KV", "Compact"),
    ("etcdserverpb.Watch", "Watch"),
    ("etcdserverpb.Lease", "LeaseGrant"),
    ("etcdserverpb.Lease", "LeaseRevoke"),
    ("etcdserverpb.Lease", "LeaseKeepAlive"),
    ("etcdserverpb.Lease", "LeaseTimeToLive"),
    ("etcdserverpb.Lease", "LeaseLeases"),
    ("etcdserverpb.Cluster", "MemberList"),
    ("etcdserverpb.Cluster", "MemberAdd"),
    ("etcdserverpb.Cluster", "MemberRemove"),
    ("etcdserverpb.Cluster", "MemberUpdate"),
    ("etcdserverpb.Cluster", "MemberPromote"),
    ("etcdserverpb.Maintenance", "Status"),
    ("etcdserverpb.Maintenance", "Alarm"),
    ("etcdserverpb.Maintenance", "Defragment"),
    ("etcdserverpb.Maintenance", "Hash"),
    ("etcdserverpb.Maintenance", "HashKV"),
    ("etcdserverpb.Maintenance", "Snapshot"),
    ("etcdserverpb.Maintenance", "MoveLeader"),
    ("etcdserverpb.Maintenance", "Downgrade"),
    ("etcdserverpb.Auth", "AuthEnable"),
    ("etcdserverpb.Auth", "AuthDisable"),
    ("etcdserverpb.Auth", "AuthStatus"),
    ("etcdserverpb.Auth", "Authenticate"),
    ("etcdserverpb.Auth", "UserAdd"),
    ("etcdserverpb.Auth", "UserGet"),
    ("etcdserverpb.Auth", "UserList"),
    ("etcdserverpb.Auth", "UserDelete"),
    ("etcdserverpb.Auth", "UserChangePassword"),
    ("etcdserverpb.Auth", "UserGrantRole"),
    ("etcdserverpb.Auth", "UserRevokeRole"),
    ("etcdserverpb.Auth", "RoleAdd"),
    ("etcdserverpb.Auth", "RoleGet"),
    ("etcdserverpb.Auth", "RoleList"),
    ("etcdserverpb.Auth", "RoleDelete"),
    ("etcdserverpb.Auth", "RoleGrantPermission"),
    ("etcdserverpb.Auth", "RoleRevokePermission"),
    ("v3lockpb.Lock", "Lock"),
    ("v3lockpb.Lock", "Unlock"),
    ("v3electionpb.Election", "Campaign"),
    ("v3electionpb.Election", "Proclaim"),
    ("v3electionpb.Election", "Leader"),
    ("v3electionpb.Election", "Observe"),
    ("v3electionpb.Election", "Resign"),
    ("ringfence.v1.Integrity", "Scrub"),
    ("ringfence.v1.Fencing", "ChangeGuard"),
    ("ringfence.v1.Fencing", "ListGuards"),
    ("ringfence.v1.Fencing", "Inspect"),
    ("ringfence.v1.Fencing", "Resolve"),
    ("ringfence.v1.History", "Versions"),
    ("ringfence.v1.Load", "Hottest"),
];

/// The names of gRPC's codes as Prometheus metrics of gRPC servers write them, in the order of their numbers.
const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

/// The counters.
pub(crate) struct Calls {
    started: [AtomicU64; METHODS.len()],
    handled: [[AtomicU64; CODES.len()]; METHODS.len()],
}

/// A method that is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Method(usize);

impl Method {
    /// The method behind a path, if it is counted.
    pub(crate) fn of(path: &str) -> Option<Method> {
        let (service, method) = path.strip_prefix('/')?.split_once('/')?;
        METHODS.iter().position(|known| *known == (service, method)).map(Method)
    }
}

impl Default for Calls {
    fn default() -> Calls {
        let zeros = |_| std::array::from_fn(|_| AtomicU64::new(0));
        Calls { started: std::array::from_fn(|_| AtomicU64::new(0)), handled: std::array::from_fn(zeros) }
    }
}

impl Calls {
    pub(crate) fn started(&self, method: Method) {
        self.started[method.0].fetch_add(1, Relaxed);
    }

    /// Counts an answer. A stream counts with the code that it began with.
    pub(crate) fn handled(&self, method: Method, code: Code) {
        self.handled[method.0][code as usize].fetch_add(1, Relaxed);
    }

    /// The counters in Prometheus' text format; what was never counted is left out.
    pub(crate) fn write(&self, text: &mut String) {
        text.push_str(
            "# HELP grpc_server_started_total Calls begun.\n# TYPE grpc_server_started_total counter\n",
        );
        for ((service, method), count) in METHODS.iter().zip(&self.started) {
            let count = count.load(Relaxed);
            if count > 0 {
                let labels = format!("grpc_method=\"{method}\",grpc_service=\"{service}\"");
                let _ = writeln!(text, "grpc_server_started_total{{{labels}}} {count}");
            }
        }
        text.push_str(
            "# HELP grpc_server_handled_total Calls answered, by code.\n# TYPE grpc_server_handled_total counter\n",
        );
        for ((service, method), counts) in METHODS.iter().zip(&self.handled) {
            for (code, count) in CODES.iter().zip(counts) {
                let count = count.load(Relaxed);
                if count > 0 {
                    let labels =
                        format!("grpc_code=\"{code}\",grpc_method=\"{method}\",grpc_service=\"{service}\"");
                    let _ = writeln!(text, "grpc_server_handled_total{{{labels}}} {count}");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_by_method_and_code() {
        let calls = Calls::default();
        let put = Method::of("/etcdserverpb.KV/Put").unwrap();
        calls.started(put);
        calls.started(put);
        calls.handled(put, Code::Ok);
        calls.handled(put, Code::Unavailable);
        let mut text = String::new();
        calls.write(&mut text);
        for line in [
            "grpc_server_started_total{grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\"} 2",
            "grpc_server_handled_total{grpc_code=\"OK\",grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\"} 1",
            "grpc_server_handled_total{grpc_code=\"Unavailable\",grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\"} 1",
        ] {
            assert!(text.lines().any(|written| written == line), "{line} in {text}");
        }
        assert!(!text.contains("Range"));
    }

    #[test]
    fn unknown_paths_are_no_methods_and_every_code_has_its_name() {
        for path in ["", "/", "/etcdserverpb.KV", "/etcdserverpb.KV/", "/x.KV/Put", "/etcdserverpb.KV/Put/"] {
            assert_eq!(Method::of(path), None, "{path}");
        }
        assert_eq!(CODES[Code::Unauthenticated as usize], "Unauthenticated");
        assert_eq!(CODES[Code::OutOfRange as usize], "OutOfRange");
    }
}
