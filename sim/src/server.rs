//! What of the server knows no gRPC, as it is in the product: the same files.

#[path = "../../crates/server/src/lease_keeper.rs"]
pub(crate) mod lease_keeper;
#[path = "../../crates/server/src/queue.rs"]
#[allow(dead_code, reason = "elections, which ask for the oldest key, are not simulated")]
pub(crate) mod queue;
#[path = "../../crates/server/src/stale.rs"]
pub(crate) mod stale;
