//! The `bamqp` command: arguments in, exit code out.

mod log_command;
mod peers_command;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Builder;

use bamqp_router::config::Config;
use bamqp_router::control;
use bamqp_router::daemon::Daemon;
use bamqp_router::keys::{KeyPair, base64_encode};
use bamqp_router::live::STACK_BYTES;
use bamqp_router::reload::Reloaded;
use bamqp_router::signals::{Signal, Signals};
use log::LevelFilter;
use simple_logger::SimpleLogger;

const HELP: &str = "\
BAMQP: routers of neighbours pool their links for one download

bamqp run --config FILE      the daemon, in the foreground; it logs to stderr
bamqp check [--config FILE]  says what is wrong with a configuration (default /etc/config/bamqp), nothing if it is all right
bamqp keygen [--key FILE]    makes a key (default /etc/bamqp/key, never overwritten) and prints the public key
bamqp key [--key FILE]       shows the key's fingerprint, by which neighbours know this router, and the public key
bamqp log show|verify FILE   reads and checks what the daemon wrote into log_dir; see bamqp log --help
bamqp status|peers|trust [--json] [--config FILE]
                             what the running daemon knows: its downloads, the other routers, and how far it trusts them
bamqp peers approve ROUTER [--as NAME] [--yes] [--config FILE]
                             writes a router that was heard (its name or key; bamqp peers lists them) into the configuration
                             as a peer, after you have confirmed its key
bamqp trust forget PEER      the peer of this name or key begins anew
bamqp --help | --version

SIGHUP: the daemon reads its configuration again; running downloads go on.
RUST_LOG=error|warn|info|debug sets how much is logged (default info).
";

const COMMANDS: &str = "run, check, keygen, key, status, peers, trust or log";

/// Where OpenWrt keeps the configuration.
const CONFIG: &str = "/etc/config/bamqp";

/// Names the thread that calls it, as std does. Stands in for musl's, which can name other threads, too, and brings `printf`
/// with all its formats for that: 17 KB.
#[cfg(target_env = "musl")]
// SAFETY: it has the C library's signature, and does for std, its only caller here, what that one does.
#[unsafe(no_mangle)]
extern "C" fn pthread_setname_np(_: libc::pthread_t, name: *const libc::c_char) -> libc::c_int {
    // SAFETY: the caller's name ends with a zero, and the system copies at most 16 bytes up to that.
    unsafe { libc::prctl(libc::PR_SET_NAME, name) }
}

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
        Some("check") => {
            let config: Option<PathBuf> = args.opt_value_from_str("--config").map_err(usage)?;
            no_more(args)?;
            Config::load(config.as_deref().unwrap_or(Path::new(CONFIG))).map(drop).map_err(failed)
        }
        Some(what @ ("keygen" | "key")) => {
            let key: Option<PathBuf> = args.opt_value_from_str("--key").map_err(usage)?;
            no_more(args)?;
            let key = key.unwrap_or_else(|| Config::default().key);
            if what == "keygen" { keygen(&key) } else { show_key(&key) }
        }
        Some(what @ ("status" | "peers" | "trust")) => {
            let config: Option<PathBuf> = args.opt_value_from_str("--config").map_err(usage)?;
            let is_json = args.contains("--json");
            let mut request = what.to_owned();
            match args.subcommand().map_err(usage)?.as_deref() {
                None if is_json => request += " --json",
                None => {}
                Some("forget") if what == "trust" => {
                    let peer: Result<String, _> = args.free_from_str();
                    let peer = peer.map_err(|_| Failure::Usage("expected trust forget PEER".into()))?;
                    request = format!("trust forget {peer}");
                }
                Some("approve") if what == "peers" && !is_json => {
                    return peers_command::approve(args, config);
                }
                Some(extra) => return Err(Failure::Usage(format!("unexpected argument {extra}"))),
            }
            no_more(args)?;
            ask(config.as_deref(), &request)
        }
        Some(other) => Err(Failure::Usage(format!("unknown command {other}; expected {COMMANDS}"))),
        None => Err(Failure::Usage(format!("expected {COMMANDS}"))),
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

/// Asks the daemon of this configuration, or of the usual one, and prints what it answers.
fn ask(config: Option<&Path>, request: &str) -> Result<(), Failure> {
    let config = match config {
        Some(file) => Config::load(file).map_err(failed)?,
        None if Path::new(CONFIG).exists() => Config::load(Path::new(CONFIG)).map_err(failed)?,
        None => Config::default(),
    };
    print(&control::ask(&config.state_dir, request).map_err(failed)?)
}

fn keygen(path: &Path) -> Result<(), Failure> {
    let pair = KeyPair::create(path).map_err(failed)?;
    print(&format!("{}\n", base64_encode(pair.public())))
}

fn show_key(path: &Path) -> Result<(), Failure> {
    let pair = KeyPair::load(path).map_err(failed)?;
    print(&format!("fingerprint  {}\npublic key   {}\n", pair.fingerprint(), base64_encode(pair.public())))
}

/// SIGTERM and SIGINT stop the daemon, which saves what it still has in memory; the second one ends the process at once.
/// SIGHUP has it read the configuration again.
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
    if let Err(error) = std::fs::create_dir_all(&config.state_dir) {
        log::warn!("state_dir {}: {error}", config.state_dir.display());
    }
    let daemon = Daemon::start(config, key).map_err(failed)?;
    for address in daemon.client_addresses() {
        log::info!("clients: http://{address}");
    }
    let is_asked = Arc::new(AtomicBool::new(false));
    for address in daemon.transparent_addresses() {
        log::info!("redirected connections: {address}");
    }
    let (ender, asked, hub, file) = (daemon.ender(), is_asked.clone(), daemon.hub(), file.to_owned());
    let waiting = Builder::new().name("signals".into()).stack_size(STACK_BYTES).spawn(move || {
        loop {
            match signals.wait() {
                Ok(Signal::Reload) if hub.reload(&file) != Reloaded::Disabled => continue,
                Ok(_) => break,
                Err(_) => return,
            }
        }
        log::info!("stopping");
        asked.store(true, Ordering::Relaxed);
        ender.poke();
        while let Ok(signal) = signals.wait() {
            if signal == Signal::Stop {
                std::process::exit(1);
            }
        }
    });
    waiting.map_err(failed)?;
    daemon.wait();
    if is_asked.load(Ordering::Relaxed) {
        return Ok(());
    }
    Err(Failure::Failed("the daemon ended by itself".into()))
}
