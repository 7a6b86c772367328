//! The `bamqp` command: arguments in, exit code out.

mod log_command;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Builder;

use bamqp_router::config::Config;
use bamqp_router::daemon::Daemon;
use bamqp_router::keys::{KeyPair, base64_encode};
use bamqp_router::live::STACK_BYTES;
use bamqp_router::signals::Signals;
use log::LevelFilter;
use simple_logger::SimpleLogger;

const HELP: &str = "\
BAMQP: routers of neighbours pool their links for one download

bamqp run --config FILE      the daemon, in the foreground; it logs to stderr
bamqp keygen [--key FILE]    makes a key (default /etc/bamqp/key, never overwritten) and prints the public key
bamqp log show|verify FILE   reads and checks what the daemon wrote into log_dir; see bamqp log --help
bamqp --help | --version

RUST_LOG=error|warn|info|debug sets how much is logged (default info).
";

/// Why the command failed.
enum Failure {
    /// The arguments are wrong: exit code 2.
    Usage(String),
    /// Anything else: exit code 1.
    Failed(String),
}

fn main() -> ExitCode {
    let (message, code) = match command() {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Usage(message)) => (format!("{message}; see bamqp --help"), 2),
        Err(Failure::Failed(message)) => (message, 1),
    };
    eprintln!("bamqp: {message}");
    ExitCode::from(code)
}

fn command() -> Result<(), Failure> {
    let usage = |error: pico_args::Error| Failure::Usage(error.to_string());
    let mut args = pico_args::Arguments::from_env();
    let subcommand = args.subcommand().map_err(usage)?;
    if subcommand.as_deref() == Some("log") {
        return log_command::run(args);
    }
    if args.contains(["-h", "--help"]) {
        return print(HELP);
    }
    if args.contains(["-V", "--version"]) {
        return print(concat!("bamqp ", env!("CARGO_PKG_VERSION"), "\n"));
    }
    match subcommand.as_deref() {
        Some("run") => {
            let config: Option<PathBuf> = args.opt_value_from_str("--config").map_err(usage)?;
            let config = config.ok_or_else(|| Failure::Usage("expected run --config FILE".into()))?;
            no_more(args)?;
            run(&config)
        }
        Some("keygen") => {
            let key: Option<PathBuf> = args.opt_value_from_str("--key").map_err(usage)?;
            no_more(args)?;
            keygen(&key.unwrap_or_else(|| Config::default().key))
        }
        Some(other) => Err(Failure::Usage(format!("unknown command {other}; expected run, keygen or log"))),
        None => Err(Failure::Usage("expected run, keygen or log".into())),
    }
}

fn no_more(args: pico_args::Arguments) -> Result<(), Failure> {
    match args.finish().first() {
        Some(extra) => Err(Failure::Usage(format!("unexpected argument {}", extra.to_string_lossy()))),
        None => Ok(()),
    }
}

fn print(text: &str) -> Result<(), Failure> {
    std::io::stdout().write_all(text.as_bytes()).map_err(failed)
}

fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::Failed(error.to_string())
}

fn keygen(path: &Path) -> Result<(), Failure> {
    let pair = KeyPair::create(path).map_err(failed)?;
    print(&format!("{}\n", base64_encode(pair.public())))
}

/// SIGTERM and SIGINT stop the daemon, which saves what it still has in memory; the second one ends the process at once.
fn run(file: &Path) -> Result<(), Failure> {
    SimpleLogger::new().with_level(LevelFilter::Info).env().init().map_err(failed)?;
    let config = Config::load(file).map_err(failed)?;
    if !config.enabled {
        eprintln!("bamqp: {}: enabled is 0; nothing to do", file.display());
        return Ok(());
    }
    let key = KeyPair::load_or_create(&config.key).map_err(failed)?;
    log::info!("this router is {} with public key {}", key.fingerprint(), base64_encode(key.public()));
    let signals = Signals::hold_back().map_err(failed)?;
    let daemon = Daemon::start(config, key).map_err(failed)?;
    for address in daemon.client_addresses() {
        log::info!("clients: http://{address}");
    }
    let is_asked = Arc::new(AtomicBool::new(false));
    let (ender, asked) = (daemon.ender(), is_asked.clone());
    let waiting = Builder::new().name("signals".into()).stack_size(STACK_BYTES).spawn(move || {
        if signals.wait().is_ok() {
            log::info!("stopping");
            asked.store(true, Ordering::Relaxed);
            ender.poke();
        }
        if signals.wait().is_ok() {
            std::process::exit(1);
        }
    });
    waiting.map_err(failed)?;
    daemon.wait();
    if is_asked.load(Ordering::Relaxed) {
        return Ok(());
    }
    Err(Failure::Failed("the daemon ended by itself".into()))
}
