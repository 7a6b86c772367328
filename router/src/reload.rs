//! A changed configuration takes effect while the daemon runs. Not responsible for reading it.
//!
//! All or nothing: what can fail is done first, and then the old configuration stays as it was. Downloads that are under
//! way end as they were begun; connections go on, and what is asked on them next is done by the new configuration. Routers
//! that are no peers any more, or have another key, are let go of at once: whoever was helped by them is not, and downloads
//! that had their help do without.

use core::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, PoisonError};

use crate::accept::{self, Side};
use crate::budget::{Budget, Memory};
use crate::config::Config;
use crate::daemon::{Hub, Shared, StartError, gate, keep_peers, ledger, say_if_closed};
use crate::net;
use crate::serve::Terms;

/// What became of a changed configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reloaded {
    /// It is in effect, except for these options, whose old values stay until the next start.
    Applied(Vec<&'static str>),
    /// It can't be used, for this reason; the last good one stays in effect.
    Kept(String),
    /// It says that the daemon is not to run.
    Disabled,
}

impl Hub {
    /// Reads the configuration again and puts it into effect; what became of it is logged, and kept for status.
    pub fn reload(&self, file: &Path) -> Reloaded {
        let result = match Config::load(file) {
            Ok(config) if !config.enabled => Reloaded::Disabled,
            Ok(config) => match self.apply(config, &Memory::of_system()) {
                Ok(waiting) => Reloaded::Applied(waiting),
                Err(error) => Reloaded::Kept(format!("{}: {error}", file.display())),
            },
            Err(error) => Reloaded::Kept(error.to_string()),
        };
        let told = match &result {
            Reloaded::Applied(waiting) if waiting.is_empty() => "in effect".into(),
            Reloaded::Applied(waiting) => {
                format!("in effect, but {} at the next start of the daemon only", waiting.join(", "))
            }
            Reloaded::Kept(why) => format!("not used, the last good one stays: {why}"),
            Reloaded::Disabled => "enabled is 0".into(),
        };
        match &result {
            Reloaded::Kept(_) => log::error!("the changed configuration is {told}"),
            _ => log::info!("the changed configuration: {told}"),
        }
        *self.current().reload.lock().unwrap_or_else(PoisonError::into_inner) = told;
        result
    }

    /// Puts `config` into effect on a machine with this memory; which options have to wait for the next start.
    ///
    /// # Errors
    /// Why it can't be; nothing has changed then.
    pub fn apply(&self, mut config: Config, memory: &Memory) -> Result<Vec<&'static str>, StartError> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.current();
        let waiting = keep_what_stays(&mut config, &old.config);
        let budget = Budget::decide(&config, memory).map_err(StartError::Memory)?;
        let before = self.listeners();
        let listeners =
            accept::listen(&config, &before).map_err(|(at, error)| StartError::Listen(at, error))?;
        let gate = gate(&config, &listeners);
        let keyring = Arc::new(old.keyring.renew(config.partners()));
        let ledger = match &old.ledger {
            Some(ledger) => Some(ledger.clone()),
            None => ledger(&config, &keyring)?,
        };
        let peers = old.peers.renew(&config, keyring.clone()).map_err(StartError::System)?;
        let sessions = budget.counts.peer_sessions;
        let terms = Terms::of(&config, sessions, keyring.clone(), gate.clone(), ledger.clone());
        let new = Arc::new(Shared {
            config,
            budget,
            keyring,
            via: old.via.clone(),
            gate,
            live: old.live.clone(),
            trust: old.trust.clone(),
            peers,
            discovery: old.discovery.clone(),
            ledger,
            serve: old.serve.clone(),
            uplink: old.uplink.clone(),
            usage: old.usage.clone(),
            sessions: old.sessions.clone(),
            origins: old.origins.clone(),
            own_link: old.own_link.clone(),
            counters: old.counters.clone(),
            seats: old.seats.clone(),
            reload: old.reload.clone(),
        });
        // The keepers of both run for a moment.
        new.live.limit(new.budget.threads.max(old.budget.threads) + new.peers.len());
        keep_peers(&new).map_err(StartError::System).inspect_err(|_| new.peers.stop())?;

        net::set_buffers(new.budget.buffer);
        new.trust.renew(&new.config.peers);
        new.serve.renew(terms);
        new.discovery.renew(&new.config, accept::peer_address(&listeners));
        new.uplink.renew(&new.config);
        say_if_closed(&new.config);
        self.replace(new.clone());
        self.replace_listeners(listeners);
        old.peers.stop();
        let gone = old.peers.part_from(&new.peers);
        // Who is a peer now was a stranger so far, and takes us for one that does not know it; it comes again.
        let changed: Vec<IpAddr> = gone
            .iter()
            .copied()
            .chain(new.peers.beyond(&old.peers))
            .map(|at| at.ip().to_canonical())
            .collect();
        let is_ours = |at: SocketAddr| {
            before.iter().any(|one| one.side == Side::Peers && one.address.port() == at.port())
        };
        new.live.cut(|socket| {
            let (Ok(near), Ok(far)) = (socket.local_addr(), socket.peer_addr()) else { return false };
            gone.contains(&far) || is_ours(near) && changed.contains(&far.ip().to_canonical())
        });
        Ok(waiting)
    }
}

/// Gives `config` the old values of what can't be changed while the daemon runs; which those are.
fn keep_what_stays(config: &mut Config, old: &Config) -> Vec<&'static str> {
    fn keep<T: Clone + PartialEq>(waiting: &mut Vec<&'static str>, name: &'static str, new: &mut T, old: &T) {
        if new != old {
            new.clone_from(old);
            waiting.push(name);
        }
    }
    let mut waiting = Vec::new();
    keep(&mut waiting, "key", &mut config.key, &old.key);
    keep(&mut waiting, "state_dir", &mut config.state_dir, &old.state_dir);
    keep(&mut waiting, "log_dir", &mut config.log_dir, &old.log_dir);
    keep(&mut waiting, "log_size", &mut config.log_size, &old.log_size);
    keep(&mut waiting, "log_files", &mut config.log_files, &old.log_files);
    waiting
}
