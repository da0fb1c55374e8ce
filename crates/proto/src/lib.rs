//! The messages of every protocol and format that Ringfence speaks, generated from `proto/`, and the only conversions
//! between them and the vocabulary of `ringfence-types`.
//!
//! Reading order: [`etcdserverpb`], [`mvccpb`] and [`ringfence_v1`] (what clients speak), [`request`] (from clients'
//! requests to the vocabulary, with every check of form), [`extension`], [`metadata`] and [`scan`] (what requests carry beyond
//! etcd's API, and that nothing of it is overlooked), [`response`] (from the vocabulary to clients' answers), [`log_v1`] with [`command`] and [`outcome`] (what lies in the log and travels between members).

#[cfg(feature = "grpc")]
pub mod codec;
pub mod command;
pub mod extension;
pub mod freshness;
mod log_from_types;
mod log_to_types;
pub mod metadata;
pub mod outcome;
mod overlap;
pub mod request;
pub mod response;
pub mod scan;

/// The key-value record of the etcd v3 API.
#[allow(missing_docs, clippy::all)]
pub mod mvccpb {
    include!(concat!(env!("OUT_DIR"), "/mvccpb.rs"));
}

/// The etcd v3 API: KV, Watch, Lease, Cluster and Maintenance.
#[allow(missing_docs, clippy::all)]
pub mod etcdserverpb {
    include!(concat!(env!("OUT_DIR"), "/etcdserverpb.rs"));
}

/// etcd's lock service.
#[allow(missing_docs, clippy::all)]
pub mod v3lockpb {
    include!(concat!(env!("OUT_DIR"), "/v3lockpb.rs"));
}

/// etcd's election service.
#[allow(missing_docs, clippy::all)]
pub mod v3electionpb {
    include!(concat!(env!("OUT_DIR"), "/v3electionpb.rs"));
}

/// The log's own format; [`command`] and [`outcome`] are the way in and out.
#[allow(missing_docs, clippy::all)]
pub mod log_v1 {
    include!(concat!(env!("OUT_DIR"), "/ringfence.log.v1.rs"));
}

/// What Ringfence tells clients beyond etcd's API.
#[allow(missing_docs, clippy::all)]
pub mod ringfence_v1 {
    include!(concat!(env!("OUT_DIR"), "/ringfence.v1.rs"));
}

/// The path by which generated code of other packages names [`ringfence_v1`].
mod ringfence {
    pub(crate) use crate::ringfence_v1 as v1;
}

/// What members say to each other.
#[allow(missing_docs, clippy::all)]
pub mod peers {
    include!(concat!(env!("OUT_DIR"), "/ringfence.peers.v1.rs"));
}

/// The binary metadata key under which an error's [`ringfence_v1::ErrorDetail`] travels.
pub const ERROR_DETAIL_KEY: &str = "ringfence-error-bin";

/// The descriptors of all packages, for gRPC reflection.
pub const FILE_DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
