//! The checkers against planted violations, against simulated stores, and against a checker by brute force.

mod brute_force;
mod planted;
mod properties;
mod script;
mod simulated;
