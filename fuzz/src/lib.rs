//! Fuzz targets: every decoder that reads bytes of the network, of the disk or of a user.
//!
//! [`targets`] has one function a target, which panics where the product is wrong; `fuzz_targets/` wraps each for
//! cargo-fuzz. [`seeds`] makes the valid inputs that lie in `corpus/`; [`mutate`] varies them for the plain test.

pub mod mutate;
pub mod seeds;
pub mod targets;

/// A target: answers any bytes, or panics where the product is wrong.
pub type Target = fn(&[u8]);

/// All targets by name.
pub const TARGETS: [(&str, Target); 14] = [
    ("log_segment", targets::log_segment),
    ("log_batches", targets::log_batches),
    ("raft_records", targets::raft_records),
    ("identity_file", targets::identity_file),
    ("peer_frames", targets::peer_frames),
    ("handshake", targets::handshake),
    ("snapshot_transfer", targets::snapshot_transfer),
    ("snapshot_file", targets::snapshot_file),
    ("log_messages", targets::log_messages),
    ("client_requests", targets::client_requests),
    ("extensions", targets::extensions),
    ("import_record", targets::import_record),
    ("configuration", targets::configuration),
    ("transaction", targets::transaction),
];
