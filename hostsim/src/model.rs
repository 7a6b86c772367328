//! `hostsim model`: the neighbourhood under a virtual clock.

use std::process::ExitCode;

use pico_args::Arguments;

/// Runs the command with what follows `model` on the command line.
pub fn main(_args: Arguments) -> ExitCode {
    eprintln!("hostsim: model: not in this build");
    ExitCode::from(2)
}
