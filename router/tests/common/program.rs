//! The `bamqp` program under test.

use std::process::Command;

/// The program, ready for arguments. Where tests and program are for another machine, `BAMQP_TEST_RUNNER` names the
/// emulator that runs them (scripts/mips): the system itself can't start such a program.
pub fn bamqp() -> Command {
    let program = env!("CARGO_BIN_EXE_bamqp");
    match std::env::var_os("BAMQP_TEST_RUNNER") {
        Some(runner) => {
            let mut command = Command::new(runner);
            command.arg(program);
            command
        }
        None => Command::new(program),
    }
}
