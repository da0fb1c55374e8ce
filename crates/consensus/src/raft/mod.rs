//! openraft's side of the house: its types, filled with ours, and the adapters that let it run over our log, our
//! state machine and our peers.

pub(crate) mod codec;
pub(crate) mod gate;
pub(crate) mod log_store;
pub(crate) mod quarantine;
mod rebuild;
pub(crate) mod state_machine;
pub(crate) mod types;

#[cfg(test)]
mod suite;
