//! `bamqp peers approve`: shows the owner who was heard and writes it into the configuration if that is right. Not
//! responsible for whose key it is: nobody but a person can know.

use std::io::{BufRead, Write};
use std::path::PathBuf;

use bamqp_core::announce::Name;
use bamqp_router::approve::{self, Candidate};
use bamqp_router::config::{Config, Peer};
use bamqp_router::control;
use bamqp_router::keys::fingerprint_of;

use crate::{CONFIG, Failure, failed, no_more, print};

/// `bamqp peers approve WHO`, with what comes after `approve`.
pub fn approve(mut args: pico_args::Arguments, file: Option<PathBuf>) -> Result<(), Failure> {
    let usage = |error: pico_args::Error| Failure::Usage(error.to_string());
    let called: Option<Name> = args.opt_value_from_str("--as").map_err(usage)?;
    let is_sure = args.contains("--yes");
    let wanted: Result<String, _> = args.free_from_str();
    let wanted = wanted.map_err(|_| Failure::Usage("expected peers approve NAME or KEY".into()))?;
    no_more(args)?;
    let file = file.unwrap_or_else(|| CONFIG.into());
    let config = Config::load(&file).map_err(failed)?;
    let heard = control::ask(&config.state_dir, "heard").map_err(failed)?;
    let heard: Result<Vec<Candidate>, _> = heard.lines().map(str::parse).collect();
    let peer = approve::choose(&heard.map_err(failed)?, &config, &wanted, called.as_ref()).map_err(failed)?;
    show(&peer)?;
    if !is_sure && !is_confirmed()? {
        return Err(Failure::Failed("not approved; nothing was changed".into()));
    }
    approve::add(&file, &peer).map_err(failed)?;
    print(&format!(
        "{} has peer {} now; the daemon has it after: service bamqp reload (elsewhere: kill -HUP its process)\n",
        file.display(),
        peer.name
    ))
}

fn show(peer: &Peer) -> Result<(), Failure> {
    let Peer { name, address, public_key } = peer;
    print(&format!(
        "  peer         {name}\n  address      {address}\n  fingerprint  {}\n",
        fingerprint_of(public_key)
    ))
}

fn is_confirmed() -> Result<bool, Failure> {
    print(
        "Anybody in the network can call itself like this. Is this the fingerprint that its owner is shown by bamqp key, and are you willing to fetch over your line what it asks for? [y/N] ",
    )?;
    std::io::stdout().flush().map_err(failed)?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).map_err(failed)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
