//! Members come and go: what operators want is written down in the replicated state (`ringfence_types::Member`), and a task
//! of whoever leads brings Raft's membership to it, one safe step after the other. A change that is interrupted by the death
//! of its leader is therefore finished by the next one, and nobody has to ask twice.
//!
//! [`plan`] decides, [`controller`] acts, [`request`] takes changes from callers and refuses those that would leave too few
//! healthy voters, and [`joining`] is the other side: a node on a fresh disk that asks to belong.

mod absent;
pub(crate) mod controller;
pub(crate) mod joining;
pub(crate) mod plan;
pub(crate) mod request;
