//! `hostsim model`: the core under a virtual clock and seeded randomness.

use std::process::ExitCode;

use pico_args::Arguments;

pub mod lines;
pub mod reorder;
pub mod table;
pub mod world;

/// Runs the command with what follows `model` on the command line.
pub fn main(_args: Arguments) -> ExitCode {
    eprintln!("hostsim: model: not in this build");
    ExitCode::from(2)
}
