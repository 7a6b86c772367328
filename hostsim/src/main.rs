//! The `hostsim` command: `run` (the default) tries the real daemon on loopback, `model` the same core under a
//! virtual clock.

use std::process::ExitCode;

use hostsim::{model, run};

const HELP: &str = "\
hostsim: a BAMQP neighbourhood on a desktop

  hostsim [run] [OPTIONS]     real routers on loopback addresses, paced links, a real client
  hostsim model [OPTIONS]     the same core under a virtual clock: an hour in seconds, repeatable
  hostsim run --help          the options of either, likewise
  hostsim --version

";

fn main() -> ExitCode {
    // Warnings of the routers are part of the picture; RUST_LOG=debug shows more. It fails only if done twice.
    let _ = simple_logger::SimpleLogger::new().with_level(log::LevelFilter::Warn).env().init();
    let mut args = pico_args::Arguments::from_env();
    match args.subcommand() {
        Ok(None) => {
            if args.contains(["-V", "--version"]) {
                println!("hostsim {}", env!("CARGO_PKG_VERSION"));
                return ExitCode::SUCCESS;
            }
            if args.contains(["-h", "--help"]) {
                print!("{HELP}{}", hostsim::args::HELP);
                return ExitCode::SUCCESS;
            }
            run::main(args)
        }
        Ok(Some(command)) => match command.as_str() {
            "run" => run::main(args),
            "model" => model::main(args),
            other => wrong(&format!("{other}: expected run or model, see hostsim --help")),
        },
        Err(_) => wrong("expected arguments in UTF-8"),
    }
}

fn wrong(line: &str) -> ExitCode {
    eprintln!("hostsim: {line}");
    ExitCode::from(2)
}
