//! `hostsim model`: the core under a virtual clock and seeded randomness.

pub mod lines;
pub mod reorder;
pub mod world;
