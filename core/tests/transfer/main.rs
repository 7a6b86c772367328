//! The transfer state machine: random, awkward drivers against what must always hold, and each rule of DESIGN section
//! 5 by itself.

mod any;
mod checks;
mod pieces;
mod pinned;
mod rig;
mod rules;
